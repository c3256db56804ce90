"""Main members that are none are named, and a reader is told what it needs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaussianverse.atlas.arrays import npy
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.pipeline.dataset import members
from gaussianverse.pipeline.dataset.run_file import Run


def damaged(change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    return npy(change(np.zeros((16, 16, 16), np.float32)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (damaged(lambda a: a[:8]), "expected float32"),
        (damaged(lambda a: a.astype(np.float64)), "float64"),
        (damaged(lambda a: a + np.inf), "not finite"),
        (damaged(lambda a: a)[:200], "cut short"),
        (b"", "not a .npy file"),
        (b"\x93NUMPY", "not a .npy file"),
    ],
)
def test_what_is_no_atlas_is_named(data: bytes, words: str) -> None:
    with pytest.raises(AtlasError, match=words):
        members.atlas_array(data, AtlasConfig(size=16))


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    flag = tmp_path / "opened"

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (flag,)

    sink, archive = io.BytesIO(), io.BytesIO()
    np.save(sink, np.array([Bomb()], object), allow_pickle=True)
    names = ("means", "scales", "quats", "opacities", "colors")
    np.savez(archive, **dict.fromkeys(names, np.array([Bomb()], object)))
    with pytest.raises(AtlasError, match=r"not a \.npy file"):
        members.atlas_array(sink.getvalue(), AtlasConfig(size=16))
    with pytest.raises(AtlasError, match="no array of numbers"):
        members.check_main(SPLATS, archive.getvalue(), Run({}))
    assert not flag.exists()


def test_the_representation_tells_a_reader_what_it_needs() -> None:
    one, two = (members.representation(AtlasConfig(size=size)) for size in (16, 16))
    assert one == two
    assert len(one["channels"]) == 16
    assert one["channels"][3] == one["channels"][7] == one["channels"][11] == "opacity"
    other = members.representation(AtlasConfig(size=17))
    assert {one[k] == other[k] for k in ("sphere_sha256", "plane_sha256")} == {False}
