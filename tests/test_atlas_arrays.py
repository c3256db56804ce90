"""NumPy's files: what was written comes back, and damage is one sort of error."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gaussianverse.atlas.arrays import npy, npz, read_npy, read_npz
from gaussianverse.atlas.errors import AtlasError

ARRAYS = hnp.arrays(
    st.sampled_from([np.dtype(name) for name in ("<f4", "<f2", ">f8", "<i8", "u1", "?")]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)
ONE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@given(array=ARRAYS, fortran=st.booleans())
def test_what_was_written_comes_back(array: np.ndarray, fortran: bool) -> None:
    data = npy(np.array(array, order="F" if fortran else "C"))
    for found in (read_npy(data), np.load(io.BytesIO(data)), read_npz(npz({"a": array}), "a")["a"]):
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found, array)


def test_what_came_back_can_be_written_to() -> None:
    found = read_npy(memoryview(npy(ONE)))
    found += 1
    np.testing.assert_array_equal(found, ONE + 1)


def header(text: str) -> bytes:
    padded = text.encode().ljust(373) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a .npy file"),
        (b"\x93NUMPY", "not a .npy file"),
        (b"\x93NUMPY\x09\x00" + npy(ONE)[8:], "not a .npy file"),
        (npy(ONE)[:60], "not a .npy file"),
        (npy(ONE)[:-1], "cut short: 96 bytes of numbers, 95 there"),
        (npy(ONE) + b"x", "goes on after its array: 96 bytes of numbers, 97 there"),
        (npy(ONE).replace(b"\x76\0", b"\xff\xff", 1), "a header of 65545 bytes in a file of 224"),
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': ()}" + " " * 20_000) + bytes(4),
            "not a .npy file",
        ),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 9)}"), "cut short"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}") + bytes(8), "no array of numbers"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + bytes(8), "no array of numbers"),
        (header("{'descr': '<U0', 'fortran_order': False, 'shape': (1,)}"), "no array of numbers"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': ((("), "not a .npy file"),
        (header("{'descr': '<c16', 'fortran_order': False, 'shape': ()}") + bytes(16), "no array of numbers"),
        (header("{'descr': '<M8[s]', 'fortran_order': False, 'shape': ()}") + bytes(8), "no array of numbers"),
        (header("{'descr': ('<f4', (2,)), 'fortran_order': False, 'shape': (1,)}") + bytes(8), "not a .npy file"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2**70)}"), "not a .npy file"),
        (header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': (0, {2**70})}}"), "no array has the shape"),
        (header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': (0, {2**62}, 8)}}"), "no array has the shape"),
        (
            header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1, ' * 65})}}") + bytes(4),
            "not a .npy file",
        ),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}") + bytes(4), "not a .npy file"),
        (npy(ONE)[:6] + b"\3" + npy(ONE)[7:], r"version \(3, 0\), expected one of"),
        (header("{'descr': '<f8', b'fortran_order': False, 'shape': ()}"), "not a .npy file"),
    ],
)
def test_what_is_no_array_is_named(data: bytes, words: str) -> None:
    with pytest.raises(AtlasError, match=words):
        read_npy(data)


@pytest.mark.parametrize("data", [b"", b"PK", npz({"a": ONE})[:-30], npy(ONE)])
def test_what_is_no_archive_is_named(data: bytes) -> None:
    with pytest.raises(AtlasError, match=r"not an \.npz file"):
        read_npz(data, "a")


def test_an_array_that_an_archive_lacks_is_named() -> None:
    with pytest.raises(AtlasError, match=r"lacks an array: .*b\.npy"):
        read_npz(npz({"a": ONE}), "ab")


def test_an_archive_that_is_encrypted_or_packed_in_a_strange_way_is_refused() -> None:
    data = npz({"a": ONE})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = archive.start_dir
    for offset, value in ((8, 1), (10, 99), (6, 250)):  # flags, method and version of the directory's only entry
        changed = bytearray(data)
        changed[entry + offset] = value
        with pytest.raises(AtlasError, match=r"not an \.npz file"):
            read_npz(bytes(changed), "a")


def test_a_compressed_archive_is_refused_before_it_is_unpacked() -> None:
    sink = io.BytesIO()
    np.savez_compressed(sink, a=np.zeros(10**6))
    with pytest.raises(AtlasError, match="it is compressed"):
        read_npz(sink.getvalue(), "a")


def test_what_the_machine_lacks_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: Any) -> bytes:
        raise MemoryError

    data = npz({"a": ONE})
    monkeypatch.setattr(zipfile.ZipFile, "read", read)
    with pytest.raises(MemoryError):
        read_npz(data, "a")


def test_only_numbers_are_written() -> None:
    with pytest.raises(TypeError, match="a is object"):
        npz({"a": [None]})


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    flag = tmp_path / "opened"

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (flag,)

    one, many = io.BytesIO(), io.BytesIO()
    np.save(one, np.array([Bomb()], object), allow_pickle=True)
    np.savez(many, a=np.array([Bomb()], object))
    with pytest.raises(AtlasError, match="no array of numbers"):
        read_npy(one.getvalue())
    with pytest.raises(AtlasError, match="no array of numbers"):
        read_npz(many.getvalue(), "a")
    assert not flag.exists()


@settings(max_examples=5 * settings.default.max_examples, deadline=None)
@given(seed=st.integers(0, 2**32))
@example(seed=0)
def test_damage_is_one_sort_of_error(seed: int) -> None:
    """A few bytes replaced, most of them in the headers: the array that is read, if any, has its bytes."""
    draw = random.Random(seed)
    for data, read in ((npy(ONE), read_npy), (npz({"a": ONE}), lambda d: read_npz(d, "a")["a"])):
        changed = bytearray(data)
        for _ in range(draw.randrange(1, 4)):
            changed[draw.randrange(len(data) if draw.random() < 0.5 else 128)] = draw.randrange(256)
        with suppress(AtlasError):
            assert read(bytes(changed)).nbytes <= len(data)
