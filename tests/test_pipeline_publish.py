from collections.abc import Callable
from pathlib import Path

import pytest

from gaussianverse.atlas.store.errors import StoreError, StoreRefused
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.retries import pause_s
from gaussianverse.atlas.store.storage import Head, sha256_of
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.errors import ShardConflict
from gaussianverse.pipeline.policy import PolicyConfig
from gaussianverse.pipeline.store.probes import prove_conditional_puts
from gaussianverse.pipeline.store.publish import ATTEMPTS, PATIENCE_S, Published, publish, publish_exact


class Faulty(LocalStorage):
    """A store whose first puts and heads fail, before or after the write has happened."""

    def __init__(self, root: Path, puts: list[str], heads: int = 0) -> None:
        super().__init__(root)
        self.puts, self.heads = puts, heads

    def put_if_absent(self, key: str, data: bytes) -> bool:
        fault = self.puts.pop(0) if self.puts else ""
        if fault == "before":
            raise StoreError("503")
        written = super().put_if_absent(key, data)
        if fault == "after":
            raise StoreError("the answer was lost")
        if fault == "retried inside":  # the client's own second try finds the first one's object
            return False
        return written

    def head(self, key: str) -> Head | None:
        if self.heads:
            self.heads -= 1
            raise StoreError("503")
        return super().head(key)


def published(storage: LocalStorage, key: str, data: bytes) -> Published:
    return publish(storage, key, data, pause_s=0)


def test_the_first_stands_the_same_is_ours_another_is_adopted(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    assert published(storage, "k", b"a") is Published.WRITTEN
    assert published(storage, "k", b"a") is Published.OURS
    assert published(storage, "k", b"b") is Published.ADOPTED
    assert storage.get("k") == b"a"


def test_only_what_need_not_outlive_a_loss_of_power_is_written_unsynced(tmp_path: Path) -> None:
    storage, unsynced = LocalStorage(tmp_path), list[str]()
    put = storage.put_unsynced
    storage.put_unsynced = lambda key, data: (unsynced.append(key), put(key, data))[1]  # type: ignore[method-assign]
    assert published(storage, "k", b"a") is Published.WRITTEN
    assert publish(storage, "journal", b"a", durable=False) is Published.WRITTEN
    assert publish(storage, "journal", b"b", durable=False) is Published.ADOPTED
    assert unsynced == ["journal", "journal"]


@pytest.mark.parametrize("fault", ["after", "retried inside"])
def test_a_write_whose_answer_was_lost_is_recognised_as_ours(tmp_path: Path, fault: str) -> None:
    assert published(Faulty(tmp_path, [fault]), "k", b"a") is Published.OURS


def test_a_lost_answer_to_a_lost_race_is_an_adoption(tmp_path: Path) -> None:
    LocalStorage(tmp_path).put_if_absent("k", b"theirs")
    assert published(Faulty(tmp_path, ["after"]), "k", b"ours") is Published.ADOPTED


def test_transient_faults_of_both_kinds_are_outlasted(tmp_path: Path) -> None:
    storage = Faulty(tmp_path, ["before", "after", "before"], heads=2)
    assert published(storage, "k", b"a") is Published.OURS
    assert storage.get("k") == b"a"


def test_a_store_that_stays_away_is_an_error_with_the_key(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="k: not written in 0 s of trying; last: 503"):
        published(Faulty(tmp_path, ["before"] * ATTEMPTS), "k", b"a")


def test_the_pause_doubles_with_each_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = list[float]()
    monkeypatch.setattr("time.sleep", pauses.append)
    with pytest.raises(StoreError, match="not written"):
        publish(Faulty(tmp_path, ["before"] * ATTEMPTS), "k", b"a", pause_s=0.25)
    assert pauses == [0.25 * 2**k for k in range(ATTEMPTS - 1)]


def test_patience_is_bounded_by_time_too(tmp_path: Path) -> None:
    storage = Faulty(tmp_path, ["before"] * 3)
    with pytest.raises(StoreError, match="k: not written in"):
        publish(storage, "k", b"a", pause_s=0, patience_s=0)
    assert storage.puts == ["before"] * 2


def test_a_store_that_never_answers_is_blamed_before_the_object_is() -> None:
    """The last attempt begins within the patience, and ends, with a look at what is there, before the deadline."""
    store, policy = StoreOptions(), PolicyConfig()
    operation = store.max_attempts * max(store.read_timeout_s, store.connect_timeout_s)
    pauses = sum(map(pause_s, range(1, store.max_attempts)))
    assert PATIENCE_S + 2 * (operation + pauses) < policy.atlas_deadline_s + policy.grace_s


def test_exact_publication_adopts_the_same_and_never_overwrites(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    assert publish_exact(storage, "k", b"a") == publish_exact(storage, "k", b"a") == Head(1, sha256_of(b"a"))
    with pytest.raises(ShardConflict, match="k: holds other bytes"):
        publish_exact(storage, "k", b"b")
    assert storage.get("k") == b"a"


def test_a_store_that_keeps_its_promise_passes_and_is_left_clean(tmp_path: Path) -> None:
    prove_conditional_puts(LocalStorage(tmp_path))
    assert list(LocalStorage(tmp_path).list("")) == []


def _overwrites(self: LocalStorage, key: str, data: bytes) -> bool:
    path = self.root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return True


def _overwrites_quietly(self: LocalStorage, key: str, data: bytes) -> bool:
    there = (self.root / key).exists()
    _overwrites(self, key, data)
    return not there


@pytest.mark.parametrize("put", [_overwrites, _overwrites_quietly])
def test_a_store_that_overwrites_is_refused(
    tmp_path: Path, put: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalStorage, "put_if_absent", put)
    with pytest.raises(StoreRefused, match="overwrite each other"):
        prove_conditional_puts(LocalStorage(tmp_path))


def test_a_store_that_forbids_deleting_will_do_and_keeps_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete(self: LocalStorage, key: str) -> None:
        raise StoreRefused(f"{key}: deleting is forbidden")

    monkeypatch.setattr(LocalStorage, "delete", delete)
    storage = LocalStorage(tmp_path)
    prove_conditional_puts(storage)
    [probe] = storage.list("")
    assert not layout.in_dataset(probe.key)
    monkeypatch.setattr(LocalStorage, "put_if_absent", _overwrites)
    with pytest.raises(StoreRefused, match="overwrite each other"):
        prove_conditional_puts(storage)


def test_what_a_store_refuses_is_not_hidden_by_what_it_refuses_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: LocalStorage, key: str, *data: bytes) -> bool:
        raise StoreRefused(f"{key}: no {'putting' if data else 'deleting'}")

    monkeypatch.setattr(LocalStorage, "put_if_absent", refuse)
    monkeypatch.setattr(LocalStorage, "delete", refuse)
    with pytest.raises(StoreRefused, match="no putting"):
        prove_conditional_puts(LocalStorage(tmp_path))
