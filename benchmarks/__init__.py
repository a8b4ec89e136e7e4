"""Benchmarks: ratios against named peers, measured in one run, and S3 request counts. Run with `make bench`."""
