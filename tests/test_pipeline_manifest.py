from pathlib import Path

import pytest
from pipeline_runs import write_manifest

from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.manifests import jsonl, runform
from gaussianverse.manifests.errors import ManifestError
from gaussianverse.pipeline.run.manifest import Manifest, read_manifest


def data_of(manifest: Manifest) -> bytes:
    assert isinstance(manifest.data, Path)
    return manifest.data.read_bytes()


def test_both_forms_give_the_same_bytes(tmp_path: Path) -> None:
    authored = write_manifest(tmp_path, ["b", "a", "c"])
    one = read_manifest(str(authored), 2, StoreOptions())
    run_form = tmp_path / "sub" / "objects.parquet"
    run_form.parent.mkdir()
    run_form.write_bytes(data_of(one))
    two = read_manifest(str(run_form), 999, StoreOptions())
    assert data_of(two) == data_of(one) == runform.encode(jsonl.read(authored), shard_size=2)
    assert (one.base, two.base) == (str(tmp_path), str(tmp_path / "sub"))


def test_the_bytes_do_not_depend_on_where_it_lies_or_its_order(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    one = read_manifest(str(write_manifest(tmp_path / "x", ["a", "b"])), 9, StoreOptions())
    two = read_manifest(str(write_manifest(tmp_path / "y", ["b", "a"])), 9, StoreOptions())
    assert data_of(one) == data_of(two)
    assert one.base != two.base


def test_a_relative_path_gives_an_absolute_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path, ["a"])
    monkeypatch.chdir(tmp_path)
    assert read_manifest("objects.jsonl", 9, StoreOptions()).base == str(tmp_path)


@pytest.mark.parametrize("name", ["none.jsonl", "none.parquet"])
def test_one_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=name):
        read_manifest(str(tmp_path / name), 9, StoreOptions())
