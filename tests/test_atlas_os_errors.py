"""Whose fault an error is: every number of the system, and errors without a number."""

from __future__ import annotations

import errno
import gzip
import os
import re
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from gaussianverse.atlas import os_errors

MACHINES = [
    "EIO", "ESTALE", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "ETIMEDOUT", "ECONNRESET", "ECONNREFUSED",
    "ECONNABORTED", "EHOSTUNREACH", "EAGAIN", "EBUSY", "EROFS", "EPERM", "EACCES", "ENXIO", "ENODEV", "EHOSTDOWN",
    "ENETUNREACH", "EINTR", "EBADF", "EFBIG", "ENOLCK", "EPROTO", "EREMOTEIO",
]  # fmt: skip
OBJECTS = ["ENOENT", "ENOTDIR", "EISDIR", "ELOOP", "ENAMETOOLONG"]


def test_every_number_of_the_system_is_the_machines_but_five() -> None:
    blamed = {number for number in errno.errorcode if not os_errors.is_machines(OSError(number, "x"))}
    assert blamed == {getattr(errno, name) for name in OBJECTS} == os_errors.OBJECTS
    assert all(os_errors.is_machines(OSError(getattr(errno, name), "x")) for name in MACHINES)
    assert all(os_errors.is_absence(OSError(number, "x")) == (number in blamed) for number in errno.errorcode)


@pytest.mark.parametrize(
    "error",
    [
        UnidentifiedImageError("no image"), gzip.BadGzipFile("no gzip"), OSError("image file is truncated"),
        ValueError("x"), EOFError(), MemoryError(),
    ],
)  # fmt: skip
def test_what_says_something_about_bytes_is_not_the_machines(error: BaseException) -> None:
    assert not os_errors.is_machines(error)
    assert not os_errors.is_absence(error)


@pytest.mark.parametrize(
    "error", [ConnectionError("cut"), TimeoutError("late"), PermissionError("no"), BlockingIOError()]
)
def test_connections_and_rights_are_the_machines_also_without_a_number(error: BaseException) -> None:
    assert os_errors.is_machines(error)


def test_what_lies_under_a_path(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    paths = {
        tmp_path: (True, False, True), file: (True, True, False), file / "below": (False,) * 3,
        tmp_path / "dead": (False,) * 3, tmp_path / "round": (False,) * 3, tmp_path / ("n" * 300): (False,) * 3,
        tmp_path / "a\0b": (False,) * 3,
    }  # fmt: skip
    for path, expected in paths.items():
        assert (os_errors.exists(path), os_errors.is_file(path), os_errors.is_folder(path)) == expected


@pytest.mark.parametrize("name", MACHINES)
def test_a_system_that_cannot_tell_is_no_absence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(os, "stat", fails)
    for question in (os_errors.exists, os_errors.is_file, os_errors.is_folder):
        with pytest.raises(OSError, match=re.escape(os.strerror(getattr(errno, name)))) as caught:
            question(tmp_path)
        assert os_errors.is_machines(caught.value)


def test_pillow_says_nothing_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(UnidentifiedImageError) as caught:
        Image.open(tmp_path / "x.png")
    assert not os_errors.is_machines(caught.value)
    assert os_errors.describe(OSError(errno.EIO, "Input/output error", "/a/path")) == "Input/output error"
