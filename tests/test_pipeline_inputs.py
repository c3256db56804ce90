from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Entry
from gaussianverse.pipeline.run import fetching, inputs

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
        list(_files(Listing([key]), "views"))


def _files(storage: Listing, name: str) -> Iterator[Entry]:
    return fetching.files(storage, name, fetching.MAX_BYTES)


SEGMENT = st.sampled_from(["views", "..", ".", "", "a", "viewsX", "/"])


@given(st.lists(st.lists(SEGMENT, min_size=1, max_size=5).map("/".join), max_size=8))
def test_no_key_ever_becomes_a_path_outside(keys: list[str]) -> None:
    root = Path("/tmp/some/folder")
    try:
        entries = list(_files(Listing(keys), "views"))
    except inputs.InputTooLarge:
        return
    for entry in entries:
        assert (root / entry.key).is_relative_to(root / "views")
        assert ".." not in (root / entry.key).parts


def test_limits_are_of_the_object_and_may_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_FILES", 3)
    monkeypatch.setattr(fetching, "MAX_BYTES", 3)
    keys = ["views/a", "views/b", "views/c"]
    assert [entry.key for entry in _files(Listing(keys), "views")] == keys
    monkeypatch.setattr(fetching, "MAX_BYTES", 99)
    with pytest.raises(inputs.InputTooLarge, match="more than 3 files"):
        list(_files(Listing([*keys, "views/d"]), "views"))
    monkeypatch.setattr(fetching, "MAX_FILES", 99)
    monkeypatch.setattr(fetching, "MAX_BYTES", 2)
    with pytest.raises(inputs.InputTooLarge, match="or 2 bytes"):
        list(_files(Listing(keys), "views"))


def test_an_objects_files_are_those_below_it_or_it_itself() -> None:
    keys = ["views/", "views/a.png", "views/sub/", "views/sub/b.png", "viewsX/c.png", "views.tar"]
    found = [entry.key for entry in _files(Listing(keys), "views")]
    assert found == ["views/a.png", "views/sub/b.png"]
    assert [entry.key for entry in _files(Listing(keys), "views.tar")] == ["views.tar"]
