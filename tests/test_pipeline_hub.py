"""A part for the Hugging Face hub: its card, what `datasets` and Croissant's own library read of it; offline."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import yaml
from dataset_versions import next_version
from reader_datasets import array_of, publish_dataset

from gaussianverse.atlas.reader.dataset import AtlasDataset
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import run_file
from gaussianverse.pipeline.ops.croissant import croissant_of
from gaussianverse.pipeline.ops.verify import verify

UIDS = [f"o{i:02d}" for i in range(9)]
LICENCES = {0: "CC0-1.0", 1: "CC-BY-4.0", 2: "CC-BY-NC-4.0"}
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_dataset(
        tmp_path_factory.mktemp("whole") / "out", UIDS, shard_size=4, quarantined=frozenset({"o03"}),
        fields={u: {"extras": {"good": i % 2 == 0, "score": 0.5 * i}} for i, u in enumerate(UIDS)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def hub(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("hub") / "it's here"
    assert cli.main(["export", "--out", str(whole), "--format", "huggingface", str(dest)]) == 0
    return dest


def card(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return found


def test_the_card_is_what_the_hub_reads(hub: Path, whole: Path, tmp_path: Path) -> None:
    found = card(hub)
    assert found["configs"] == [{"config_name": "metadata", "data_files": "metadata.parquet"}]
    assert (found["license"], found["license_name"]) == ("other", "per-object")
    assert found["size_categories"] == ["n<1K"]
    assert found["task_categories"] == ["text-to-3d"]
    read = huggingface_hub.DatasetCard.load(hub / "README.md").data
    assert read.license == "other"
    assert list(read.size_categories) == ["n<1K"]
    free = tmp_path / "free"
    arguments = ["export", "--out", str(whole), "--format", "dataset", "--filter", "license=CC0-1.0", str(free)]
    assert cli.main(arguments) == 0
    assert card(free)["license"] == "cc0-1.0"
    assert "license_name" not in card(free)
    assert [c["config_name"] for c in card(free)["configs"]] == ["atlas", "splats"]


def test_it_is_a_verified_dataset(hub: Path) -> None:
    store = LocalStorage(hub)
    assert list(verify(store, run_file.load(store))) == []
    assert [s["uid"] for s in AtlasDataset(str(hub), shuffle=False)] == [u for u in UIDS if u != "o03"]


def test_datasets_reads_the_table_by_its_name_and_the_tars_by_theirs(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    for name in ("metadata", None):
        table = datasets.load_dataset(str(hub), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert table["uid"] == [u for u in UIDS if u != "o03"]
        assert table["license"][0] == "CC0-1.0"
        assert table["score"][1] == 0.5
    tars = datasets.load_dataset(
        "webdataset", data_files=str(hub / "atlas" / "*.tar"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [s["__key__"] for s in tars] == [u for u in UIDS if u != "o03"]
    np.testing.assert_array_equal(np.array(tars[3]["atlas.npy"], np.float32), array_of(4, 8))


def test_the_command_that_is_printed_is_one_of_hf(hub: Path, whole: Path, capsys: Captured) -> None:
    assert cli.main(["export", "--out", str(whole), "--format", "huggingface", str(hub)]) == 0, "once more"
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("Upload it: hf upload ")
    words = shlex.split(line.removeprefix("Upload it: "))
    assert Path(words[-2]) == hub
    assert words[-1] == "."
    # hf parses all options before it shows its help
    shown = subprocess.run(
        [Path(sys.executable).with_name("hf"), *words[1:], "--help"], capture_output=True, text=True
    )
    assert shown.returncode == 0
    for word in (w for w in words if w.startswith("--")):
        assert word in shown.stdout


def test_a_bucket_is_copied_before_it_is_uploaded(
    whole: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """`hf upload` reads folders alone."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    assert cli.main(["export", "--out", str(whole), "--format", "huggingface", "s3://bucket/hub"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == (
        "Copy s3://bucket/hub into a FOLDER, and upload that: hf upload --repo-type dataset USER/NAME FOLDER ."
    )


def records(hub: Path, name: str) -> list[dict[str, Any]]:
    import mlcroissant

    found = mlcroissant.Dataset(str(hub / "croissant.json")).records(name)
    return [{key.partition("/")[2]: value for key, value in record.items()} for record in found]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What mlcroissant extracts goes into a folder of this test."""
    from etils import epath
    from mlcroissant._src.operation_graph.operations import extract

    monkeypatch.setattr(extract, "EXTRACT_PATH", epath.Path(tmp_path / "extract"))


def test_croissants_own_library_validates_it(hub: Path) -> None:
    import mlcroissant

    metadata = mlcroissant.Dataset(str(hub / "croissant.json")).metadata
    assert not metadata.ctx.issues.errors
    assert metadata.version == "1.0.0"
    assert sorted(metadata.license) == sorted(LICENCES.values())


@pytest.mark.usefixtures("cache")
def test_croissants_own_library_reads_table_captions_and_names_of_members(hub: Path) -> None:
    good = [u for u in UIDS if u != "o03"]
    rows = records(hub, "objects")
    assert [row["uid"].decode() for row in rows] == good
    assert [row["psnr"] for row in rows] == [20.0 + UIDS.index(u) for u in good]
    assert [bool(row["good"]) for row in rows] == [UIDS.index(u) % 2 == 0 for u in good]
    captions = {row["uid"].decode(): row["caption"].decode() for row in records(hub, "captions")}
    assert captions == {u: f"caption of {u}: é" for u in good}
    names = {row["uid"].decode(): row["path"].decode() for row in records(hub, "atlases")}
    assert names == {u: f"{u}.atlas.npy" for u in good}


@pytest.mark.usefixtures("cache")
def test_croissants_own_library_finds_a_file_that_changed(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(hub, tmp_path / "copy")
    path = tmp_path / "copy" / "metadata.parquet"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(Exception, match=r"Download\(metadata.parquet\)"):
        records(tmp_path / "copy", "objects")


def test_its_croissant_is_the_same_every_time_and_of_no_place(hub: Path, whole: Path, tmp_path: Path) -> None:
    dest = tmp_path / "again"
    assert cli.main(["export", "--out", str(whole), "--format", "huggingface", str(dest)]) == 0
    data = (dest / "croissant.json").read_bytes()
    assert data == (hub / "croissant.json").read_bytes()
    assert str(tmp_path).encode() not in data
    assert json.loads(data)["name"] == "gaussian-atlases"
    next_version(dest, removed=["o01"])
    assert cli.main(["export", "--out", str(whole), "--format", "huggingface", str(dest)]) == 0
    assert croissant_of(LocalStorage(dest)) == data, "of the part, whatever became of it"


def test_without_mlcroissant_the_part_is_there_and_the_mend_is_said(
    whole: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "part"
    arguments = ["export", "--out", str(whole), "--format", "huggingface", str(dest)]
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "mlcroissant", None)
        assert cli.main(arguments) == 0
    assert "pip install 'gaussianverse[croissant]'" in capsys.readouterr().err
    assert not os.path.exists(dest / "croissant.json")
    assert cli.main(arguments) == 0
    assert (dest / "croissant.json").exists()
