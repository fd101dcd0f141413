"""Measurements, run by `make bench`. Nothing here is imported by the product; numbers go to docs/benchmarks.md."""
