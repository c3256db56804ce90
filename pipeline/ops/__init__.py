"""The verbs that look at an output and keep it."""
