import copy
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection

import pytest

from gaussianverse.atlas.reader.order import Cursor, Segment
from gaussianverse.atlas.reader.passes import Pass, Passes

MIDDLE = Cursor(5, (Segment(1, 3),))


def test_members_of_one_key_share_a_pass_and_keys_get_epochs_in_turn() -> None:
    passes = Passes()
    assert passes.newest() is None
    assert not passes.used
    assert passes.begin("a", 0) == Pass(1, Cursor(0))
    assert passes.begin("b", 0) == Pass(2, Cursor(1))
    # late, and all the same of the first pass
    assert passes.begin("a", 1) == Pass(1, Cursor(0))
    assert passes.newest() == Pass(2, Cursor(1))
    # a member that comes again begins another pass, which the others then join
    assert passes.peek("a", 1) == passes.next == Cursor(2)
    assert passes.begin("a", 1) == Pass(3, Cursor(2))
    assert passes.peek("a", 0) == Cursor(2)
    assert passes.begin("a", 0) == Pass(3, Cursor(2))
    assert passes.begin("b", 1) == Pass(2, Cursor(1))


def test_a_pass_that_starts_anew_or_is_resumed_decides_what_is_next() -> None:
    passes = Passes()
    passes.begin("a", 0)
    passes.restart(MIDDLE)
    assert passes.used
    assert passes.newest() is None
    assert passes.begin("b", 0).start == MIDDLE
    assert passes.next == Cursor(6)
    for member in (0, 1):
        passes.resume("c", member, Cursor(9, (Segment(1, 2),)))
    assert [passes.begin("c", member).start.epoch for member in (1, 0)] == [9, 9]
    assert passes.begin("c", 0).start == Cursor(10)


def test_many_passes_side_by_side_are_kept_apart() -> None:
    passes = Passes()
    begun = {key: passes.begin(str(key), 0) for key in range(60)}
    assert {key: passes.begin(str(key), 1) for key in range(60)} == begun
    for key in range(200):
        passes.begin(f"later {key}", 0)
    assert passes.next == Cursor(260)


def test_a_copy_has_a_record_of_its_own() -> None:
    passes = Passes()
    passes.begin("a", 0)
    for own in (copy.deepcopy(passes), pickle.loads(pickle.dumps(passes))):
        assert own.next == Cursor(1)
        own.begin("b", 0)
        assert passes.next == Cursor(1)


def begin_many(passes: Passes, member: int, go: Connection, back: Connection) -> None:
    """In another process: join 50 passes as soon as all members are there."""
    back.send("ready")
    go.recv()
    back.send([passes.begin(f"pass {k}", member) for k in range(50)])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_agree_whoever_is_first(method: str) -> None:
    context, passes = get_context(method), Passes()
    workers = []
    for member in range(3):
        (go, told), (answers, back) = context.Pipe(), context.Pipe()
        process = context.Process(target=begin_many, args=(passes, member, told, back))
        process.start()
        workers.append((process, go, answers))
    for _, _, answers in workers:
        assert answers.recv() == "ready"
    for _, go, _ in workers:
        go.send("now")
    found = [answers.recv() for _, _, answers in workers]
    for process, _, _ in workers:
        process.join()
    assert found[0] == found[1] == found[2]
    assert sorted(begun.start.epoch for begun in found[0]) == list(range(50))
    assert passes.next == Cursor(50)


def test_threads_of_one_process_begin_passes_one_after_the_other() -> None:
    passes = Passes()
    with ThreadPoolExecutor(8) as pool:
        begun = list(pool.map(lambda key: passes.begin(str(key), 0), range(400)))
    assert sorted(found.number for found in begun) == list(range(1, 401))
    assert sorted(found.start.epoch for found in begun) == list(range(400))


def test_no_folder_need_be_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [])
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert Passes().begin("a", 0).number == 1
