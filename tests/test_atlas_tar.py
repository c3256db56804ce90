import io
import tarfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.tar import BLOCK, END, build, header_nbytes, index, parse

NAMES = st.text("abcXYZ019_-.", min_size=1, max_size=150).filter(lambda n: n not in (".", "..") and n.strip("."))
MEMBERS = st.dictionaries(NAMES, st.binary(max_size=1500), min_size=1, max_size=5)


@given(MEMBERS)
def test_what_is_built_is_parsed_back_and_depends_on_nothing_else(members: dict[str, bytes]) -> None:
    data = build(members)
    assert len(data) % BLOCK == 0
    assert parse(data) == members
    assert build(dict(reversed(members.items()))) == data


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.binary(max_size=700)), max_size=6))
def test_concatenated_fragments_are_a_tar_that_anybody_reads(objects: list[tuple[str, bytes]]) -> None:
    named = {f"{i}{uid}.bin": data for i, (uid, data) in enumerate(objects)}
    whole = b"".join(build({name: data}) for name, data in named.items()) + END
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        read = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
        assert all((m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o644) for m in archive)
    assert read == named
    assert {m.name: whole[m.offset : m.offset + m.nbytes] for m in index(whole)} == named


@given(MEMBERS)
@example({"n" * 100: b"1", "n" * 101: b"2", "n" * 150: b"3" * 600})
def test_members_lie_where_tarfile_finds_them(members: dict[str, bytes]) -> None:
    whole = build(members) + END
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        expected = [(m.name, m.offset_data, m.size) for m in archive]
    assert index(whole) == index(memoryview(whole), exact=True) == expected


@given(st.data())
def test_any_other_byte_around_the_members_is_noticed(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["a.json", "n" * 120]), "name")
    whole = bytearray(build({name: b"x" * 700}) + END)
    content = index(whole)[0]
    at = data.draw(st.integers(0, len(whole) - 1).filter(lambda k: not 0 <= k - content.offset < 700), "at")
    whole[at] ^= data.draw(st.integers(1, 255), "flip")
    try:
        (member,) = index(whole, exact=True)
    except AtlasError:
        return
    # a long name has no checksum: with another one it is the archive of that name, and its readers compare names
    assert member.name != name
    assert build({member.name: b"x" * 700}) + END == whole


@given(st.integers(0, BLOCK - 1).filter(lambda k: not 148 <= k < 156), st.integers(1, 255))
def test_a_checksum_notices_any_other_byte_of_a_header(at: int, flip: int) -> None:
    whole = bytearray(build({"a.json": b"{}"}))
    whole[at] ^= flip
    with pytest.raises(AtlasError, match="tar header at byte 0"):
        index(whole)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (build({"a": b"1"}) * 2, "one plain file of each name"),
        (END + build({"a": b"1"}), "no tar header at byte 0"),
        (build({"a": b"1"}) + END + END, "no tar header at byte 1024"),
        (build({"a": b"1"})[:-1], "bytes other than 0 after member 'a'"),
        (build({"a": b"1" * 600})[:-512], "cut short: member 'a' goes beyond the end"),
        (build({"n" * 120: b""})[:1024], "cut short: no member 'nnn"),
        (build({"n" * 120: b""})[:1024] + build({"a": b""}), "is not the plain file 'nnn"),
        (build({"n" * 120: b""})[:1024] * 2, "is not the plain file 'nnn"),
    ],
)
def test_what_is_no_row_of_members_is_named(data: bytes, words: str) -> None:
    with pytest.raises(AtlasError, match=words):
        index(data)


@pytest.mark.parametrize("length", [1, 60, 99, 100, 101, 140])
def test_a_headers_length_is_known_from_the_names(length: int) -> None:
    assert len(build({"n" * length: b""})) == header_nbytes(length)


@given(MEMBERS, st.data())
def test_a_damaged_header_or_length_is_noticed(members: dict[str, bytes], data: st.DataObject) -> None:
    whole = bytearray(build(members))
    if data.draw(st.booleans(), "truncate"):
        damaged = bytes(whole[: data.draw(st.integers(0, len(whole) - 1), "length")])
    else:
        at = data.draw(st.integers(0, 511), "position")
        whole[at] ^= data.draw(st.integers(1, 255), "flip")
        damaged = bytes(whole)
    try:
        parsed = parse(damaged)
    except AtlasError:
        return
    # a flip in a PAX header's own data may still be a canonical fragment, but never the same one
    assert parsed != members


@pytest.mark.parametrize("name", ["a/b", "", "/etc/passwd", "../x", "a\0b"])
def test_names_with_folders_are_refused(name: str) -> None:
    with pytest.raises(AtlasError, match="name"):
        build({name: b""})


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE])
def test_links_folders_and_devices_are_refused(kind: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(AtlasError, match="plain file"):
        parse(info.tobuf())


def test_a_tar_with_times_is_no_canonical_fragment() -> None:
    info = tarfile.TarInfo("x")
    info.mtime = 1
    with pytest.raises(AtlasError, match="canonical"):
        parse(info.tobuf(tarfile.PAX_FORMAT))


@given(st.binary(max_size=2000))
def test_noise_is_an_error_with_a_name(data: bytes) -> None:
    with pytest.raises(AtlasError):
        parse(data)
