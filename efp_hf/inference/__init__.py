"""From image files to mask files."""
