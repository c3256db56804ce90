"""Benchmarks: `make bench-<name>` measures, prints one JSON object and writes it to bench/results/."""
