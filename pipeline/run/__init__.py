"""Runs: the job, its driver, and the tasks on Ray."""
