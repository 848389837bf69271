"""Ratios measured in one run; `python -m benchmarks.segment` prints a table."""
