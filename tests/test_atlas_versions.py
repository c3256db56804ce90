"""Versions of a dataset as they are read: the newest or any other, by every way of reading."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_versions import next_version
from reader_datasets import array_of, publish_dataset, upload
from test_atlas_views import some

from gaussianverse import AtlasDataset, AtlasLoader, Mixture
from gaussianverse.atlas import StoreOptions
from gaussianverse.atlas.dataset_format import SUCCESS, VERSION, VERSIONS, version_key
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.loader import collate
from gaussianverse.atlas.reader.versions import later_versions
from gaussianverse.atlas.reader.views import ReferenceViews
from gaussianverse.atlas.store.errors import NotFound, StoreRefused
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import Entry

UIDS = [f"obj{i:02d}" for i in range(20)]
SECOND = {"corrected": {"obj01": {"caption": "second"}, "obj12": {}}, "removed": ["obj04", "obj05", "obj09", "obj19"]}
THIRD = {"corrected": {"obj01": {"caption": "third"}}, "removed": ["obj06"], "added": {"other": {"caption": "new"}}}
LEFT = [uid for uid in UIDS if uid not in ("obj01", "obj04", "obj05", "obj06", "obj09", "obj12", "obj19")]
NEWEST = [*LEFT, "obj12", "obj01", "other"]
"""The objects of version 3 in the order of the shards."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of a dataset of shards of eight objects."""
    folder = publish_dataset(tmp_path_factory.mktemp("set"), UIDS, shard_size=8)
    assert next_version(folder, **SECOND) == 2  # type: ignore[arg-type]
    assert next_version(folder, **THIRD) == 3  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def with_views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a dataset with reference views."""
    folder = tmp_path_factory.mktemp("views")
    publish_dataset(folder, UIDS[:8], shard_size=8, views=[views_of(i) for i in range(8)])
    next_version(folder, corrected={"obj02": {"caption": "second"}}, removed=["obj05", "obj06"])
    return folder


def views_of(number: int) -> ReferenceViews:
    """Views of object `number`, which no other has."""
    views = some()
    return replace(views, images=views.images ^ np.uint8(number))


def uids(dataset: Any) -> list[str]:
    return [item["uid"] for item in dataset]


def number(uid: str, item: Any) -> int:
    """The number of an object's atlas, see `array_of`."""
    return int(uid[3:]) if uid.startswith("obj") else int(item["row"]["index"])


def test_the_newest_version_is_read_unless_another_is_asked_for(root: Path) -> None:
    found = {v: AtlasDataset(root, version=v, shuffle=False, hashes=True) for v in (None, 1, 2, 3)}
    assert {v: d.catalogue.version for v, d in found.items()} == {None: 3, 1: 1, 2: 2, 3: 3}
    assert uids(found[None]) == uids(found[3]) == NEWEST
    assert uids(found[1]) == UIDS
    assert sorted(uids(found[2])) == [uid for uid in UIDS if uid not in SECOND["removed"]]
    captions = [d.get("obj01")["caption"] for d in found.values()]
    assert captions == ["third", "caption of obj01: é", "second", "third"]
    for dataset in found.values():
        for item in dataset:
            assert (item["atlas"].permute(1, 2, 0).numpy() == array_of(number(item["uid"], item), 8)).all()
    assert len({d.catalogue.digest for d in found.values()}) == 3


def test_what_was_taken_out_is_no_longer_there(root: Path) -> None:
    for uid in ("obj04", "obj06"):
        assert AtlasDataset(root, version=1).get(uid)["uid"] == uid
        with pytest.raises(DatasetError, match=f"{uid}: no such object"):
            AtlasDataset(root).get(uid)
    with pytest.raises(DatasetError, match="obj06: no such object"):
        AtlasDataset(root, uids=["obj06"])


@pytest.mark.parametrize("neighbours", [1, 2, 3, 16])
@pytest.mark.parametrize("cached", [False, True])
def test_no_read_goes_across_what_does_not_count(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, neighbours: int, cached: bool
) -> None:
    """Whatever is read together, each byte is of a sample that counts, and each sample is its own."""
    spans: list[tuple[str, int, int]] = []
    read = LocalStorage.read

    def watched(self: LocalStorage, key: str, offset: int, nbytes: int, total: int | None = None) -> memoryview:
        spans.append((key, offset, offset + nbytes))
        return read(self, key, offset, nbytes, total)

    monkeypatch.setattr(LocalStorage, "read", watched)
    cache = {"cache": tmp_path} if cached else {}
    dataset = AtlasDataset(root, neighbours=neighbours, seed=neighbours, readahead=4, hashes=True, **cache)  # type: ignore[arg-type]
    batches = [batch for batch in AtlasLoader(dataset, 4)]
    assert sorted(uid for batch in batches for uid in batch["uid"]) == sorted(NEWEST)
    for batch in batches:
        for uid, atlas, row in zip(batch["uid"], batch["atlas"], batch["row"], strict=True):
            assert (atlas.permute(1, 2, 0).numpy() == array_of(number(uid, {"row": row}), 8)).all()
    live = [dataset.catalogue.byte_range(place) for place in range(len(NEWEST))]
    counted = sorted((part.key, part.offset, part.offset + part.nbytes) for part in live)
    single = [(key, at, at + 1) for key, start, end in counted for at in range(start, end, 512)]
    assert sorted((key, at, at + 1) for key, start, end in spans for at in range(start, end, 512)) == single
    assert (len(spans) < len(live)) == (neighbours > 2)


def test_views_lie_beside_gaps_too(with_views: Path) -> None:
    for version in (1, 2):
        dataset = AtlasDataset(with_views, version=version, views=True, neighbours=8, hashes=True)
        found = {item["uid"]: item["views"] for item in dataset}
        assert len(found) == (8 if version == 1 else 6)
        for uid, views in found.items():
            expected = views_of(int(uid[3:])).images.astype(np.float32) / 255
            np.testing.assert_allclose(views.permute(0, 2, 3, 1).numpy(), expected, atol=1e-6)


def test_a_state_belongs_to_one_version(root: Path) -> None:
    state = AtlasDataset(root).state_dict()
    AtlasDataset(root, version=3).load_state_dict(state)
    with pytest.raises(DatasetError, match=r"the state has dataset .*, pass that as version="):
        AtlasDataset(root, version=2).load_state_dict(state)


def test_a_mixture_takes_two_versions(root: Path) -> None:
    parts = [(AtlasDataset(root, version=v), 1.0) for v in (1, 3)]
    mixture = Mixture(parts, epoch_samples=2 * len(UIDS))
    captions = [item["caption"] for item in mixture if item["uid"] == "obj01"]
    assert {"third", "caption of obj01: é"} == set(captions)


def test_families_beside_the_atlas(root: Path, tmp_path: Path) -> None:
    for version, expected in ((1, UIDS), (3, NEWEST)):
        dataset = AtlasDataset(root, version=version, hashes=True, shuffle=False).with_family("splats")
        batch = next(iter(AtlasLoader(dataset, len(expected))))
        assert batch["uid"] == expected
        for i, uid in enumerate(expected):
            means = batch["splats"]["splat.npz"][i]["means"]
            alone = AtlasDataset(root, version=version).with_family("splats").get(uid)
            assert (alone["splats"]["splat.npz"]["means"] == means).all()  # type: ignore[typeddict-item]
    # tars of somebody who took the objects of version 1
    for k in range(3):
        (tmp_path / "latents").mkdir(exist_ok=True)
        shutil.copy(root / f"splats/splats-00000{k}.tar", tmp_path / "latents")
    dataset = AtlasDataset(root).with_family(tmp_path / "latents", members=["txt"], missing="drop")
    found = {item["uid"]: item["latents"]["txt"] for item in dataset}  # type: ignore[typeddict-item]
    assert found == {uid: f"caption of {uid}: é" for uid in NEWEST if uid != "other"}


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_and_map_style(root: Path, workers: int) -> None:
    dataset = AtlasDataset(root, version=2)
    loader = AtlasLoader(dataset, 4, num_workers=workers)
    assert [uid for batch in loader for uid in batch["uid"]] == uids(AtlasDataset(root, version=2))
    assert collate(AtlasDataset(root).map_style().__getitems__(range(16)))["uid"] == NEWEST


class Unlisted(LocalStorage):
    """A folder that may be read and not listed: S3 then answers 403 for any key that is missing."""

    def list(self, prefix: str) -> Iterator[Entry]:
        raise StoreRefused("403")

    def get(self, key: str) -> bytes:
        try:
            return super().get(key)
        except NotFound as error:
            raise StoreRefused("403") from error


@pytest.mark.parametrize("kind", [LocalStorage, Unlisted])
def test_the_newest_is_the_highest_that_is_finished(tmp_path: Path, kind: type[LocalStorage]) -> None:
    def put(*keys: str) -> None:
        for key in keys:
            assert storage.put_if_absent(key, b"")

    storage = kind(tmp_path)
    assert later_versions(storage) == []
    put(SUCCESS, version_key(2, VERSION), "versions/note.txt", "versions/0002/_SUCCESS/more", "versions/2/_SUCCESS")
    assert later_versions(storage) == []
    put(version_key(2, "_SUCCESS.txt"), *(version_key(k, VERSION) for k in range(3, 13)))
    put(*(version_key(k, SUCCESS) for k in (10, 3, 11)))
    # the second was purged, the twelfth was begun
    assert later_versions(storage) == [3, 10, 11]


def test_versions_that_there_are_not(root: Path, tmp_path: Path) -> None:
    for version in (4, 9999):
        with pytest.raises(DatasetError, match=f"no version {version}; there are 1, 2, 3$"):
            AtlasDataset(root, version=version)
    for version in (0, -1, 10_000, True, "2"):
        with pytest.raises(DatasetError, match="expected 1 to 9999, or None"):
            AtlasDataset(root, version=version)  # type: ignore[arg-type]
    begun = tmp_path / "begun"
    shutil.copytree(root, begun)
    (begun / "versions/0003/_SUCCESS").unlink()
    assert AtlasDataset(begun).catalogue.version == 2
    with pytest.raises(DatasetError, match=r"no version 3; there are 1, 2$"):
        AtlasDataset(begun, version=3)
    (begun / "_SUCCESS").unlink()
    with pytest.raises(DatasetError, match=r"no version 1; there are 2$"):
        AtlasDataset(begun, version=1)
    shutil.rmtree(begun / VERSIONS)
    for version in (None, 1, 2):
        with pytest.raises(DatasetError, match="not a finished dataset, or not its root"):
            AtlasDataset(begun, version=version)


def test_from_s3(root: Path, s3_endpoint: str) -> None:
    upload(root, s3_endpoint, "bucket", "versions-set")
    s3 = StoreOptions(endpoint_url=s3_endpoint)
    dataset = AtlasDataset("s3://bucket/versions-set", s3=s3)
    assert dataset.catalogue.version == 3
    assert sorted(uids(dataset)) == sorted(NEWEST)
    assert sorted(uids(AtlasDataset("s3://bucket/versions-set", version=1, s3=s3))) == UIDS


def resealed(root: Path) -> None:
    """Let the sums of version 3 vouch for its files as they are now."""
    sums, lines = root / "versions/0003/SHA256SUMS", []
    for line in sums.read_text().splitlines():
        digest, _, key = line.partition("  ")
        if key.startswith("versions/0003/"):
            digest = hashlib.sha256((root / key).read_bytes()).hexdigest()
        lines.append(f"{digest}  {key}\n")
    sums.write_text("".join(lines))
    digest = hashlib.sha256(sums.read_bytes()).hexdigest()
    (root / "versions/0003/_SUCCESS").write_text(f"{digest}  versions/0003/SHA256SUMS\n")


def superseded(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        table = pq.ParquetFile(folder / "superseded.parquet").read(use_threads=False)
        rows = table.to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, table.schema), folder / "superseded.parquet")

    return apply


def index(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        values = json.loads((folder / "index.json").read_text())
        change(values)
        (folder / "index.json").write_text(json.dumps(values))

    return apply


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (superseded(lambda rows: rows.pop(0)), r"atlas-000000.tar has 8 samples in index.json and 7 in metadata"),
        (
            superseded(lambda rows: rows.append({**rows[0], "shard": 7})),
            "superseded.parquet has samples that index.json does not",
        ),
        (superseded(lambda rows: rows[1].update(atlas_offset=512)), "do not agree on where obj0[34] lies"),
        (superseded(lambda rows: rows[2].update(atlas_nbytes=9000)), "do not agree on where obj05 lies"),
        (superseded(lambda rows: rows[2].update(atlas_sample=9)), "do not agree on where"),
        (superseded(lambda rows: rows[0].update(atlas_sample=-1)), r"has 8 samples in index.json and 7 in"),
        (index(lambda i: i["shards"][0]["atlas"].update(live=5)), "has 5 samples in index.json and 4 in metadata"),
        (index(lambda i: i["shards"][0]["atlas"].update(samples=7)), "has 7 samples in index.json and 8 in metadata"),
        (index(lambda i: i["shards"].pop(0)), "metadata.parquet has samples that index.json does not count"),
        (index(lambda i: i.update(samples=3)), "metadata.parquet has samples that index.json does not count"),
    ],
)
def test_live_and_superseded_samples_must_cover_the_shards(
    root: Path, tmp_path: Path, change: Callable[[Path], None], fault: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("_work"))
    resealed(copy)
    Catalogue(LocalStorage(copy))
    change(copy / "versions/0003")
    resealed(copy)
    with pytest.raises(DatasetError, match=fault):
        Catalogue(LocalStorage(copy))


@pytest.mark.parametrize(
    "name", ["SHA256SUMS", "index.json", "metadata.parquet", "superseded.parquet", "atlas_mean.npy"]
)
def test_damage_to_the_files_of_a_version_is_found(root: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("_work"))
    path = copy / "versions/0003" / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DatasetError, match=f"versions/0003/{name} does not match"):
        AtlasDataset(copy, standardise=True)
    path.unlink()
    with pytest.raises(DatasetError, match=f"versions/0003/{name}: no such file; fetch it again"):
        AtlasDataset(copy, standardise=True)
    assert len(AtlasDataset(copy, version=2)) == 16
