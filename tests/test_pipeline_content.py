"""verify names what a dataset says of an object against its manifest, its settings, its arrays and its splat.

Each time the published bytes are edited and every sum above them is made to agree.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forger import Forger, Sample
from pipeline_runs import TINY, build_in_process, data_of, dataset, write_views

from gaussianverse.atlas import AtlasConfig, Gaussians, pack
from gaussianverse.atlas.arrays import npy, read_npy
from gaussianverse.atlas.dataset_format import ALBEDO, ATLAS, OFFSET, OPACITY_COPIES, SPLATS, main_member, shard_tar
from gaussianverse.atlas.plane import points_of
from gaussianverse.fitter.reduce import reduce
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.content import faults_of_atlas
from gaussianverse.pipeline.dataset.schemas import FRAME
from gaussianverse.pipeline.ops.verify import verify
from gaussianverse.pipeline.run import job

CONFIG = load("test", [*TINY, "run.shard_size=8"])
ATLAS_CONFIG = AtlasConfig(size=16, min_smoothness=0.0)
BOTH = (SPLATS, ATLAS)
MINE: dict[str, Any] = {"license": "MIT", "mine": "", "score": 0.0, "rank": 0, "good": False}
ROWS: list[dict[str, Any]] = [
    {
        "uid": "amber", "views": "views/amber", "license": "CC-BY-4.0", "captions": ["a ball", "eine Kugel"],
        "caption_sources": ["hand", "translated"], "category": "Food", "source_id": "x/1", "split": "train",
        "attribution": "A. Author: Ball, https://x.org", "mine": "m", "score": 0.5, "rank": 3, "good": True,
    },
    {**MINE, "uid": "birch", "views": "views/birch", "caption": "two"},
    {**MINE, "uid": "cedar", "views": "views/cedar", "caption": "broken", "attribution": "C", "split": "val"},
    {**MINE, "uid": "dogwood", "views": "fits/dogwood.npz", "format": "splats", "caption": "four"},
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dataset of two fitted objects, one that is quarantined, and one that already was Gaussians."""
    folder = tmp_path_factory.mktemp("whole")
    for seed, uid in enumerate(("amber", "birch")):
        write_views(folder / "views" / uid, seed)
    (folder / "views" / "cedar").mkdir()
    (folder / "fits").mkdir()
    (folder / "fits" / "dogwood.npz").write_bytes(data_of(SPLATS, "dogwood"))
    manifest = folder / "objects.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    storage, run, base = job.plan(str(folder / "out"), str(manifest), CONFIG)
    build_in_process(storage, run, CONFIG, base)
    assert list(verify(storage, run)) == []
    assert {r["uid"]: r["status"] for r in Forger(folder / "out").samples(ATLAS)["cedar"][:1]} == {
        "cedar": "quarantined"
    }
    return folder / "out"


@pytest.fixture
def forger(whole: Path, tmp_path: Path) -> Forger:
    shutil.copytree(whole, tmp_path / "out", ignore=shutil.ignore_patterns("_work"))
    return Forger(tmp_path / "out")


def faults(forger: Forger) -> list[str]:
    forger.seal()
    return list(verify(forger.storage, forger.run))


def test_an_edit_that_changes_nothing_leaves_the_same_bytes(forger: Forger) -> None:
    """Otherwise the tests below could pass for a wrong reason."""
    before = dataset(forger.storage)
    for family in BOTH:
        forger.edit(family, lambda samples: None)
    assert faults(forger) == []
    assert dataset(forger.storage) == before


FACTS: dict[str, Any] = {
    "source_id": "x/2", "category": "Plants", "license": "CC0-1.0", "caption": "a cube", "caption_source": "model",
    "captions": ["a ball", "ein Ball"], "caption_sources": ["hand", "hand"], "split": "test", "attribution": "",
    "mine": "M", "score": 0.75, "rank": 2, "good": False, "config_digest": "0" * 64,
}  # fmt: skip


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_that_is_not_the_manifests_is_named_for_both_families(forger: Forger, name: str) -> None:
    forger.facts(BOTH, "amber", {name: FACTS[name]})
    found = faults(forger)
    assert len(found) == 2
    for family, fault in zip(BOTH, found, strict=True):
        assert fault.startswith(f"{layout.stats(family, 0)}: amber: {name} is ")


@pytest.mark.parametrize("name", ["license", "attribution", "split", "rank", "config_digest", "captions"])
def test_a_fact_of_a_quarantined_object_is_named_too(forger: Forger, name: str) -> None:
    forger.facts(BOTH, "cedar", {name: FACTS[name] if name != "attribution" else "D"})
    assert [f"cedar: {name} is " in fault for fault in faults(forger)] == [True, True]


@pytest.mark.parametrize("family", BOTH)
def test_a_fact_that_differs_in_one_family_is_named(forger: Forger, family: str) -> None:
    forger.facts((family,), "birch", {"license": "CC0-1.0"})
    found = faults(forger)
    assert f"{layout.stats(family, 0)}: birch: license is 'CC0-1.0', the manifest says 'MIT'" in found


@pytest.mark.parametrize(
    ("uid", "name", "value", "words"),
    [
        ("amber", "steps", 99, "steps is 99, the settings say 100"),
        ("dogwood", "steps", 100, "steps is 100, the settings say -1"),
        ("amber", "seed", 7, "seed is 7, which the settings give to no attempt"),
        ("amber", "fit_digest", "f" * 64, "fit_digest is ffffffffffff.., the settings give "),
        ("amber", "n_gaussians", 7, "n_gaussians is 7, its arrays have "),
        *((uid, f"bbox_{end}_{axis}", 0.125, f"bbox_{end}_{axis} is 0.125, its arrays have ")
          for uid in ("amber", "dogwood") for end in ("min", "max") for axis in "xyz"),
    ],
)  # fmt: skip
def test_what_a_fit_says_of_its_settings_and_arrays_is_compared(
    forger: Forger, uid: str, name: str, value: Any, words: str
) -> None:
    forger.facts((SPLATS,), uid, {name: value})
    assert any(f"{uid}: {words}" in fault for fault in faults(forger))


def test_seeds_of_two_objects_are_not_exchanged(forger: Forger) -> None:
    seeds = {uid: facts["seed"] for uid, (facts, _) in forger.samples(SPLATS).items()}
    assert seeds["amber"] != seeds["birch"]
    forger.facts((SPLATS,), "amber", {"seed": seeds["birch"]})
    assert any("amber: seed is" in fault for fault in faults(forger))


@pytest.mark.parametrize("name", ["n_gaussians", "n_padded", "n_dropped", "size", "center_x", "unit"])
def test_what_an_atlas_says_of_itself_is_compared(forger: Forger, name: str) -> None:
    forger.facts((ATLAS,), "amber", {name: 3.0 if name in FRAME else 3})
    assert [f"amber: {name} is 3" in fault for fault in faults(forger)] == [True]


def main(samples: dict[str, Sample], family: str, uid: str) -> bytes:
    return samples[uid][1][main_member(family, uid)]


def swap_all(samples: dict[str, Sample]) -> None:
    """The whole samples of two objects, but for what the manifest says of them."""
    (one, first), (other, second) = samples["amber"], samples["birch"]
    measured = ("n_gaussians", "n_padded", "n_dropped")
    a, b = ({name: facts[name] for name in measured} for facts in (one, other))
    one.update(b)
    other.update(a)
    names = main_member(ATLAS, "amber"), main_member(ATLAS, "birch")
    first[names[0]], second[names[1]] = second[names[1]], first[names[0]]


def another(samples: dict[str, Sample]) -> None:
    """The atlas of other Gaussians, of which there are as many."""
    splat = samples["dogwood"][1]
    held = Gaussians.from_bytes(data_of(SPLATS, "stranger"))
    splat[main_member(ATLAS, "dogwood")] = pack(held, ATLAS_CONFIG).to_bytes()


def cells(change: Callable[[Any, tuple[int, int], tuple[int, int]], None]) -> Callable[[dict[str, Sample]], None]:
    """Edit the array of an atlas; `change` is given a cell with a Gaussian, and one of padding."""

    def edited(samples: dict[str, Sample]) -> None:
        array = np.array(read_npy(main(samples, ATLAS, "amber")))
        live = array[..., OPACITY_COPIES[0]] != 0
        held, padded = (tuple(np.argwhere(where)[5].tolist()) for where in (live, ~live))
        change(array, held, padded)
        samples["amber"][1][main_member(ATLAS, "amber")] = npy(array)

    return edited


def add(channel: int, value: float, *, padding: bool = False) -> Callable[[dict[str, Sample]], None]:
    def change(array: Any, held: Any, padded: Any) -> None:
        array[padded if padding else held][channel] += np.float32(value)

    return cells(change)


def twice(array: Any, held: Any, padded: Any) -> None:
    """A cell holds the Gaussian of another cell, at the position that it has there."""
    other = tuple(np.argwhere(array[..., OPACITY_COPIES[0]] != 0)[6])
    points = points_of(ATLAS_CONFIG).reshape(16, 16, 3)
    means = array[other][OFFSET] + points[other]
    array[held] = array[other]
    array[held][OFFSET] = means - points[held]


def one_copy(array: Any, held: Any, padded: Any) -> None:
    array[held][OPACITY_COPIES[0]] += np.float32(0.01)
    array[held][OPACITY_COPIES[1]] -= np.float32(0.01)


def moved(array: Any, held: Any, padded: Any) -> None:
    """Channels of two cells are exchanged, whose offsets belong to other sphere points."""
    live = np.argwhere(array[..., OPACITY_COPIES[0]] != 0)
    other = tuple(live[live.shape[0] // 2])
    array[held], array[other] = array[other].copy(), array[held].copy()


EDITED: dict[str, tuple[Callable[[dict[str, Sample]], None], str]] = {
    "two atlases are exchanged": (swap_all, "birch: "),
    "an atlas of other Gaussians": (another, "dogwood: 40 of its 40 Gaussians are not in the splat beside it"),
    "a position": (add(0, 1e-6), "amber: 1 of its"),
    "a colour": (add(ALBEDO.start, 1e-6), "amber: 1 of its"),
    "a scale": (add(8, 1e-6), "amber: 1 of its"),
    "a rotation": (add(12, 1e-6), "amber: 1 of its"),
    "copies of an opacity": (cells(one_copy), "amber: 1 of its cells do not have one opacity"),
    "a Gaussian twice": (cells(twice), "amber: 1 of its"),
    "two cells are exchanged": (cells(moved), "amber: 2 of its"),
    "a colour of padding": (add(ALBEDO.start, 1e-6, padding=True), "cells of padding repeat no Gaussian"),
    "a position of padding": (add(1, 1e-6, padding=True), "cells of padding repeat no Gaussian"),
}


@pytest.mark.parametrize("name", EDITED)
def test_an_atlas_that_is_not_the_splat_beside_it_is_named(forger: Forger, name: str) -> None:
    change, words = EDITED[name]
    forger.edit(ATLAS, change)
    found = faults(forger)
    assert any(words in fault for fault in found)
    assert all(fault.startswith("atlas/atlas-000000.tar: ") for fault in found)


def test_a_splat_that_is_not_the_atlas_beside_it_is_named(forger: Forger) -> None:
    def change(samples: dict[str, Sample]) -> None:
        splat = Gaussians.from_bytes(main(samples, SPLATS, "amber"))
        colors = splat.colors.copy()
        colors[3] = 1 - colors[3]
        edited = Gaussians(splat.means, splat.scales, splat.quats, splat.opacities, colors)
        samples["amber"][1][main_member(SPLATS, "amber")] = bytes(edited.to_bytes())

    forger.edit(SPLATS, change)
    (fault, *padding) = faults(forger)
    assert "amber: 1 of its" in fault
    assert all("cells of padding" in text for text in padding)


def test_a_splat_that_cannot_be_read_is_one_fault(forger: Forger) -> None:
    def change(samples: dict[str, Sample]) -> None:
        samples["amber"][1][main_member(SPLATS, "amber")] = b"no arrays"

    forger.edit(SPLATS, change)
    (fault,) = faults(forger)
    assert fault.startswith("splats/splats-000000.tar: amber: AtlasError: ")


def test_an_atlas_that_cannot_be_read_is_one_fault(forger: Forger) -> None:
    def change(samples: dict[str, Sample]) -> None:
        samples["amber"][1][main_member(ATLAS, "amber")] = b"no array"

    forger.edit(ATLAS, change)
    (fault,) = faults(forger)
    assert fault.startswith("atlas/atlas-000000.tar: amber: AtlasError: ")


@pytest.mark.parametrize("family", BOTH)
def test_a_tar_that_cannot_be_read_is_one_fault_of_its_shard(forger: Forger, family: str) -> None:
    key = shard_tar(family, 0)
    forger.write(key, forger.storage.get(key)[:-700])
    (fault,) = verify(forger.storage, forger.run, shards=[0])
    assert fault.startswith(f"{key}: ")


def test_an_atlas_without_a_splat_is_named(forger: Forger) -> None:
    def change(samples: dict[str, Sample]) -> None:
        facts, members = samples["amber"]
        facts.update(status="quarantined", reason="low_psnr")
        members.clear()

    forger.edit(SPLATS, change)
    assert any("amber: there is no splat beside its atlas" in fault for fault in faults(forger))


@pytest.mark.parametrize("rule", ["scale", "contribution"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("pad", ["transport", "nearest", "before"])
def test_every_atlas_of_our_own_is_that_of_its_splat(pad: str, dtype: str, rule: str) -> None:
    """Also of Gaussians that look alike, share a place, or are too small for float16."""
    config = AtlasConfig(size=8, min_smoothness=0.0, pad=pad, dtype=dtype)
    for seed, count in ((0, 20), (1, 64), (2, 90)):
        splat = alike(seed, count)
        chosen = reduce(splat, 64, rule)
        packed = pack(chosen, config)
        facts = {**packed.stats, "n_dropped": len(splat) - len(chosen)}
        array = np.array(read_npy(packed.to_bytes()))
        assert list(faults_of_atlas(facts, array, splat, {}, config, rule)) == []
        for cell in np.argwhere(array[..., OPACITY_COPIES[0]] != 0)[::7]:
            edited = array.copy()
            edited[(*cell, ALBEDO.start)] = 1 - edited[(*cell, ALBEDO.start)]
            assert list(faults_of_atlas(facts, edited, splat, {}, config, rule)) != []


def test_those_that_an_atlas_leaves_out_are_the_smallest() -> None:
    config = AtlasConfig(size=8, min_smoothness=0.0)
    splat = alike(0, 70)
    order = np.argsort(splat.scales.mean(axis=1))
    packed = pack(splat[np.sort(order[1:65])], config)  # the smallest, but not the very smallest
    facts = {**packed.stats, "n_dropped": 6}
    (fault,) = faults_of_atlas(facts, np.array(packed.array), splat, {}, config, "scale")
    assert fault.startswith("5 of its 64 Gaussians are not in the splat beside it")
    assert list(faults_of_atlas(facts, np.array(packed.array), splat, {}, config, "contribution")) == []


def test_refined_cells_are_counted_and_those_that_had_room_are_compared() -> None:
    config = AtlasConfig(size=8, min_smoothness=0.0)
    of = {count: alike(0, count) for count in (64, 70)}
    for count, words in ((70, []), (64, ["64 of its 64 Gaussians are not in the splat beside it"])):
        packed = pack(alike(1, 64), config)
        facts = {**packed.stats, "n_dropped": count - 64}
        array = np.array(packed.array)
        assert list(faults_of_atlas(facts, array, of[count], {}, config, "refine")) == words
        array[0, 0, OPACITY_COPIES] = 0
        assert any(
            "n_gaussians is 64" in f for f in faults_of_atlas(facts, array, alike(0, count), {}, config, "refine")
        )


def alike(seed: int, count: int) -> Gaussians:
    rng = np.random.default_rng(seed)
    quats = np.zeros((count, 4), np.float32)
    quats[:, 0] = 1
    scales = rng.uniform(0.01, 0.1, (count, 3))
    opacities, colors = rng.uniform(0.1, 1, count), rng.uniform(0.3, 0.4, (count, 3))
    means = rng.uniform(-1, 1, (count, 3))
    scales[:6], opacities[:6], colors[:6] = 0.05, 0.5, 0.35  # alike
    means[3:6] = means[3]  # and in one place
    scales[6], opacities[6] = 1e-8, 1e-9
    return Gaussians(means, scales, quats, opacities, colors)
