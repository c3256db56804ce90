"""Meshes to multi-view renders: glTF, rigs, drawing."""
