"""Peak memory of one fit in a process of its own, by the number and the size of the views."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from bench.objects import spiral
from bench.pose_sets import cameras, intrinsics, poses_of
from gaussianverse.manifests.rendering.drawing import Renderer
from gaussianverse.manifests.rendering.meshes import Mesh


def peak_mb(mesh: Mesh, count: int, size: int, profile: str) -> float:
    """Largest resident memory in MB of a fit of `count` views of `size` x `size` pixels, as a command."""
    poses = spiral(count, -0.6, 1.5, 0.0, distance=float(np.linalg.norm(poses_of(mesh)[0, :3, 3])))
    focal = float(intrinsics(1, size)[0, 0, 0])
    with tempfile.TemporaryDirectory() as folder:
        frames = []
        with Renderer(mesh, shading="diffuse") as renderer:
            for k, (pose, camera) in enumerate(zip(poses, cameras(poses, size), strict=True)):
                Image.fromarray(renderer.color(camera)).save(Path(folder, f"{k:03d}.png"))
                opengl = pose @ np.diag([1.0, -1, -1, 1])
                frames.append({"file_path": f"{k:03d}.png", "transform_matrix": opengl.tolist()})
        camera = {"fl_x": focal, "fl_y": focal, "cx": size / 2, "cy": size / 2, "w": size, "h": size}
        Path(folder, "transforms.json").write_text(json.dumps({**camera, "frames": frames}))
        out = Path(folder, "out.npz")
        command = [sys.executable, "-m", "gaussianverse.fitter", folder, str(out), "--profile", profile, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["peak_mb"])
