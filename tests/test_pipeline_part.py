"""A part of a dataset is a dataset: verified, read by every reader, and made of no other bytes than its own."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from forger import Forger
from pipeline_runs import dataset, differing
from reader_datasets import array_of, publish_dataset, upload

from gaussianverse.atlas.arrays import read_npy
from gaussianverse.atlas.dataset_format import ADDRESS, ATLAS, FAMILIES, MEAN, STD, SUCCESS, address_column, shard_tar
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.dataset import AtlasDataset
from gaussianverse.atlas.reader.views import ReferenceViews
from gaussianverse.atlas.store import StoreOptions, open_storage
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.escape import markdown
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import layout, run_file
from gaussianverse.pipeline.errors import FragmentError, PipelineError
from gaussianverse.pipeline.ops.choice import Choice
from gaussianverse.pipeline.ops.part import part_of
from gaussianverse.pipeline.ops.verify import verify

UIDS = [f"o{i:02d}" for i in range(14)]
LOST = "o03"
CHOSEN = ("o00", "o02", "o05", "o06", "o11", "o13")
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    views = ReferenceViews(
        rng.integers(0, 255, (2, 4, 4, 4), np.uint8),
        rng.random((2, 4, 4)).astype(np.float32),
        rng.random((2, 3, 3)).astype(np.float32),
    )
    return publish_dataset(
        tmp_path_factory.mktemp("whole") / "out", UIDS, shard_size=4, quarantined=frozenset({LOST}), views=[views],
        fields={uid: {"extras": {"rank": i}, "split": "train"} for i, uid in enumerate(UIDS)},
    )  # fmt: skip


def take(source: Storage | Path, dest: Storage | Path, *families: str, **choice: Any) -> LocalStorage:
    one, other = (LocalStorage(place) if isinstance(place, Path) else place for place in (source, dest))
    list(part_of(one, Choice(**{"uids": CHOSEN, **choice}), families).take(other))
    return other  # type: ignore[return-value]


def faults(store: Storage) -> list[str]:
    return list(verify(store, run_file.load(store)))


@pytest.mark.parametrize("families", [(), (ATLAS,), (ATLAS, "views"), ("splats", ATLAS)])
def test_it_is_a_verified_dataset_that_every_reader_reads(
    whole: Path, tmp_path: Path, families: tuple[str, ...]
) -> None:
    part, held = take(whole, tmp_path / "part", *families), set(families or FAMILIES)
    assert faults(part) == []
    assert {p.name for p in (tmp_path / "part").iterdir() if p.name in FAMILIES} == held
    assert {f for s in Catalogue(part).index["shards"] for f in s} == {"shard", "objects", *held}
    read = AtlasDataset(str(part.root), views="views" in held, shuffle=False)
    for sample, uid in zip(read, CHOSEN, strict=True):
        assert sample["uid"] == uid
        expected = array_of(UIDS.index(uid), 8)
        np.testing.assert_array_equal(sample["atlas"].numpy(), expected.transpose(2, 0, 1))
        assert sample["caption"] == f"caption of {uid}: é"
    for family in held:
        shards = [str(p) for p in sorted((tmp_path / "part" / family).glob("*.tar"))]
        found = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
        assert [s["__key__"] for s in found] == list(CHOSEN)
        assert [s["json"]["index"] for s in found] == list(range(len(CHOSEN)))
        assert [s["json"]["shard"] for s in found] == [0, 0, 0, 0, 1, 1]


def test_its_facts_are_those_of_the_whole_but_for_their_places(whole: Path, tmp_path: Path) -> None:
    part, source = Catalogue(take(whole, tmp_path / "part", ATLAS)), Catalogue(LocalStorage(whole))
    moved = {"index", "shard", *(address_column(family, name) for family in FAMILIES for name in ADDRESS)}
    for uid in CHOSEN:
        here, there = (one.row(one.find(uid)) for one in (part, source))
        assert {n: v for n, v in here.items() if n not in moved} == {n: there[n] for n in here if n not in moved}, (
            "what the fit was stays known in a part without splats"
        )
        assert here["atlas_sha256"] == there["atlas_sha256"]
        assert (here["splats_sample"], here["splats_nbytes"], here["splats_sha256"]) == (-1, 0, "")
        assert here["psnr"] == 20 + UIDS.index(uid)


def test_its_statistics_are_of_its_own_atlases(whole: Path, tmp_path: Path) -> None:
    part = take(whole, tmp_path / "part")
    arrays = np.stack([array_of(UIDS.index(uid), 8) for uid in CHOSEN]).astype(np.float64)
    np.testing.assert_allclose(read_npy(part.get(MEAN)), arrays.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(read_npy(part.get(STD)), np.maximum(arrays.std(axis=0), 1e-6), atol=1e-6)
    assert json.loads(part.get("channels.json"))["atlases"] == len(CHOSEN)


def test_it_says_what_it_is_a_part_of(whole: Path, tmp_path: Path) -> None:
    part = take(whole, tmp_path / "part", ATLAS, filters=("rank>1",))
    run, source = run_file.load(part), run_file.load(LocalStorage(whole))
    digest = Catalogue(LocalStorage(whole)).digest
    assert run.part == {
        "index_sha256": digest, "samples": 13, "families": [ATLAS], "chosen": ["rank>1", "a list of 6 uids"],
    }  # fmt: skip
    assert run.digest == source.digest
    card = part.get("README.md").decode()
    assert f"a part of a dataset of 13 objects, whose `index.json` has the sha256\n`{digest}`" in card
    assert f"| {markdown('rank>1', 99)} |" in card
    assert "splats/" not in card
    assert "data_files: atlas/*.tar" in card
    assert str(whole) not in "".join(str(data) for data in dataset(part).values()), "no place of a machine"


def test_the_whole_taken_is_the_whole_without_what_was_lost(whole: Path, tmp_path: Path) -> None:
    """Members, tables and moments: as a dataset of these objects that was built at once."""
    fields = {uid: {"extras": {"rank": i}, "split": "train"} for i, uid in enumerate(UIDS)}
    names = ["a1", "a2", "a3", "a4", "a5"]
    built = publish_dataset(
        tmp_path / "built", names, shard_size=2, fields=dict(zip(names, fields.values(), strict=False))
    )
    part, source = take(built, tmp_path / "part", uids=None), LocalStorage(built)
    there, here = dataset(source), dataset(part)
    assert differing(there, here) == sorted(["run.json", "README.md"]), "but for what it is a part of"
    again = take(part, tmp_path / "again", uids=("a1", "a4"))
    assert faults(again) == []


def test_a_part_of_a_part_without_splats_has_none(whole: Path, tmp_path: Path) -> None:
    part = take(whole, tmp_path / "part", ATLAS)
    smaller = take(part, tmp_path / "smaller", uids=("o05", "o13"))
    assert faults(smaller) == []
    assert Catalogue(smaller).row(1)["psnr"] == 33
    with pytest.raises(DatasetError, match="a part that was taken without them"):
        AtlasDataset(str(part.root)).with_family("splats")


class Counting(LocalStorage):
    """Counts the bytes that are read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.bytes: Counter[str] = Counter()

    def get(self, key: str) -> bytes:
        data = super().get(key)
        self.bytes[key] += len(data)
        return data

    def read(self, key: str, offset: int, nbytes: int, total: int | None = None) -> memoryview:
        self.bytes[key] += nbytes
        return super().read(key, offset, nbytes, total)


def test_one_in_a_hundred_reads_at_most_one_in_fifty_of_the_bytes(tmp_path: Path) -> None:
    """All bytes count: index, sums, table and manifest too. Objects of 128 x 128 cells are ten times as large."""
    root = publish_dataset(tmp_path / "whole", [f"o{i:02d}" for i in range(100)], shard_size=50, size=40)
    total = sum(len(data) for data in dataset(LocalStorage(root)).values())
    source = Counting(root)
    part = take(source, tmp_path / "part", uids=("o77",))
    assert faults(part) == []
    assert sum(source.bytes.values()) <= 0.02 * total
    catalogue = Catalogue(LocalStorage(root))
    row = catalogue.row(catalogue.find("o77"))
    for family in ("splats", ATLAS):
        assert source.bytes[shard_tar(family, 1)] == row[address_column(family, "nbytes")]
    assert not any(key.startswith(("stats/", "moments/", "_commits/", "runs/")) for key in source.bytes)


class Death(BaseException):
    """No Exception, since nothing may catch it."""


class Mortal(LocalStorage):
    """Dies before one of its calls."""

    def __init__(self, root: Path, at: int = -1) -> None:
        super().__init__(root)
        self.at, self.calls = at, 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("get", "put_if_absent", "put_unsynced", "put_file", "head", "size", "list", "delete", "read"):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise Death
            return found(*args, **options)

        return call


def test_killed_at_any_call_of_a_store_it_is_no_dataset_and_can_be_taken_up(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # the machine stays
    counting = Mortal(tmp_path / "undisturbed")
    expected = dataset(LocalStorage(take(whole, counting, ATLAS, uids=CHOSEN[:2]).root))
    for at in range(1, counting.calls + 1):
        store = Mortal(tmp_path / f"killed{at}", at)
        with pytest.raises(Death):
            take(whole, store, ATLAS, uids=CHOSEN[:2])
        left = LocalStorage(store.root)
        if left.head(SUCCESS) is None:
            with pytest.raises(DatasetError, match="not a finished dataset"):
                Catalogue(left)
        else:
            assert differing(dataset(left), expected) == []
        take(whole, left, ATLAS, uids=CHOSEN[:2])
        assert differing(dataset(left), expected) == []
    assert counting.calls > 30


@pytest.mark.parametrize("family", FAMILIES)
def test_damaged_bytes_of_the_whole_are_named_and_nothing_is_finished(
    whole: Path, tmp_path: Path, family: str
) -> None:
    shutil.copytree(whole, tmp_path / "out", ignore=shutil.ignore_patterns("_work"))
    source = LocalStorage(tmp_path / "out")
    catalogue = Catalogue(source)
    row = catalogue.row(catalogue.find("o06"))
    path = tmp_path / "out" / shard_tar(family, 1)
    sound = path.read_bytes()
    damaged = bytearray(sound)
    damaged[row[address_column(family, "offset")] + 200] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(FragmentError, match=rf"{family}-000001.tar: o06: .*; fetch the shard again"):
        take(source, tmp_path / "part")
    assert not (tmp_path / "part" / SUCCESS).exists()
    # other objects of the shard can still be taken
    assert faults(take(source, tmp_path / "other", uids=("o04", "o05", "o07"))) == []
    path.write_bytes(sound[:-512])
    with pytest.raises(DatasetError, match="512 bytes are missing; fetch it again"):
        take(source, tmp_path / "part")
    path.write_bytes(sound)
    assert faults(take(source, tmp_path / "part")) == [], "taken up when the shard is whole again"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("metadata.parquet", "metadata.parquet does not match SHA256SUMS"),
        ("index.json", "index.json does not match SHA256SUMS"),
        ("SHA256SUMS", "SHA256SUMS does not match _SUCCESS"),
        ("manifest/objects.parquet", "its sha256 is not that of run.json"),
        (SUCCESS, "not a finished dataset"),
    ],
)
def test_a_whole_that_is_damaged_or_not_finished_gives_nothing(
    whole: Path, tmp_path: Path, key: str, words: str
) -> None:
    shutil.copytree(whole, tmp_path / "out", ignore=shutil.ignore_patterns("_work"))
    path = tmp_path / "out" / key
    if key == SUCCESS:
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises((DatasetError, PipelineError), match=words):
        take(tmp_path / "out", tmp_path / "part")
    assert not (tmp_path / "part").exists() or not dataset(LocalStorage(tmp_path / "part"))


def test_another_run_file_is_not_taken_for_the_wholes(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out", ignore=shutil.ignore_patterns("_work"))
    path = tmp_path / "out" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "manifest_sha256": "0" * 64}))
    with pytest.raises(PipelineError, match=r"run\.json: not that of its index"):
        take(tmp_path / "out", tmp_path / "part")


def forged(whole: Path, tmp_path: Path, *families: str) -> Forger:
    return Forger(take(whole, tmp_path / "part", *families).root)


def test_a_part_that_says_it_has_splats_is_found_out(whole: Path, tmp_path: Path) -> None:
    forger = forged(whole, tmp_path, ATLAS)
    identity = json.loads(forger.storage.get("run.json"))
    identity["part"]["families"] = ["splats", ATLAS]
    forger.write("run.json", json.dumps(identity).encode())
    found = faults(forger.storage)
    assert any("names no splats/splats-000000.tar" in text for text in found)
    assert "_commits/splats/000000.json: does not match the contents of the shard" in found
    assert "stats/splats-000000.parquet: o00: sample is -1, its status ok" in found


def test_a_whole_that_says_it_has_no_splats_is_found_out(whole: Path, tmp_path: Path) -> None:
    forger = forged(whole, tmp_path)
    key = layout.commit("splats", 0)
    commit = json.loads(forger.storage.get(key))
    del commit["files"][shard_tar("splats", 0)]
    forger.write(key, json.dumps(commit).encode())
    assert any(f"{key}: not the commit record of this shard" in text for text in faults(forger.storage))
    forger.write(key, json.dumps({**commit, "facts_only": True}).encode())
    assert f"{key}: does not match the contents of the shard" in faults(forger.storage)


@pytest.mark.parametrize(
    "entry",
    ["x", {}, {"index_sha256": "0" * 64, "samples": 3, "families": ["splats"], "chosen": []},
     {"index_sha256": "0" * 64, "samples": 3, "families": [ATLAS, "meshes"], "chosen": []},
     {"index_sha256": "0" * 64, "samples": 3, "families": [ATLAS], "chosen": [3]},
     {"index_sha256": "0", "samples": 3, "families": [ATLAS], "chosen": []},
     {"index_sha256": "0" * 64, "samples": -3, "families": [ATLAS], "chosen": []}],
)  # fmt: skip
def test_a_damaged_entry_of_the_run_file_is_named(whole: Path, tmp_path: Path, entry: Any) -> None:
    path = take(whole, tmp_path / "part").root / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "part": entry}))
    with pytest.raises(PipelineError, match="its entries contradict one another"):
        run_file.load(LocalStorage(tmp_path / "part"))


def test_splats_that_are_not_there_are_named_by_who_asks_for_them(
    whole: Path, tmp_path: Path, capsys: Captured
) -> None:
    part = str(take(whole, tmp_path / "part", ATLAS).root)
    asked: list[list[str]] = [
        ["export", "--out", part, "--format", "ply", str(tmp_path / "ply")],
        ["plan", "--manifest", os.path.join(part, layout.MANIFEST), "--like", part],
        [
            "export",
            "--out",
            part,
            "--format",
            "dataset",
            "--family",
            "splats",
            "--family",
            "atlas",
            str(tmp_path / "d"),
        ],
    ]
    for arguments in asked:
        assert cli.main(arguments) in (1, 2)
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert "without splats" in error or "has atlas" in error
    for verb in ("status", "inspect", "verify"):
        assert cli.main([verb, "--out", part, *(["o05"] if verb == "inspect" else [])]) == 0


def test_a_part_without_splats_cannot_be_extended(whole: Path, tmp_path: Path, capsys: Captured) -> None:
    part = take(whole, tmp_path / "part", ATLAS).root
    (tmp_path / "gone.txt").write_text("o05\n")
    assert cli.main(["extend", "--out", str(part), "--remove", str(tmp_path / "gone.txt")]) == 1
    assert "taken without its splats" in capsys.readouterr().err
    assert not (part / "versions").exists()


def export(whole: Path, *arguments: str) -> int:
    return cli.main(["export", "--out", str(whole), *arguments])


def test_the_command(whole: Path, tmp_path: Path, capsys: Captured) -> None:
    uids = tmp_path / "uids.txt"
    uids.write_text("o05\no06\no11\n")
    dest = tmp_path / "part"
    given = [
        "--format",
        "dataset",
        "--uids",
        str(uids),
        "--filter",
        "rank>5",
        "--split",
        "train",
        "--family",
        "atlas",
    ]
    assert export(whole, *given, str(dest)) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [f"{dest}/atlas/atlas-000000.tar", f"The part is complete: 2 of 13 objects in {dest}"]
    assert Catalogue(LocalStorage(dest)).uids(range(2)) == ["o06", "o11"]
    assert export(whole, *given, str(dest)) == 0, "once more changes nothing"
    assert export(whole, "--format", "dataset", "o05", "o13", str(tmp_path / "two")) == 0
    assert len(Catalogue(LocalStorage(tmp_path / "two"))) == 2
    assert export(whole, "--format", "ply", "--filter", "rank in 5,7", str(tmp_path / "ply")) == 0
    assert sorted(p.name for p in (tmp_path / "ply").iterdir()) == ["o05.ply", "o07.ply"]


def test_a_debug_subset_has_a_name(tmp_path: Path, capsys: Captured) -> None:
    out = publish_dataset(tmp_path / "out", [f"u{i:02d}" for i in range(25)], shard_size=16)
    assert export(Path(f"{out}/"), "--format", "dataset", "--debug") == 0
    debug = LocalStorage(tmp_path / "out-debug")
    assert len(Catalogue(debug)) == 20
    assert faults(debug) == []
    assert export(out, "--format", "dataset", "--debug", "--objects", "3") == 2
    assert "leave out --objects 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--filter", "psnrr>3", "DEST"], 1, "has no column psnrr"),
        (["--filter", "psnr>3000", "DEST"], 1, "none of 13 samples passes"),
        (["--filter", "psnr", "DEST"], 2, "expected COLUMN OPERATOR VALUE"),
        (["--split", "test", "DEST"], 1, "split 'test' is none of all, train"),
        ([LOST, "DEST"], 1, f"{LOST}: it was quarantined: bad_input"),
        (["nobody", "DEST"], 1, "nobody: no such object"),
        (["--count", "3", "DEST"], 2, "--objects 3 draws objects"),
        (["--objects", "-3", "DEST"], 2, "--objects -3: expected at least 1"),
        (["--uids", "none.txt", "DEST"], 2, "--uids none.txt: cannot be read"),
        (["--family", "views", "DEST"], 2, "add --family atlas"),
        ([], 2, "no DEST"),
        (["WHOLE/part"], 2, "lies in"),
        (["WHOLE"], 2, "lies in"),
        (["WHOLE/.."], 2, "lies in"),
        (["LINK/part"], 2, "lies in"),
    ],
)
def test_what_is_refused_writes_nothing(
    whole: Path, tmp_path: Path, capsys: Captured, arguments: list[str], code: int, words: str
) -> None:
    before = dataset(LocalStorage(whole))
    (tmp_path / "link").symlink_to(whole)
    names = {"DEST": str(tmp_path / "part"), "WHOLE": str(whole), "LINK": str(tmp_path / "link")}
    for name, path in names.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    assert export(whole, "--format", "dataset", *arguments) == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "part").exists()
    assert differing(dataset(LocalStorage(whole)), before) == []


def test_a_place_with_other_things_is_left_alone(whole: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    assert export(whole, "--format", "dataset", str(tmp_path)) == 2
    assert "is not empty, it holds thesis.tex" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    dest = tmp_path / "part"
    take(whole, dest, ATLAS)
    before = dataset(LocalStorage(dest))
    assert export(whole, "--format", "dataset", "o05", str(dest)) == 5, "another part"
    assert "row 'o00' is only there" in capsys.readouterr().err
    assert differing(dataset(LocalStorage(dest)), before) == []


def test_an_output_that_is_being_built_has_no_parts(whole: Path, tmp_path: Path, capsys: Captured) -> None:
    shutil.copytree(whole, tmp_path / "out", ignore=shutil.ignore_patterns("_work", SUCCESS))
    assert export(tmp_path / "out", "--format", "dataset", str(tmp_path / "part")) == 1
    assert "not a finished dataset" in capsys.readouterr().err


@pytest.mark.parametrize("hops", [("s3", "folder"), ("folder", "s3"), ("s3", "s3")])
def test_from_and_to_a_bucket(
    whole: Path, tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, hops: tuple[str, str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    prefix = "-".join(hops)
    upload(whole, s3_endpoint, "bucket", f"{prefix}/whole")
    there = {"s3": f"s3://bucket/{prefix}/whole", "folder": str(whole)}[hops[0]]
    here = {"s3": f"s3://bucket/{prefix}/part", "folder": str(tmp_path / "part")}[hops[1]]
    arguments = ["--format", "dataset", "--family", "atlas", "--filter", "rank>=8", here]
    assert cli.main(["export", "--out", there, *arguments]) == 0
    store = open_storage(here, StoreOptions())
    assert faults(store) == []
    expected = take(whole, tmp_path / "expected", ATLAS, uids=None, filters=("rank>=8",))
    assert differing(dataset(store), dataset(expected)) == []
    assert cli.main(["export", "--out", there, "--format", "dataset", f"{there}/part"]) == 2


def test_bytes_that_rotted_in_a_bucket_are_found(whole: Path, tmp_path: Path, s3_endpoint: str) -> None:
    """Also where the store's own sums say that all is well."""
    import boto3

    upload(whole, s3_endpoint, "bucket", "rotten")
    client = boto3.session.Session().client("s3", endpoint_url=s3_endpoint)
    key = f"rotten/{shard_tar(ATLAS, 1)}"
    data = bytearray(client.get_object(Bucket="bucket", Key=key)["Body"].read())
    data[700] ^= 1
    client.put_object(Bucket="bucket", Key=key, Body=bytes(data))
    source = open_storage("s3://bucket/rotten", StoreOptions(endpoint_url=s3_endpoint))
    with pytest.raises(FragmentError, match=r"s3://bucket/rotten/atlas/atlas-000001.tar: o04: its sha256"):
        take(source, tmp_path / "part", uids=("o01", "o04", "o05"))
    with pytest.raises(NotFound):
        LocalStorage(tmp_path / "part").size(SUCCESS)
