"""Benchmarks: `make bench-<name>` measures, prints one JSON object and keeps it under bench/results/."""
