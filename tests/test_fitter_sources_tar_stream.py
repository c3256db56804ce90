"""Archives that others made: read as tarfile reads them, and never more of them than the budget."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gaussianverse.fitter.errors import BadInput, DecodeError, FitError
from gaussianverse.fitter.sources import tar_stream
from gaussianverse.fitter.sources.tar_stream import opened

NAMES = st.text("ab./é ", min_size=1, max_size=8).filter(lambda n: not n.endswith("/")) | st.integers(90, 300).map(
    lambda n: "d/" * (n // 2) + "x"
)


def packed(members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5  # type: ignore[assignment]  # pax says it in a header
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def read(path: Path, limit: int = 1 << 20) -> list[tuple[str, str, bytes]]:
    with opened(path) as members:
        return [(member.name, member.unusual, member.read(limit)) for member in members]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    members=st.lists(st.tuples(NAMES, st.binary(max_size=1100)), max_size=4),
    format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    zipped=st.booleans(),
)
def test_it_reads_what_tarfile_reads(
    members: list[tuple[str, bytes]], format: int, zipped: bool, tmp_path: Path
) -> None:
    path, data = tmp_path / "o", packed(members, format)
    path.write_bytes(gzip.compress(data) if zipped else data)
    with tarfile.open(path) as archive:
        expected = [(m.name, "", archive.extractfile(m).read()) for m in archive if m.isreg()]  # type: ignore[union-attr]
    found = read(path)
    assert found == expected


def test_members_that_are_not_asked_for_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(packed([("a", b"1" * 513), ("b", b"2"), ("c", b"3" * 512)]))
    with opened(tmp_path / "o") as members:
        assert [member.read(9) if member.name == "b" else b"" for member in members] == [b"", b"2", b""]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (lzma.compress(b"x"), "is an xz archive"),
        (bz2.compress(b"x"), "is a bzip2 archive"),
        (gzip.compress(lzma.compress(b"x")), "holds an xz archive"),
        (b"<!DOCTYPE html>", "is a web page"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "is a 7z archive"),
        (b"\x28\xb5\x2f\xfd\0", "is a zstd archive"),
        (b"Rar!\x1a\7", "is a RAR archive"),
    ],
)
def test_another_kind_of_file_is_named(data: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "o.tar").write_bytes(data)
    with pytest.raises(BadInput, match=what):
        read(tmp_path / "o.tar")


def test_a_zip_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "o.zip", "w") as archive:
        archive.writestr("00000/00000.json", "{}")
    with pytest.raises(BadInput, match=r"is a zip archive, expected a \.tar"):
        read(tmp_path / "o.zip")


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
@pytest.mark.parametrize("size", [1 << 17, 1 << 33])
def test_a_header_is_not_believed(kind: bytes, size: int, tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    (tmp_path / "o").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(BadInput, match="headers are larger than the limit"):
        read(tmp_path / "o")


def test_many_headers_are_not_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_stream, "MAX_HEADERS_BYTES", 500)
    (tmp_path / "few").write_bytes(packed([("a", b"")] * 10))
    (tmp_path / "many").write_bytes(packed([("a", b"")] * 40))
    assert len(read(tmp_path / "few")) == 10
    with pytest.raises(BadInput, match="headers are larger"):
        read(tmp_path / "many")


@pytest.mark.parametrize("body", [b"9 a=1\n", b"x a=1\n", b"999999999 a=1\n", b"5 a=1", b"1" * 60000, b"6 a=1\n6"])
def test_a_damaged_header_is_an_error_at_once(body: bytes, tmp_path: Path) -> None:
    """tarfile takes quadratic time for one of digits."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    (tmp_path / "o").write_bytes(info.tobuf() + body + bytes(-len(body) % 512) + packed([("a", b"")]))
    with pytest.raises(DecodeError, match="an extended header is damaged"):
        read(tmp_path / "o")


def test_members_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_stream, "MAX_MEMBERS", 8)
    (tmp_path / "few").write_bytes(packed([("a", b"")] * 8))
    (tmp_path / "many").write_bytes(packed([("a", b"")] * 9))
    assert len(read(tmp_path / "few")) == 8
    with pytest.raises(BadInput, match="more than the limit of 8 members"):
        read(tmp_path / "many")


def test_an_archive_of_filling_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_stream, "_FREE_BYTES", 1 << 20)
    (tmp_path / "bomb").write_bytes(gzip.compress(packed([("a", bytes(8 << 20))])))
    (tmp_path / "fine").write_bytes(gzip.compress(packed([("a", random.Random(0).randbytes(2 << 20))])))
    (tmp_path / "plain").write_bytes(packed([("a", bytes(8 << 20))]))
    for name in ("fine", "plain"):
        assert len(read(tmp_path / name, 8 << 20)) == 1
    with pytest.raises(BadInput, match="unpacks to more than 50 times its size"):
        read(tmp_path / "bomb", 8 << 20)


def test_a_member_is_not_larger_than_what_is_asked_for_nor_than_the_archive_may_be(tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(packed([("a", bytes(2000))]))
    with pytest.raises(BadInput, match="'a' is larger than the limit of 1999 bytes"):
        read(tmp_path / "o", 1999)
    info = tarfile.TarInfo("huge")
    info.size = 1 << 40
    (tmp_path / "o").write_bytes(info.tobuf())
    with pytest.raises(BadInput, match="'huge' is larger than the limit of 4294967296 bytes in all"):
        read(tmp_path / "o")


@pytest.mark.parametrize("zipped", [False, True])
def test_cut_anywhere_it_is_an_error_or_a_shorter_archive(zipped: bool, tmp_path: Path) -> None:
    data = packed([("a", b"1" * 600), ("b", b"2" * 600)])[: 8 * 512]
    data = gzip.compress(data) if zipped else data
    outcomes = set[str]()
    for size in range(0, len(data), 7 if zipped else 97):
        (tmp_path / "o").write_bytes(data[:size])
        try:
            assert read(tmp_path / "o") == read(tmp_path / "o")
            outcomes.add("shorter")
        except FitError as error:
            outcomes.add(type(error).__name__)
    assert outcomes <= {"shorter", "DecodeError"}
    assert "DecodeError" in outcomes


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "o.tar")
    with pytest.raises(BadInput, match="a named pipe, expected a regular file"):
        read(tmp_path / "o.tar")
