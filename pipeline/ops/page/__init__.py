"""A static page of a dataset: what is in it, a gallery, and pages of single objects."""
