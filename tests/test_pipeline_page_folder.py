"""The folder of a page: it is emptied only if it is a page's, and nothing is written outside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaussianverse.pipeline.errors import PipelineError, UsageError
from gaussianverse.pipeline.ops.page import folder
from gaussianverse.pipeline.ops.page.folder import Folder


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("names", [["index.html"], ["files/own.txt"], ["index.html", "files/objects/own.js"]])
def test_a_site_of_somebody_is_refused_and_stays(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(UsageError, match=f"holds {min(names).partition('/')[0]}, which is no part of a page"):
        Folder(tmp_path)
    assert contents(tmp_path) == dict.fromkeys(names, b"mine")


def test_a_folder_of_somebody_with_an_empty_folder_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    with pytest.raises(UsageError, match="holds files"):
        Folder(tmp_path)


def test_a_page_is_renewed_whole_or_interrupted_and_nothing_of_it_stays(tmp_path: Path) -> None:
    place = tmp_path / "new" / "page"
    first = Folder(place)
    first.write("objects/a.html", b"a")
    first.finish(b"page")
    interrupted = Folder(place)
    assert "index.html" not in contents(place)
    interrupted.write("b.js", b"b")
    Folder(place).finish(b"again")
    assert set(contents(place)) == {".gaussianverse-page", "index.html"}


def test_a_page_whose_last_file_is_cut_off_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a kill, after which nobody removes the file that was being written."""

    def cut_off(path: Path, data: bytes) -> None:
        (path.parent / "half-written").write_bytes(data[:2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(folder, "write_whole", cut_off)
        with pytest.raises(KeyboardInterrupt):
            Folder(tmp_path).finish(b"page")
    Folder(tmp_path).finish(b"page")
    assert set(contents(tmp_path)) == {".gaussianverse-page", "index.html"}


def test_what_lies_beside_a_page_is_refused(tmp_path: Path) -> None:
    Folder(tmp_path).finish(b"page")
    (tmp_path / "letter.txt").touch()
    with pytest.raises(UsageError, match=r"holds letter\.txt"):
        Folder(tmp_path)
    assert contents(tmp_path)["index.html"] == b"page"


def test_files_that_are_a_link_elsewhere_are_refused(tmp_path: Path) -> None:
    page, other = tmp_path / "page", tmp_path / "other"
    Folder(page)
    other.mkdir()
    (other / "letter.txt").write_bytes(b"mine")
    (page / "files" / "objects").rmdir()
    (page / "files").rmdir()
    (page / "files").symlink_to(other)
    with pytest.raises(UsageError, match="no page can be written there"):
        Folder(page)
    assert contents(other) == {"letter.txt": b"mine"}


@pytest.mark.parametrize("name", ["../x", "objects/../../x", "objects/../../../x.html", "/x", "", "objects/.."])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    page = Folder(tmp_path / "page")
    with pytest.raises(PipelineError, match="outside the page's folder"):
        page.write(name if name != "/x" else str(tmp_path / "x"), b"x")
    assert set(contents(tmp_path)) == {"page/.gaussianverse-page"}
