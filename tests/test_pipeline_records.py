import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline_runs import manifest_row, planned, publish_one

from gaussianverse.atlas.canonical_json import to_json
from gaussianverse.atlas.dataset_format import OK, QUARANTINED, SPLATS
from gaussianverse.atlas.store.errors import NotFound, StoreError
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.storage import sha256_of
from gaussianverse.atlas.tar import build
from gaussianverse.pipeline.dataset import layout, records
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import FACTS, JOURNAL
from gaussianverse.pipeline.errors import FragmentError, PipelineError

STAGE = SPLATS
RUN = Run({"schema_version": 2, "config_digest": "d" * 64, "config": {"fit": {}, "run": {"seed": 0}}})


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def test_a_sample_is_read_back_with_its_facts_caption_and_journal(storage: LocalStorage) -> None:
    row = manifest_row(3, "a", shard=2)
    publish_one(storage, RUN, STAGE, row, data=b"arrays", attempts=4)
    record = records.read(storage, STAGE, 2, "a")
    assert record.ok
    assert record.main(STAGE) == b"arrays"
    assert record.members["a.txt"].decode() == "caption of a: é"
    assert (record.facts["index"], record.facts["license"]) == (3, "CC0-1.0")
    assert list(record.facts) == FACTS[STAGE].names
    data = storage.get(layout.fragment(STAGE, 2, "a"))
    entry = records.read_entry(storage, STAGE, record.facts, sha256_of(data))
    assert (entry["attempts"], entry["uid"], entry["peak_mb"]) == (4, "a", 1.0)
    assert entry["seconds"] >= 0  # type: ignore[operator]
    assert "/" in str(entry["host"])


def test_a_quarantine_is_under_the_key_that_success_would_have_had(storage: LocalStorage) -> None:
    row = manifest_row(0, "a")
    why = {"reason": "low_psnr", "error_class": "LowPsnr", "error_message": "a line\nand\tanother " + "x" * 900}
    records.publish_quarantine(storage, STAGE, row, RUN, why, records.Stopwatch(1))
    publish_one(storage, RUN, STAGE, row, data=b"too late")
    record = records.read(storage, STAGE, 0, "a")
    assert not record.ok
    assert set(record.members) == {"a.json"}
    facts = record.facts
    assert (facts["status"], facts["reason"], facts["error_class"]) == (QUARANTINED, "low_psnr", "LowPsnr")
    assert str(facts["error_message"]).startswith("a line and another xxx")
    assert len(str(facts["error_message"])) == 500
    assert facts["caption"] == "caption of a: é"


def test_a_reason_outside_the_list_is_unknown(storage: LocalStorage) -> None:
    why = {"reason": "the moon", "error_class": "", "error_message": ""}
    records.publish_quarantine(storage, STAGE, manifest_row(0, "a"), RUN, why, records.Stopwatch(1))
    assert records.read(storage, STAGE, 0, "a").facts["reason"] == "unknown"


def test_every_fragment_has_a_journal_entry_whoever_wins(storage: LocalStorage) -> None:
    row = manifest_row(0, "a")
    for attempts, data in ((1, b"first"), (2, b"second")):
        publish_one(storage, RUN, STAGE, row, data=data, attempts=attempts)
    record = records.read(storage, STAGE, 0, "a")
    assert record.main(STAGE) == b"first"
    winner = sha256_of(storage.get(layout.fragment(STAGE, 0, "a")))
    assert records.read_entry(storage, STAGE, record.facts, winner)["attempts"] == 1
    assert len(list(storage.list("_work/runs/"))) == 2


def test_a_lost_journal_entry_is_no_obstacle(storage: LocalStorage) -> None:
    publish_one(storage, RUN, STAGE, manifest_row(7, "a"), data=b"x")
    record = records.read(storage, STAGE, 0, "a")
    entry = records.read_entry(storage, STAGE, record.facts, "0" * 64)
    assert (entry["index"], entry["uid"], entry["attempts"]) == (7, "a", -1)
    assert list(entry) == JOURNAL[STAGE].names


@pytest.mark.parametrize("left", [b"", b"\0" * 300, b'{"index": 7'])
def test_a_journal_entry_that_a_loss_of_power_damaged_is_as_a_lost_one(storage: LocalStorage, left: bytes) -> None:
    publish_one(storage, RUN, STAGE, manifest_row(7, "a"), data=b"x")
    sha256 = sha256_of(storage.get(layout.fragment(STAGE, 0, "a")))
    (storage.root / layout.run_record(STAGE, 0, "a", sha256)).write_bytes(left)
    record = records.read(storage, STAGE, 0, "a")
    entry = records.read_entry(storage, STAGE, record.facts, sha256)
    assert (entry["index"], entry["uid"], entry["attempts"]) == (7, "a", -1)


def test_a_store_that_fails_to_hand_out_a_journal_entry_is_a_fault(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_one(storage, RUN, STAGE, manifest_row(7, "a"), data=b"x")
    record = records.read(storage, STAGE, 0, "a")

    def away(*_: object) -> bytes:
        raise StoreError("503")

    monkeypatch.setattr(LocalStorage, "get", away)
    with pytest.raises(StoreError, match="503"):
        records.read_entry(storage, STAGE, record.facts, "0" * 64)


def test_a_fragment_is_made_durable_and_its_journal_entry_is_not(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (layout.fragment(STAGE, 0, "a"), layout.run_record(STAGE, 0, "a", "0" * 64)):
        (storage.root / folder).parent.mkdir(parents=True, exist_ok=True)
    (storage.root / ".incoming").mkdir(exist_ok=True)
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    publish_one(storage, RUN, STAGE, manifest_row(0, "a"), data=b"x")
    file, folder = synced
    assert Path(file).parent.name == ".incoming"
    assert folder == str((storage.root / layout.fragment(STAGE, 0, "a")).parent)


def test_what_is_missing_is_not_found(storage: LocalStorage) -> None:
    with pytest.raises(NotFound, match=r"splats/000000/a\.tar"):
        records.read(storage, STAGE, 0, "a")


def test_facts_of_another_object_or_shard_are_refused(storage: LocalStorage) -> None:
    publish_one(storage, RUN, STAGE, manifest_row(0, "a"), data=b"x")
    data = storage.get(layout.fragment(STAGE, 0, "a"))
    for shard, uid in ((1, "a"), (0, "b")):
        with pytest.raises(FragmentError, match=f"{shard:06d}/{uid}.tar"):
            records.parse(STAGE, shard, uid, data)


def test_a_sample_without_its_caption_or_arrays_is_refused() -> None:
    facts = to_json(records.facts_of(STAGE, manifest_row(0, "a"), RUN, status=OK))
    whole = {"a.json": facts, "a.txt": b"", "a.splat.npz": b""}
    assert records.parse(STAGE, 0, "a", build(whole)).ok
    for lacking in ("a.txt", "a.splat.npz"):
        data = build({n: d for n, d in whole.items() if n != lacking})
        with pytest.raises(FragmentError, match="expected"):
            records.parse(STAGE, 0, "a", data)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_damage_is_a_named_error_or_harmless(data: st.DataObject) -> None:
    facts = to_json(records.facts_of(STAGE, manifest_row(0, "a"), RUN, status=OK))
    good = build({"a.json": facts, "a.txt": b"caption", "a.splat.npz": b"z" * 300})
    start = data.draw(st.integers(0, len(good) - 1))
    end = data.draw(st.integers(start, len(good)))
    damaged = good[:start] + data.draw(st.binary(max_size=40)) + good[end:]
    try:
        record = records.parse(STAGE, 0, "a", damaged)
    except FragmentError:
        return
    assert set(record.members) == {"a.json", "a.txt", "a.splat.npz"}


@given(st.binary(max_size=200))
def test_any_bytes_are_an_error_with_the_key(data: bytes) -> None:
    with pytest.raises(FragmentError, match=r"_work/splats/000000/a\.tar: "):
        records.parse(STAGE, 0, "a", data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)
    )
)
def test_any_json_as_facts_is_an_error(value: object) -> None:
    data = build({"a.json": json.dumps(value).encode(), "a.txt": b"", "a.splat.npz": b""})
    with pytest.raises(FragmentError):
        records.parse(STAGE, 0, "a", data)


def test_columns_that_nobody_declared_are_refused(storage: LocalStorage) -> None:
    run = planned(storage, ["a"])
    with pytest.raises(PipelineError, match="no column for colour"):
        records.facts_of(STAGE, manifest_row(0, "a"), run, colour="red")


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("view 3: <BytesIO object at 0x7f3a12bc9d40>", "view 3: <BytesIO object at an address>"),
        ("/mnt/share/x/00003.png: cannot be read", "00003.png: cannot be read"),
        ("s3://bucket/a/b.tar: cut short", "s3://bucket/a/b.tar: cut short"),
        ("expected 0.5/2 or w/h, and 1/f", "expected 0.5/2 or w/h, and 1/f"),
        ("opened '/home/me/my/file.ply' twice", "opened 'file.ply' twice"),
    ],
)
def test_published_texts_name_no_place_and_no_address(storage: LocalStorage, text: str, published: str) -> None:
    why = {"reason": "bad_input", "error_class": "BadInput", "error_message": text}
    records.publish_quarantine(storage, STAGE, manifest_row(0, "a"), RUN, why, records.Stopwatch(1))
    record = records.read(storage, STAGE, 0, "a")
    assert record.facts["error_message"] == published
    data = storage.get(layout.fragment(STAGE, 0, "a"))
    assert records.read_entry(storage, STAGE, record.facts, sha256_of(data))["error_text"] == text


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("cannot open /mnt/data/objects/a.png", "cannot open a.png"),
        ("cannot open '/mnt/my data/a b/c.png': denied", "cannot open 'c.png': denied"),
        ('cannot open "/mnt/é, (1)/c.png"', 'cannot open "c.png"'),
        ("<_io.BytesIO object at 0x7f3a5c0e1b20> is no image", "<_io.BytesIO object at an address> is no image"),
        ("views/a: view 3: 1/2 of s3://bucket/key/x", "views/a: view 3: 1/2 of s3://bucket/key/x"),
        ("two\nlines", "two lines"),
    ],
)
def test_a_published_text_has_no_address_and_no_folder_of_the_machine(text: str, published: str) -> None:
    assert records.closed(text) == published
