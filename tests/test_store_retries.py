from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ParamValidationError, ReadTimeoutError

from gaussianverse.atlas.store import retries
from gaussianverse.atlas.store.errors import NotFound, StoreError, StoreRefused
from gaussianverse.atlas.store.retries import Tries, pause_s

SECRET = "Authorization: AWS4 test-secret"


def answer(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": SECRET}}, "GetObject")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made = list[float]()
    monkeypatch.setattr(retries.time, "sleep", made.append)
    return made


PASSING: list[Exception] = [
    *map(answer, ("ExpiredToken", "400", "409", "429", "500", "503", "SlowDown", "RequestTimeout", "")),
    ReadTimeoutError(endpoint_url="http://x"), ConnectionResetError(), TimeoutError(),
]  # fmt: skip
FINAL: list[tuple[Exception, Any]] = [
    *((answer(code), NotFound) for code in ("404", "NoSuchKey", "NotFound")),
    *((answer(code), StoreRefused) for code in ("401", "403", "AccessDenied", "NoSuchBucket", "501")),
    (NoCredentialsError(), StoreRefused), (ParamValidationError(report="no such bucket name"), StoreRefused),
]  # fmt: skip


@pytest.mark.parametrize("error", PASSING)
def test_what_may_pass_is_tried_as_often_as_told(error: Exception, pauses: list[float]) -> None:
    tries = Tries(5)
    for _ in range(4):
        tries.failed(error, "s3://b/k")
    with pytest.raises(StoreError, match="s3://b/k: no success after 5 tries in a row") as caught:
        tries.failed(error, "s3://b/k")
    assert not isinstance(caught.value, StoreRefused)
    assert SECRET not in str(caught.value)
    assert len(pauses) == 4
    for number, pause in enumerate(pauses, 1):
        assert pause_s(number) / 2 <= pause <= pause_s(number)


@pytest.mark.parametrize(("error", "kind"), FINAL)
def test_what_is_final_is_tried_once(error: Exception, kind: Any, pauses: list[float]) -> None:
    with pytest.raises(kind, match="s3://b/k: "):
        Tries(5).failed(error, "s3://b/k")
    assert pauses == []


def test_pauses_double_up_to_a_bound() -> None:
    assert [pause_s(k) for k in range(1, 5)] == [0.2, 0.4, 0.8, 1.6]
    assert pause_s(20) == 20.0


def test_progress_begins_the_count_again(pauses: list[float]) -> None:
    tries = Tries(3)
    for _ in range(10):
        tries.failed(ConnectionResetError(), "k")
        tries.failed(ConnectionResetError(), "k", progress=True)
    assert set(p <= pause_s(2) for p in pauses) == {True}
