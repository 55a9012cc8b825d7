"""What the web page does, as plain functions; `app.py` only wires them to the page and to its API."""
