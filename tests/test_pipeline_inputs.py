from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Entry
from gaussianverse.pipeline.run import inputs

# what inputs fetches from S3 is tested in test_store_s3.py


@pytest.mark.parametrize(
    ("views", "base", "address"),
    [
        ("a/b", "/data", "/data/a/b"),
        ("a/b", "s3://bucket/set/", "s3://bucket/set/a/b"),
        ("/abs/a", "/data", "/abs/a"),
        ("/abs/a", "s3://bucket", "/abs/a"),
        ("s3://other/a.tar", "/data", "s3://other/a.tar"),
        ("../up", "/data/m", "/data/m/../up"),
    ],
)
def test_relative_views_are_relative_to_their_manifest(views: str, base: str, address: str) -> None:
    assert inputs.resolve(views, base) == address


def test_what_is_local_is_used_where_it_lies(tmp_path: Path) -> None:
    with inputs.local(str(tmp_path / "absent"), StoreOptions()) as path:
        assert path == tmp_path / "absent"


class Listing(LocalStorage):
    """A store that lists the given entries."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__("nowhere")
        self._keys = keys

    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        return (Entry(key, 1) for key in self._keys if key.startswith(prefix))


@pytest.mark.parametrize("key", ["views/../../etc/passwd", "views/a/../../../x"])
def test_a_key_that_would_leave_its_folder_is_refused(key: str) -> None:
    with pytest.raises(inputs.InputTooLarge, match="outside its folder"):
        list(inputs._files(Listing([key]), "views"))


SEGMENT = st.sampled_from(["views", "..", ".", "", "a", "viewsX", "/"])


@given(st.lists(st.lists(SEGMENT, min_size=1, max_size=5).map("/".join), max_size=8))
def test_no_key_ever_becomes_a_path_outside(keys: list[str]) -> None:
    root = Path("/tmp/some/folder")
    try:
        entries = list(inputs._files(Listing(keys), "views"))
    except inputs.InputTooLarge:
        return
    for entry in entries:
        assert (root / entry.key).is_relative_to(root / "views")
        assert ".." not in (root / entry.key).parts
