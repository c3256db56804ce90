"""Carrying a run: the job, its driver, and the tasks on Ray."""
