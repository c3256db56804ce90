"""Manifests: rows that name the objects to build, where their views are, and what is known about them.

The authoring form is JSON Lines with one object a line (`jsonl`); the run form is one Parquet file whose row
group k is shard k (`runform`). Rows come from GObjaverse's index files (`gobjaverse`), from folders of views
(`folders`) or of 3D Gaussians (`splats`), or from an editor. `check` lists every fault. `rendering` makes
views from a mesh.
"""
