"""Benchmarks of the router against real peers in one run: `python -m bench`."""
