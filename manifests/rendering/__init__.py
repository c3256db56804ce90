"""Rendering of meshes to multi-view images: glTF, camera rig, drawing."""
