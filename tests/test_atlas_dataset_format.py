"""The format's names, and that reading them costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import FAMILIES, OPACITY_COPIES, VIEWS


def test_it_imports_nothing_that_only_one_side_has() -> None:
    program = "import sys; from gaussianverse.atlas import canonical_json, dataset_format; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "gaussianverse.atlas.dataset_format" in loaded
    assert not loaded & {
        "ray", "torch", "boto3", "botocore", "gsplat", "webdataset", "pyarrow", "PIL",
        "gaussianverse.fitter", "gaussianverse.pipeline", "gaussianverse.manifests",
    }  # fmt: skip


def test_channels_are_where_their_names_say() -> None:
    names = dataset_format.CHANNEL_NAMES
    assert names[dataset_format.OFFSET] == ("offset_x", "offset_y", "offset_z")
    assert names[dataset_format.ALBEDO] == ("red", "green", "blue")
    assert names[dataset_format.SCALE] == ("scale_x", "scale_y", "scale_z")
    assert names[dataset_format.QUATERNION] == ("quat_w", "quat_x", "quat_y", "quat_z")
    assert [k for k, name in enumerate(names) if name == "opacity"] == list(OPACITY_COPIES)
    assert len(names) == dataset_format.CHANNELS == 16


@pytest.mark.parametrize("family", FAMILIES)
def test_members_lie_in_the_order_of_their_names(family: str) -> None:
    names = dataset_format.member_names(family, "a", dataset_format.MAX_VIEWS)
    assert names == sorted(set(names))
    assert dataset_format.main_member(family, "a") in names
    assert {"a.json", "a.txt"} < set(names)
    assert len(names) == 3 + (family == VIEWS) * dataset_format.MAX_VIEWS


@pytest.mark.parametrize("version", [0, 3, 9, -1, True, 1.0, "1", None, [1]])
def test_another_version_is_refused_with_the_one_that_is_read(version: object) -> None:
    error = dataset_format.version_error(version)
    assert f"schema version {version!r}, this gaussianverse reads 1, 2" in error
    assert ("a newer gaussianverse wrote it" in error) == (version in (3, 9))


def test_this_version_is_read() -> None:
    assert dataset_format.version_error(dataset_format.SCHEMA_VERSION) == ""


def test_sums_are_read_back() -> None:
    sums = {"b/c.tar": "0" * 64, "a": "f" * 64}
    data = dataset_format.sums_file(sums)
    assert data.decode().splitlines() == [f"{'f' * 64}  a", f"{'0' * 64}  b/c.tar"]
    assert dataset_format.read_sums(data) == sums
    assert dataset_format.read_sums(b"\xff\xfe\nno sum") == {"": "no sum"} | {"": "no sum"}
