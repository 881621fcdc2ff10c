"""Benchmarks: ratios measured in one process, interleaved, as medians. `hushtune bench` runs them."""
