import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reader_datasets import publish_dataset

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.reader.selecting import is_heldout
from gaussianverse.atlas.store.local import LocalStorage

UIDS = [f"obj{i}" for i in range(6)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_dataset(
        tmp_path_factory.mktemp("set"), UIDS, shard_size=2, quarantined=frozenset({"obj2", "obj3"})
    )


def resealed(root: Path) -> Path:
    """With sums that vouch for index and table as they are now."""
    lines = []
    for line in (root / "SHA256SUMS").read_text().splitlines():
        digest, _, key = line.partition("  ")
        if key in ("index.json", "metadata.parquet"):
            digest = hashlib.sha256((root / key).read_bytes()).hexdigest()
        lines.append(f"{digest}  {key}\n")
    (root / "SHA256SUMS").write_text("".join(lines))
    (root / "_SUCCESS").write_text(hashlib.sha256("".join(lines).encode()).hexdigest() + "  SHA256SUMS\n")
    return root


def index(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        values = json.loads((root / "index.json").read_text())
        change(values)
        (root / "index.json").write_text(json.dumps(values))

    return apply


def table(column: str, row: int, value: int) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        rows = pq.ParquetFile(root / "metadata.parquet").read(use_threads=False)
        values = rows[column].to_pylist()
        values[row] = value
        place = rows.column_names.index(column)
        pq.write_table(rows.set_column(place, column, pa.array(values)), root / "metadata.parquet")

    return apply


def test_a_shard_without_samples_is_no_fault(root: Path) -> None:
    catalogue = Catalogue(LocalStorage(root))
    assert catalogue.uids(range(len(catalogue))) == ["obj0", "obj1", "obj4", "obj5"]
    assert catalogue.shards.tolist() == [0, 0, 2, 2]
    # the byte ranges of a shard cover it except for its end
    ranges = [catalogue.byte_range(i) for i in range(4)]
    assert [e.offset for e in ranges] == [0, ranges[0].nbytes] * 2
    assert all(a.nbytes + b.nbytes + 1024 == a.total for a, b in (ranges[:2], ranges[2:]))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (index(lambda i: i.update(schema_version=9)), "schema version 9, this gaussianverse reads 1, 2; a newer"),
        (index(lambda i: i["shards"][2]["atlas"].update(samples=3)), "000002.tar has 3 samples in index.json and 2"),
        (index(lambda i: i["shards"].pop()), "samples that index.json does not count"),
        (index(lambda i: i.update(samples=5)), "samples that index.json does not count"),
        (index(lambda i: i["shards"][0]["atlas"].update(nbytes=5000)), "do not agree on where obj1 lies"),
        (table("atlas_offset", 1, 600), "do not agree on where obj0 lies"),
        (table("atlas_offset", 0, 1024), "do not agree on where obj0 lies"),
        (table("atlas_sample", 5, 7), "do not agree on where obj5 lies"),
    ],
)
def test_index_and_table_that_do_not_agree(
    root: Path, tmp_path: Path, change: Callable[[Path], None], fault: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns("_work"))
    Catalogue(LocalStorage(resealed(copy)))
    change(copy)
    with pytest.raises(DatasetError, match=fault):
        Catalogue(LocalStorage(resealed(copy)))


def test_the_held_out_are_a_share_and_stay_held_out() -> None:
    uids = [f"uid{i}" for i in range(5000)]
    held = {u for u in uids if is_heldout(u, 0.1)}
    assert 400 < len(held) < 600
    assert held < {u for u in uids if is_heldout(u, 0.2)}
    assert not any(is_heldout(u, 0.0) for u in uids)
    assert all(is_heldout(u, 1.0) for u in uids)


def test_reading_needs_neither_ray_nor_gsplat_nor_boto3(root: Path) -> None:
    program = f"""
import sys
for name in ("ray", "gsplat", "boto3", "botocore", "webdataset", "lpips", "torchvision"):
    sys.modules[name] = None
for room in ("fitter", "pipeline"):
    sys.modules["gaussianverse." + room] = None
import gaussianverse.atlas
assert "torch" not in sys.modules
from gaussianverse import AtlasDataset
print(len(list(AtlasDataset({str(root)!r}, standardise=True))))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout == "4\n"
