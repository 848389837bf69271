"""What `from clipseg_cli import ...` gives."""
