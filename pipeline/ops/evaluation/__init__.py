"""What `gaussianverse evaluate` is made of: rows of objects, statistics over them, pairs of datasets, tables."""
