import hashlib
import io
import tarfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.reader import sample
from gaussianverse.atlas.tar import build

ROW: dict[str, Any] = {
    "uid": "a", "caption": "a caption", "size": 8, "n_padded": 5, "n_gaussians": 61, "atlas_sha256": "",
}  # fmt: skip


def npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


ARRAY = np.random.default_rng(0).random((8, 8, 16)).astype(np.float32)


def data(**changed: bytes) -> memoryview:
    members = {"a.atlas.npy": npy(ARRAY), "a.json": b"{}", "a.txt": b"a caption"}
    members |= {f"a.{name.replace('_', '.')}": value for name, value in changed.items()}
    return memoryview(bytearray(build(members)))


def test_a_sample_shares_memory_with_its_bytes() -> None:
    content = data()
    found = sample.parse(content, ROW, 8, hashes=False)
    assert (found == ARRAY).all()
    assert np.shares_memory(found, np.frombuffer(content, np.uint8))


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: data(txt=b"another"), "a.txt is 'another', metadata.parquet says 'a caption'"),
        (lambda: data(txt=b""), "a.txt is ''"),
        (lambda: data(txt=b"\xff"), "a.txt is damaged"),
        (lambda: data(png=b"x"), "holds a.atlas.npy, a.json, a.png, a.txt, expected"),
        (lambda: data()[:512], "cut short: member 'a.atlas.npy' goes beyond the end"),
        (lambda: data()[512:], "no tar header|damaged tar header"),
        (lambda: memoryview(bytearray(1024)), "holds nothing, expected"),
        (lambda: memoryview(bytearray(1536)), "no tar header"),
        (lambda: data(atlas_npy=npy(ARRAY[:4])), r"\(4, 8, 16\) in C order, expected .* \(8, 8, 16\)"),
        (lambda: data(atlas_npy=npy(ARRAY.astype(np.float64))), "float64"),
        (lambda: data(atlas_npy=npy(np.asfortranarray(ARRAY))), "in Fortran order"),
        (lambda: data(atlas_npy=npy(ARRAY)[:-4]), "cut short: 4096 bytes of numbers, 4092 there"),
        (lambda: data(atlas_npy=b"not numpy at all"), "not a .npy file"),
        (lambda: data(atlas_npy=npy(ARRAY).replace(b"descr", b"dascr")), "not a .npy file"),
    ],
)
def test_what_else_lies_there_is_named(make: Callable[[], memoryview], fault: str) -> None:
    with pytest.raises(AtlasError, match=fault):
        sample.parse(make(), ROW, 8, hashes=False)


def test_a_folder_in_a_tar_is_refused() -> None:
    info = tarfile.TarInfo("a.atlas.npy")
    info.type = tarfile.DIRTYPE
    with pytest.raises(AtlasError, match="not the plain file"):
        sample.parse(memoryview(bytearray(info.tobuf())), ROW, 8, hashes=False)


def test_with_hashes_every_byte_must_be_that_of_the_row() -> None:
    row = {**ROW, "atlas_sha256": hashlib.sha256(npy(ARRAY)).hexdigest()}
    assert (sample.parse(data(json=b'{"uid":"a","n_gaussians":59}'), row, 8, hashes=True) == ARRAY).all()
    for facts, words in (
        (b'{"uid":"b"}', "a.json is damaged: uid differ"),
        (b'{"uid":"a","x":1}', "a.json is damaged: x differ"),
        (b'{"uid": "a"}', "a.json is damaged: spaces differ"),
        (b'{"uid"', "a.json is damaged: invalid JSON"),
        (b"[]", "a.json is damaged: expected a JSON object"),
    ):
        with pytest.raises(AtlasError, match=words):
            sample.parse(data(json=facts), row, 8, hashes=True)
    other = npy(ARRAY + 1)
    with pytest.raises(AtlasError, match=r"a\.atlas\.npy is damaged: its sha256"):
        sample.parse(data(atlas_npy=other), row, 8, hashes=True)
    with pytest.raises(AtlasError, match=r"a\.atlas\.npy is damaged: its sha256"):
        sample.decode_verified(memoryview(other), row, 8)
    assert (sample.decode_verified(memoryview(npy(ARRAY)), row, 8) == ARRAY).all()
