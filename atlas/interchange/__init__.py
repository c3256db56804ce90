"""Atlases and Gaussians in the file formats of other projects."""
