"""Members of other families and of other people's tars, joined by uid."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reader_datasets import array_of, upload
from reader_loops import BATCH, SAMPLES, UIDS, order_of, publish, uids
from torch.utils.data import DataLoader

from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas import AtlasConfig, StoreOptions, unpack
from gaussianverse.atlas.arrays import npy, read_npy
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.loader import collate
from gaussianverse.atlas.store.local import LocalStorage


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("dataset"))


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def latent(uid: str) -> np.ndarray[Any, Any]:
    return np.arange(12, dtype=np.float32).reshape(3, 4) + 100 * int(uid[3:])


def members_of(uid: str) -> list[tuple[str, bytes]]:
    return [
        (f"{uid}.latent.npy", npy(latent(uid))),
        (f"{uid}.json", json.dumps({"name": uid}).encode()),
        (f"{uid}.txt", f"{uid}: é".encode()),
    ]


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tars in another order than the dataset's, with objects that it lacks."""
    folder = tmp_path_factory.mktemp("somebody") / "latents"
    names = ["obj98", *reversed(UIDS), "obj99"]
    for number, some in enumerate((names[:20], names[20:])):
        write_tar(folder / f"{number:05d}.tar", [m for uid in some for m in members_of(uid)])
    return folder


def check(samples: Iterable[Mapping[str, Any]]) -> None:
    """Each sample has the latents of its own uid."""
    for sample in samples:
        assert torch.equal(sample["latents"]["latent.npy"], torch.from_numpy(latent(sample["uid"])))
        assert sample["latents"]["json"] == {"name": sample["uid"]}
        assert sample["latents"]["txt"] == f"{sample['uid']}: é"


def check_batches(batches: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each batch has the latents of its own uids; the uids."""
    read = []
    for batch in batches:
        assert batch["latents"]["latent.npy"].shape == (len(batch["uid"]), 3, 4)
        for i, uid in enumerate(batch["uid"]):
            single = {suffix: values[i] for suffix, values in batch["latents"].items()}
            check([{"uid": uid, "latents": single}])
        read += batch["uid"]
    return read


def test_every_sample_has_its_own_members_and_the_order_stays(root: Path, latents: Path) -> None:
    dataset = AtlasDataset(root).with_family(latents)
    samples = list(dataset)
    check(samples)
    assert uids(samples) == order_of(root, 0)
    assert list(samples[0]["latents"]) == ["json", "latent.npy", "txt"]  # type: ignore[typeddict-item]
    found = dataset.get("obj07")
    check([found])
    check(dataset.map_style()[i] for i in (0, 5, -1))
    assert torch.equal(found["atlas"], AtlasDataset(root).get("obj07")["atlas"])


@pytest.mark.parametrize("kind", [AtlasLoader, DataLoader])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_in_epochs(root: Path, latents: Path, kind: Any, workers: int) -> None:
    dataset = AtlasDataset(root, batch_size=BATCH, readahead=2).with_family(latents)
    loader = kind(dataset, batch_size=BATCH, num_workers=workers, collate_fn=collate)
    for epoch in range(2):
        assert check_batches(loader) == order_of(root, epoch)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_are_not_forked_have_the_decoders(root: Path, tmp_path: Path, method: str) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.ones(2))
    more = [(f"{uid}.points.npz", buffer.getvalue()) for uid in UIDS]
    tar = write_tar(tmp_path / "latents.tar", [*(m for uid in UIDS for m in members_of(uid)), *more])
    dataset = AtlasDataset(root).with_family(tar)
    loader = AtlasLoader(dataset, BATCH, num_workers=1, multiprocessing_context=method)
    assert check_batches({**batch, "latents": without_points(batch)} for batch in loader) == order_of(root, 0)


def without_points(batch: Any) -> dict[str, Any]:
    """The latents of a batch, less the points, which are checked."""
    latents = dict(batch["latents"])
    assert [points["x"].tolist() for points in latents.pop("points.npz")] == [[1, 1]] * len(batch["uid"])
    return latents


def test_a_state_is_exact_also_where_objects_are_dropped(root: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "some.tar", [m for uid in UIDS[::2] for m in members_of(uid)])

    def fresh() -> AtlasLoader:
        dataset = AtlasDataset(root).with_family(tmp_path / "some.tar", name="latents", missing="drop")
        return AtlasLoader(dataset, BATCH)

    whole = check_batches(fresh())
    assert sorted(whole) == UIDS[::2]
    loader, read = fresh(), list[str]()
    for number, batch in enumerate(loader):
        read += batch["uid"]
        if number == 2:
            break
    state = json.loads(json.dumps(loader.state_dict()))
    resumed = fresh()
    resumed.load_state_dict(state)
    assert read + check_batches(resumed) == whole
    with pytest.raises(DatasetError, match="the state has selection"):
        AtlasLoader(AtlasDataset(root), BATCH).load_state_dict(state)


def test_several_families_stand_side_by_side(root: Path, latents: Path) -> None:
    first = AtlasDataset(root).with_family(latents, members=["txt"])
    both = first.with_family(str(latents), name="again", members=["latent.npy", "txt"])
    assert len(both) == SAMPLES
    for sample in map(dict, both):
        assert sample["latents"] == {"txt": sample["again"]["txt"]}
        assert list(sample["again"]) == ["latent.npy", "txt"]
    assert "again" not in next(iter(first))
    with pytest.raises(DatasetError, match="samples have 'latents' already: pass another name"):
        both.with_family(latents)
    with pytest.raises(DatasetError, match="samples have 'atlas' already"):
        both.with_family(latents, name="atlas")


def test_the_datasets_own_splats(root: Path) -> None:
    dataset = AtlasDataset(root).with_family("splats")
    samples = {item["uid"]: dict(item) for item in dataset}
    assert set(samples) == set(UIDS)
    for i in (0, 40):
        splat, expected = samples[f"obj{i:02d}"]["splats"]["splat.npz"], unpack(array_of(i, 8), AtlasConfig(size=8))
        assert torch.equal(splat["means"], torch.from_numpy(expected.means))
    batch = next(iter(AtlasLoader(dataset, BATCH)))
    assert [type(splat) for splat in dict(batch)["splats"]["splat.npz"]] == [dict] * BATCH
    for wrong, instead in {"views": "views=True", "atlas": "reads anyway", "facts": "in its row"}.items():
        with pytest.raises(DatasetError, match=instead):
            dataset.with_family(wrong, name="other")


def test_a_flipped_byte_of_a_splat_is_found_with_hashes(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root, tmp_path / "copy")
    path = copy / "splats" / "splats-000002.tar"
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        member = archive.getmember("obj23.splat.npz")
    data[member.offset_data + member.size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"splats-000002.tar, bytes from \d+, obj23.splat.npz is damaged"):
        list(AtlasDataset(copy, hashes=True).with_family("splats"))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("folder", ["./", "latents/", f"{'deep/' * 30}", f"{'d' * 90}/{'e' * 40}/", f"{'é' * 60}/"])
def test_names_and_forms_of_tars(root: Path, tmp_path: Path, form: int, folder: str) -> None:
    """Members of a suffix together, as `tar` packs sorted folders, and not those of an object."""
    members = sorted((m for uid in UIDS for m in members_of(uid)), key=lambda m: m[0][5:])
    tar = write_tar(tmp_path / "latents.tar", [(folder + name, data) for name, data in members], form)
    dataset = AtlasDataset(root).with_family(tar)
    check(dataset)
    assert len(dataset) == SAMPLES


def test_a_sample_is_one_range_read_and_no_more_of_the_tar(
    root: Path, latents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = AtlasDataset(root).with_family(latents)
    reads, read = list[int](), LocalStorage.read

    def watched(self: LocalStorage, key: str, offset: int, nbytes: int, total: int | None = None) -> memoryview:
        if self.root == latents:
            reads.append(nbytes)
        return read(self, key, offset, nbytes, total)

    monkeypatch.setattr(LocalStorage, "read", watched)
    assert len(list(dataset)) == SAMPLES
    assert len(reads) == SAMPLES
    assert max(reads) <= 6 * 512  # three members with their headers


def test_a_kept_index_is_read_and_not_made_again(
    root: Path, latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "kept" / "index.parquet"
    AtlasDataset(root).with_family(latents, index=index)
    assert [path.name for path in index.parent.iterdir()] == ["index.parquet"]

    def refuse(*_: object) -> None:
        raise AssertionError("the tars are read again")

    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", refuse)
        dataset = AtlasDataset(root).with_family(latents, index=index)
    check(dataset)
    changed = shutil.copytree(latents, tmp_path / "latents")
    write_tar(changed / "00001.tar", members_of("obj00"))
    with pytest.raises(DatasetError, match="an index of other tars, or of these before they changed; delete it"):
        AtlasDataset(root).with_family(changed, index=index)
    index.write_bytes(b"something else")
    with pytest.raises(DatasetError, match="not an index of tars"):
        AtlasDataset(root).with_family(latents, index=index)


def test_objects_that_a_family_lacks_are_named_and_counted(root: Path, tmp_path: Path) -> None:
    members = [m for uid in UIDS[7:] for m in members_of(uid) if m[0] != "obj30.json"]
    tar = write_tar(tmp_path / "latents.tar", members)
    expected = (
        r"latents lacks obj00 \(.json, .latent.npy, .txt\), obj01 .* obj04 \(.*\) and 3 more, "
        r"8 of the 41 selected objects: pass missing='drop'"
    )
    with pytest.raises(DatasetError, match=expected):
        AtlasDataset(root).with_family(tar)
    with pytest.raises(DatasetError, match=r"latents lacks obj30 \(.json\), 1 of the 2 selected objects"):
        AtlasDataset(root, uids=["obj30", "obj31"]).with_family(tar)
    with pytest.raises(DatasetError, match=r"2 of the 2 selected objects: none would be left"):
        AtlasDataset(root, uids=["obj02", "obj05"]).with_family(tar, missing="drop")
    dropped = AtlasDataset(root).with_family(tar, missing="drop")
    check(dropped)
    assert len(dropped) == 33
    with pytest.raises(DatasetError, match="missing 'skip' is none of error, drop"):
        AtlasDataset(root).with_family(tar, missing="skip")
    with pytest.raises(DatasetError, match="only 33 samples for 40 ranks"):
        AtlasDataset(root, rank=0, world=40).with_family(tar, missing="drop")
    with pytest.raises(DatasetError, match="obj03"):
        dropped.get("obj03")


def test_two_samples_of_one_uid_are_refused(root: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "t" / "a.tar", [m for uid in UIDS for m in members_of(uid)])
    write_tar(tmp_path / "t" / "b.tar", members_of("obj05"))
    with pytest.raises(
        DatasetError, match=r"1 uids have more .* first is obj05.json, which is in a.tar and in b.tar"
    ):
        AtlasDataset(root).with_family(tmp_path / "t")
    twice = write_tar(tmp_path / "twice.tar", [("x/obj05.txt", b"1"), ("y/obj05.txt", b"2")])
    with pytest.raises(DatasetError, match=r"obj05.txt, which is in twice.tar and in twice.tar"):
        AtlasDataset(root).with_family(twice)


def test_suffixes_are_decoded_or_refused_by_name(root: Path, tmp_path: Path) -> None:
    made = {
        "a.npy": npy(np.arange(3, dtype=">f8")), "b.pt": b"PK", "c.npz": b"", "d.pyd": pickle.dumps(len), "cls": b"7",
    }  # fmt: skip
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.eye(2, dtype=np.float16), y=np.array([True]))
    made["c.npz"] = buffer.getvalue()
    tar = write_tar(tmp_path / "mixed.tar", [(f"obj00.{suffix}", data) for suffix, data in made.items()])
    dataset = AtlasDataset(root, uids=["obj00"])
    with pytest.raises(
        DatasetError, match=r"no decoder for .b.pt .*: leave it out by members=\[..\], or pass decode="
    ):
        dataset.with_family(tar)
    with pytest.raises(DatasetError, match=r"members \['x.npy'\]: the objects have a.npy, b.pt, c.npz, cls, d.pyd"):
        dataset.with_family(tar, members=["x.npy"])
    with pytest.raises(DatasetError, match=r"decode names webp, and the members are cls"):
        dataset.with_family(tar, members=["cls"], decode={"cls": int, "webp": bytes})
    joined = dataset.with_family(tar, decode={"pt": bytes, "d.pyd": len, "cls": int})
    (found,) = (dict(item)["mixed"] for item in joined)
    assert found["a.npy"].tolist() == [0, 1, 2]
    assert (found["b.pt"], found["d.pyd"], found["cls"]) == (b"PK", len(made["d.pyd"]), 7)
    assert found["c.npz"]["x"].dtype == torch.float16
    assert found["c.npz"]["x"].tolist() == [[1, 0], [0, 1]]
    assert found["c.npz"]["y"].tolist() == [True]


def test_arrays_of_different_shapes_are_a_list_if_asked(root: Path, tmp_path: Path) -> None:
    points = [(f"{uid}.npy", npy(np.ones((i % 7, 3), np.float32))) for i, uid in enumerate(UIDS)]
    tar = write_tar(tmp_path / "points.tar", points)
    loader = AtlasLoader(AtlasDataset(root).with_family(tar), BATCH)
    with pytest.raises(
        DatasetError, match=r"points: .npy of torch.float32 .* are no batch; for a list pass a decoder"
    ):
        next(iter(loader))
    dataset = AtlasDataset(root).with_family(tar, decode={"npy": read_npy})
    for batch in map(dict, AtlasLoader(dataset, BATCH)):
        assert [len(p) for p in batch["points"]["npy"]] == [int(uid[3:]) % 7 for uid in batch["uid"]]


def test_an_object_array_is_never_unpickled(root: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Path], object), allow_pickle=True)
    tar = write_tar(tmp_path / "hostile.tar", [("obj00.npy", buffer.getvalue())])
    with pytest.raises(DatasetError, match=r"hostile.tar, bytes from 512, obj00.npy does not decode: .* no array"):
        list(AtlasDataset(root, uids=["obj00"]).with_family(tar))


BAD_TARS = {"nothing in it": b"", "no tar": b"PK\3\4" * 1000, "a page": b"<html>" * 300}


@pytest.mark.parametrize("data", BAD_TARS.values(), ids=BAD_TARS)
def test_what_is_no_tar_is_named(root: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.tar").write_bytes(data)
    with pytest.raises(DatasetError, match=r"bad.tar is damaged, or no tar"):
        AtlasDataset(root).with_family(tmp_path / "bad.tar")


def test_a_tar_cut_anywhere_or_with_a_damaged_header_is_named(root: Path, tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", [m for uid in UIDS[:2] for m in members_of(uid)]).read_bytes()
    end = 12 * 512  # behind it only zeros
    bad = tmp_path / "bad.tar"
    for length in [*range(0, end, 128), end]:
        bad.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match=r"bad.tar is damaged, or no tar"):
            AtlasDataset(root, uids=UIDS[:2]).with_family(bad)
    for header in range(0, end, 1024):
        bad.write_bytes(whole[: header + 3] + b"\xff" + whole[header + 4 :])
        with pytest.raises(DatasetError, match=r"bad.tar is damaged, or no tar"):
            AtlasDataset(root, uids=UIDS[:2]).with_family(bad)


def test_links_and_sparse_files_are_no_members(root: Path, tmp_path: Path) -> None:
    link, sparse = tarfile.TarInfo("obj01.npy"), tarfile.TarInfo("obj01.npy")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    sparse.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": "512"}
    for odd in (link, sparse):
        with tarfile.open(tmp_path / "odd.tar", "w") as archive:
            archive.addfile(tarfile.TarInfo("folder/obj00.npy"))
            archive.addfile(odd)
        with pytest.raises(DatasetError, match=r"obj01.npy is no plain file"):
            AtlasDataset(root).with_family(tmp_path / "odd.tar")


def test_a_tar_that_changes_after_it_was_indexed_is_found(root: Path, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "latents.tar", [m for uid in UIDS for m in members_of(uid)])
    dataset = AtlasDataset(root, shuffle=False).with_family(tar)
    data = tar.read_bytes()
    tar.write_bytes(data[:-512])
    with pytest.raises(DatasetError, match=r"latents.tar: \d+ bytes, expected \d+: truncated"):
        next(iter(dataset))
    write_tar(tar, [m for uid in [*UIDS[1:], UIDS[0]] for m in members_of(uid)])
    with pytest.raises(DatasetError, match=r"there is obj01.latent.npy of 176 bytes: the tar was replaced"):
        next(iter(dataset))
    tar.write_bytes(data[:1024] + b"\xff" + data[1025:])
    with pytest.raises(DatasetError, match=r"bytes from 1536, obj00.json: damaged tar header"):
        list(dataset)
    tar.unlink()
    with pytest.raises(DatasetError, match="no such file"):
        next(iter(dataset))


def test_a_damaged_member_is_named(root: Path, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "latents.tar", [m for uid in UIDS for m in members_of(uid)])
    data = tar.read_bytes()
    start = data.index(b"\x93NUMPY")
    tar.write_bytes(data[: start + 1] + b"X" + data[start + 2 :])
    with pytest.raises(DatasetError, match=rf"latents.tar, bytes from {start}, obj00.latent.npy does not decode"):
        list(AtlasDataset(root).with_family(tar))


@pytest.mark.parametrize("name", [b"\xffobj00.txt", b"folder/\xff.txt", b"\xff/obj40.cls"])
def test_names_that_are_not_utf8_are_of_no_object(root: Path, tmp_path: Path, name: bytes) -> None:
    odd = (name.decode("utf-8", "surrogateescape"), b"7")
    members = [m for uid in UIDS for m in members_of(uid)]
    tar = write_tar(tmp_path / "latents.tar", [odd, *members], tarfile.GNU_FORMAT)
    check(AtlasDataset(root).with_family(tar, members=["txt", "json", "latent.npy"]))


def test_a_suffix_that_is_not_utf8_is_refused_with_its_tar(root: Path, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "odd.tar", [("obj00.\udcff", b"7")], tarfile.GNU_FORMAT)
    with pytest.raises(
        DatasetError, match=r"odd.tar: '\\udcff', the end of a member's name, is not UTF-8; rename it"
    ):
        AtlasDataset(root).with_family(tar)


def test_a_tar_of_folders_has_no_members(root: Path, tmp_path: Path) -> None:
    folder = tarfile.TarInfo("obj00")
    folder.type = tarfile.DIRTYPE
    with tarfile.open(tmp_path / "folders.tar", "w") as archive:
        archive.addfile(folder)
    with pytest.raises(DatasetError, match="none of the 0 members is of an object"):
        AtlasDataset(root).with_family(tmp_path / "folders.tar", index=tmp_path / "index.parquet")
    with pytest.raises(DatasetError, match="none of the 0 members is of an object"):
        AtlasDataset(root).with_family(tmp_path / "folders.tar", index=tmp_path / "index.parquet")


def test_an_address_is_the_place_that_it_names(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tar in the root folder is not one in this folder, and the path ./splats is not the dataset's own family."""
    here = write_tar(tmp_path / "of-no-root-folder.tar", [m for uid in UIDS for m in members_of(uid)])
    shutil.copytree(root / "splats", tmp_path / "splats")
    monkeypatch.chdir(tmp_path)
    assert len(AtlasDataset(root).with_family(here.name)) == SAMPLES
    with pytest.raises(DatasetError, match=r"/of-no-root-folder.tar: no such file"):
        AtlasDataset(root).with_family(f"/{here.name}")
    beside = AtlasDataset(root).with_family(Path("./splats"), members=["splat.npz"])
    assert beside._families[0].store.url == str(tmp_path / "splats")


def test_addresses_without_tars(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no .tar there; expected a tar, or a folder of tars"):
        AtlasDataset(root).with_family(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"none.tar: no such file.*expected a tar"):
        AtlasDataset(root).with_family(tmp_path / "none.tar")
    other = write_tar(tmp_path / "other.tar", members_of("obj77"))
    with pytest.raises(DatasetError, match=r"none of the 3 members is of an object of .*: their names must begin"):
        AtlasDataset(root).with_family(other)


def test_families_from_s3(root: Path, latents: Path, s3_endpoint: str, tmp_path: Path) -> None:
    name, options = f"family-{tmp_path.name}", StoreOptions(endpoint_url=s3_endpoint)
    upload(root, s3_endpoint, "bucket", f"{name}/set")
    upload(latents, s3_endpoint, "bucket", f"{name}/latents")
    plain = AtlasDataset(f"s3://bucket/{name}/set", s3=options, neighbours=1)
    dataset = plain.with_family(f"s3://bucket/{name}/latents")
    samples = list(dataset.with_family("splats"))
    check(samples)
    assert uids(samples) == order_of(root, 0)
    assert all("splats" in sample for sample in samples)
