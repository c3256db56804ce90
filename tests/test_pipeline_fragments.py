import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.pipeline.dataset import fragments
from gaussianverse.pipeline.errors import FragmentError

NAMES = st.text("abcXYZ019_-.", min_size=1, max_size=150).filter(
    lambda n: n not in (".", "..") and n.strip(".")
)
MEMBERS = st.dictionaries(NAMES, st.binary(max_size=1500), min_size=1, max_size=5)


@given(MEMBERS)
def test_what_is_built_is_parsed_back_and_depends_on_nothing_else(members: dict[str, bytes]) -> None:
    data = fragments.build(members)
    assert len(data) % fragments.BLOCK == 0
    assert fragments.parse(data) == members
    assert fragments.build(dict(reversed(members.items()))) == data


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(max_size=700)), max_size=6))
def test_concatenated_fragments_are_a_tar_that_anybody_reads(objects: list[tuple[str, bytes]]) -> None:
    named = {f"{i}{uid}.bin": data for i, (uid, data) in enumerate(objects)}
    whole = b"".join(fragments.build({name: data}) for name, data in named.items()) + fragments.END
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        read = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
        assert all((m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o644) for m in archive)
    assert read == named
    assert {m.name: whole[m.offset : m.offset + m.nbytes] for m in fragments.index(whole)} == named


@given(MEMBERS, st.data())
def test_a_damaged_header_or_length_is_noticed(members: dict[str, bytes], data: st.DataObject) -> None:
    whole = bytearray(fragments.build(members))
    if data.draw(st.booleans(), "truncate"):
        damaged = bytes(whole[: data.draw(st.integers(0, len(whole) - 1), "length")])
    else:
        at = data.draw(st.integers(0, 511), "position")
        whole[at] ^= data.draw(st.integers(1, 255), "flip")
        damaged = bytes(whole)
    try:
        parsed = fragments.parse(damaged)
    except FragmentError:
        return
    # a flip in a PAX header's own data may still be a canonical fragment, but never the same one
    assert parsed != members


@pytest.mark.parametrize("name", ["a/b", "", "/etc/passwd", "../x", "a\0b"])
def test_names_with_folders_are_refused(name: str) -> None:
    with pytest.raises(FragmentError, match="name"):
        fragments.build({name: b""})


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_links_folders_and_devices_are_refused(kind: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(FragmentError, match="plain file"):
        fragments.parse(info.tobuf())


def test_a_tar_with_times_is_no_canonical_fragment() -> None:
    info = tarfile.TarInfo("x")
    info.mtime = 1
    with pytest.raises(FragmentError, match="canonical"):
        fragments.parse(info.tobuf(tarfile.PAX_FORMAT))


@given(st.binary(max_size=2000))
def test_noise_is_an_error_with_a_name(data: bytes) -> None:
    with pytest.raises(FragmentError):
        fragments.parse(data)
