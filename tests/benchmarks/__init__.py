"""Benchmarks: ratios inside one run, never asserted. `make bench` runs them all."""
