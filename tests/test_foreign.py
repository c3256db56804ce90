"""Files that others made: regular ones, no more of them than a limit, and never a wait."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from gaussianverse.foreign import NotAFile, TooLarge, read_bytes, read_text


def test_a_regular_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for size in (0, 1, 100):
        path.write_bytes(b"x" * size)
        assert read_bytes(path, 100) == b"x" * size
    path.write_bytes(b"x" * 101)
    with pytest.raises(TooLarge, match="101 bytes, more than the limit of 100"):
        read_bytes(path, 100)
    path.write_text("é")
    assert read_text(path) == "é"


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_bytes(tmp_path / "b") == b"x"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.ply")
    with pytest.raises(NotAFile, match="a named pipe"):
        read_bytes(tmp_path / "x.ply")


def test_a_device_without_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.ply").symlink_to("/dev/zero")
    with pytest.raises(NotAFile, match="a device"):
        read_bytes(tmp_path / "x.ply")


def test_a_socket_is_named() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        with pytest.raises(NotAFile, match="a socket"):
            read_bytes(f"{folder}/s")


@pytest.mark.parametrize(("name", "error"), [("none", FileNotFoundError), ("", IsADirectoryError)])
def test_what_the_system_says_stays_as_it_is(name: str, error: type[OSError], tmp_path: Path) -> None:
    with pytest.raises(error) as raised:
        read_bytes(tmp_path / name)
    assert raised.value.errno


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="there is no /proc")
def test_a_file_that_does_not_tell_its_size_is_limited_too() -> None:
    assert b"Threads" in read_bytes("/proc/self/status")
    with pytest.raises(TooLarge, match="more than the limit of 10 bytes"):
        read_bytes("/proc/self/status", 10)
