"""Parts of the benchmarks of learning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import equivalents, learning, learning_parts
from bench.datasets import publish_dataset
from bench.learning_data import Objects, interval, numbered, read
from bench.sensitivity import blur, blurred, noisy, reduced
from gaussianverse.atlas import AtlasDataset, Gaussians
from gaussianverse.atlas.gaussians import canonical_quats
from gaussianverse.examples.representation import GROUPS, Representation, RepresentationConfig
from gaussianverse.examples.views import orbit

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    uids = ["a", "b", "c"]
    captions = {"a": "rock", "b": "rock", "c": "fish"}
    fields = {uid: {"category": category} for uid, category in zip(uids, ("plant", "plant", "animal"), strict=True)}
    folder = tmp_path_factory.mktemp("made") / "out"
    return str(publish_dataset(folder, uids, shard_size=4, size=16, captions=captions, fields=fields))


def gaussians(count: int = 200) -> Gaussians:
    rng = np.random.default_rng(0)
    return Gaussians(
        rng.normal(size=(count, 3)), rng.uniform(0.01, 0.2, (count, 3)), canonical_quats(rng.normal(size=(count, 4))),
        np.full(count, 0.5), np.full((count, 3), 0.5),
    )  # fmt: skip


def covariances(g: Gaussians) -> np.ndarray:
    frames = np.stack([equivalents.matrix(q.astype(float)) * s for q, s in zip(g.quats, g.scales, strict=True)])
    return frames @ frames.transpose(0, 2, 1)


def test_the_nearest_of_24_is_the_same_gaussian_with_the_smallest_angle() -> None:
    quats, axes = equivalents.rotations()
    assert len(quats) == len(axes) == 24
    given = gaussians()
    found = equivalents.nearest(given)
    np.testing.assert_allclose(covariances(found), covariances(given), atol=1e-6)
    # half of the largest angle that is left, 62.8 degrees
    assert found.quats[:, 0].min() > np.cos(np.radians(31.5))
    angles = np.abs(equivalents.product(found.quats[:, None].astype(float), quats[None])[..., 0])
    np.testing.assert_allclose(angles.max(1), found.quats[:, 0], atol=1e-6)
    np.testing.assert_allclose(equivalents.nearest(found).quats, found.quats, atol=1e-6)


def test_objects_of_one_caption_are_numbered(dataset: str) -> None:
    assert numbered(AtlasDataset(dataset)) == {"a": "plant rock 1", "b": "plant rock 2", "c": "animal fish"}


def test_the_interval_is_that_of_students_t() -> None:
    # t of 2 degrees of freedom at 97.5 % is 4.303, the deviation of 1, 2, 3 is 1
    assert interval([1, 2, 3]) == pytest.approx((2.0, 4.3027 / 3**0.5), abs=1e-3)


def test_only_the_named_group_is_disturbed_and_by_as_much_as_asked_for(dataset: str) -> None:
    opened = AtlasDataset(dataset)
    representation = Representation.of(opened, RepresentationConfig(per_pixel=False))
    atlas = read(opened).atlases[0]
    for group, chosen in GROUPS.items():
        others = [c for c in range(16) if c not in chosen]
        for disturb in (
            noisy(representation, group, 0.1, torch.Generator().manual_seed(0)),
            blurred(representation, group, 1.0),
            blurred(representation, group, None),
        ):
            made = disturb(atlas)
            torch.testing.assert_close(made[others], atlas[others], rtol=0, atol=0)
            assert (made[list(chosen)] - atlas[list(chosen)]).abs().max() > 1e-3
        change = noisy(representation, group, 0.1, torch.Generator().manual_seed(0))(atlas)
        if group != "scale":  # whose logarithm is disturbed, and clamped
            relative = (change - atlas)[list(chosen)] / representation.std[list(chosen)]
            assert float(relative.std()) == pytest.approx(0.1, rel=0.1)
    # as many components as a patch has numbers keep all
    kept = reduced(Representation.of(opened), read(opened).atlases, 256)(atlas)
    torch.testing.assert_close(kept, atlas, rtol=0, atol=1e-3)
    flat = torch.full((2, 16, 16), 3.0)
    torch.testing.assert_close(blur(flat, 2), flat)


def test_a_training_that_ended_is_not_repeated_and_its_result_names_what_others_read(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning_parts, "CAMERAS", orbit(4, 16))
    network = {"widths": (8,), "rank": 2, "head_width": 16, "condition": 16}
    recipe = replace(
        learning.A, config=replace(learning.A.config, cpu_seconds=1.0), network=network, marks=(0.5, 1.0)
    )
    read_, objects = learning.opened(dataset)
    assert isinstance(objects, Objects)
    first = learning_parts.run("a", recipe, read_, objects, tmp_path)
    assert [row["samples"] for row in first["curve"]] == [3, 3]
    assert first["curve"][0]["steps"] < first["curve"][1]["steps"]
    monkeypatch.setattr(learning_parts, "evaluate", None)
    assert learning_parts.run("a", recipe, read_, objects, tmp_path) == first
    found = learning.result(tmp_path)
    assert (found["objects"], found["psnr_db"]) == (3, first["curve"][-1]["psnr_db"])
    assert {"cpu_minutes", "curve"} <= found.keys()
    assert "many_objects" not in found
