"""Readers and writers of other projects' file formats for atlases and Gaussians."""
