"""Llamabda beside the naive stack, in one run: `python -m benchmarks`."""
