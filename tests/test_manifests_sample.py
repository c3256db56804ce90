"""The bundled sample: complete, free of faults, small, and as its manifest says."""

from pathlib import Path

import numpy as np
import pytest

from gaussianverse import manifests
from gaussianverse.fitter.views import drop_duplicate_poses, load_views
from gaussianverse.manifests import jsonl
from gaussianverse.manifests.check import check
from gaussianverse.manifests.rendering import presets, rig

SAMPLE = Path(manifests.__file__).parent / "sample"
UIDS = ["avocado", "boombox", "waterbottle", "spot"]


def test_manifest_is_clean_and_its_views_read() -> None:
    assert check(SAMPLE / "objects.jsonl", probe=lambda row: load_views(row.views, row.format), count=4) == []
    rows = jsonl.read(SAMPLE / "objects.jsonl")
    assert [row.uid for row in rows] == UIDS
    assert all(row.caption and row.caption_source and row.license and row.source_id for row in rows)


def test_everything_is_under_ten_megabytes() -> None:
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 10e6


@pytest.mark.parametrize("uid", UIDS)
def test_forty_views_of_256_pixels_on_the_rig(uid: str) -> None:
    views = load_views(SAMPLE / uid, "gobjaverse", min_views=40)
    assert views.images.shape == (40, 256, 256, 4)
    assert len(drop_duplicate_poses(views)) == 38
    toward = presets.plan("gobjaverse", presets.Options(), "").toward
    np.testing.assert_allclose(views.c2w[:, :3, :3], rig.rotations(toward), atol=1e-12)
    edge = np.concatenate([views.images[:, [0, -1], :, 3].ravel(), views.images[:, :, [0, -1], 3].ravel()])
    assert edge.max() == 0
    assert (views.images[..., 3] > 0).mean() > 0.04


@pytest.mark.parametrize("uid", UIDS)
def test_masks_agree_on_one_object(uid: str) -> None:
    """The visual hull of all masks fills every mask, so poses, field of view and images agree."""
    views = load_views(SAMPLE / uid, "gobjaverse", size=64)
    axis = np.linspace(-0.46, 0.46, 56)
    grid = np.stack(np.meshgrid(axis, axis, axis, [1.0], indexing="ij"), -1).reshape(-1, 4)
    masks = views.images[..., 3] > 0

    def pixels(view: int) -> tuple[np.ndarray, np.ndarray]:
        uvw = views.Ks[view] @ (grid @ views.viewmats[view].T)[:, :3].T
        return tuple((uvw[[1, 0]] / uvw[2]).astype(int).clip(0, 63))  # type: ignore[return-value]

    for view in range(40):
        grid = grid[masks[view][pixels(view)]]
    for view in range(40):
        filled = np.zeros_like(masks[view])
        filled[pixels(view)] = True
        assert filled[masks[view]].mean() > 0.85, views.names[view]
