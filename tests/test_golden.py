"""What gsplat drew, kept in files, against the backends that run here: images, gradients, contributions.

`make bench-gpu` writes such a file on a GPU; the one of gsplat's torch code is made by `make bench-gpu ARGS=--dry`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.gpu.parity import FLIP_MOST, FLIPPED_MOST, FORWARD_MOST, GRADIENT_MOST, INPUTS, drawn, relative

FILES = sorted((Path(__file__).parent / "data" / "gsplat").glob("*.npz"))


def test_there_is_a_golden_file() -> None:
    assert FILES


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_backends_draw_what_gsplat_drew(file: Path, backend: str) -> None:
    with np.load(file) as golden:
        inputs = {name: torch.from_numpy(golden[f"in_{name}"]) for name in INPUTS}
        image, judged = torch.from_numpy(golden["image"]).double(), torch.from_numpy(golden["judged"])
        expected = {name[4:]: torch.from_numpy(golden[name]).double() for name in golden if name.startswith("out_")}
    assert float((~judged).double().mean()) <= FLIPPED_MOST
    ours = drawn(backend, inputs, len(image), torch.device("cpu"), judged.float())
    apart = (ours.image - image).abs().amax(-1)
    assert float(apart[judged].max()) <= FORWARD_MOST
    assert float(apart.max()) <= FLIP_MOST
    assert set(expected) == {"means", "quats", "scales", "opacities", "colors", "weight", "removal"}
    errors = {name: relative(ours.values[name], value) for name, value in expected.items()}
    assert max(errors.values()) <= GRADIENT_MOST, errors
