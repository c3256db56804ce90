"""The parts of `gaussianverse evaluate`: rows of objects, statistics over them, pairs of datasets, tables."""
