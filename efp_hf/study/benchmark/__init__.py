"""Speed, measured side by side; `scripts/benchmark.py` runs it."""
