import itertools
import json
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader import order, words
from gaussianverse.atlas.reader.order import DROP, REPEAT, Cursor, Segment

SHARDS = st.lists(st.integers(0, 5), max_size=40).map(sorted)
UNEVEN = st.sampled_from(order.UNEVEN)


def sequences(whole: words.Indices, cursor: Cursor, uneven: str) -> list[list[int]]:
    world = cursor.segments[-1].world
    return [order.rank_sequence(whole, cursor, rank, uneven).tolist() for rank in range(world)]


@given(SHARDS, st.integers(0, 2**40), st.integers(0, 1000), st.integers(0, 4))
def test_an_epochs_order_has_every_sample_once(shards: list[int], seed: int, epoch: int, window: int) -> None:
    whole = order.epoch_order(shards, seed, epoch, window)
    assert sorted(whole.tolist()) == list(range(len(shards)))
    assert (whole == order.epoch_order(shards, seed, epoch, window)).all()


def test_orders_differ_by_seed_and_epoch_and_are_as_ever() -> None:
    shards = np.arange(1000) // 100
    found = {order.epoch_order(shards, s, e, 4).tobytes() for s in range(3) for e in range(3)}
    assert len(found) == 9
    # fixed for good: a run that is resumed with a later version must find its order again
    assert order.epoch_order([0, 0, 0, 1, 1, 2], 7, 3, 2).tolist() == KNOWN
    large = order.epoch_order(shards, 7, 3, 4)
    assert sha256(large.astype("<i8").tobytes()).hexdigest() == KNOWN_LARGE


KNOWN = [1, 5, 2, 0, 3, 4]
KNOWN_LARGE = "c17d7d7ae158154a8f3efef181188ac534733d9ec1c81034c146ad4097a84160"


def test_a_window_keeps_shards_together_and_mixes_within() -> None:
    shards = np.arange(1200) // 100
    whole = order.epoch_order(shards, 0, 0, 3)
    for first in range(0, 1200, 300):
        inside = shards[whole[first : first + 300]]
        assert len(set(inside.tolist())) == 3
        assert (np.diff(inside) != 0).mean() > 0.5
    assert order.epoch_order(shards, 0, 0, 0).tolist() == list(range(1200))


def test_runs_stay_together_and_begin_elsewhere_in_each_epoch() -> None:
    shards, places = np.arange(1200) // 100, np.arange(1200)
    mates = set[tuple[int, int]]()
    for epoch in range(40):
        whole = order.epoch_order(shards, 1, epoch, 4, 8, places)
        assert sorted(whole.tolist()) == list(range(1200))
        runs = order.adjacent(whole, shards[whole], 8)
        lengths = [len(run) for run in runs]
        # a shard of 100 samples has at most 14 runs, of which two may be shorter; neighbours may meet by chance
        assert max(lengths) == 8
        assert np.mean(lengths) > 100 / 14
        # 48 runs of a window's four shards mix: a run and the next are of one shard in a fourth of all cases
        assert np.mean([a[0] // 100 != b[0] // 100 for a, b in itertools.pairwise(runs)]) > 0.6
        mates |= {(int(a), int(b)) for run in runs for a in run for b in run if a < b}
    # over the epochs a sample meets seven on either side, and none further away in its run
    assert {b for a, b in mates if a == 50} == set(range(51, 58))


def test_runs_are_those_of_the_dataset_whatever_is_selected() -> None:
    shards, places = np.arange(400) // 100, np.arange(400)
    some = np.flatnonzero(np.arange(400) % 3 > 0)
    orders = (
        places[order.epoch_order(shards, 5, 2, 4, 16, places)],
        some[order.epoch_order(shards[some], 5, 2, 4, 16, some)],
    )
    for shard in range(4):
        # the places in a shard, counted from one of 16 beginnings, that both orders keep together in sixteens
        found = [
            {begin for begin in range(16) if together((whole[whole // 100 == shard] + begin) // 16)}
            for whole in orders
        ]
        assert found[0] == found[1]
        assert len(found[0]) == 1


def together(runs: np.ndarray) -> bool:
    """Whether equal numbers all lie side by side."""
    return int((np.diff(runs) != 0).sum()) + 1 == len(set(runs.tolist()))


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 5), st.booleans())
def test_groups_are_cut_across_pieces(sizes: list[int], size: int, drop_last: bool) -> None:
    whole = np.arange(2 * sum(sizes)).reshape(-1, 2)
    groups = list(order.grouped(np.split(whole, np.cumsum(sizes)), size, drop_last))
    expected = [whole[first : first + size] for first in range(0, len(whole), size)]
    expected = [group for group in expected if len(group) == size or not drop_last]
    assert [group.tolist() for group in groups] == [group.tolist() for group in expected]


@given(st.lists(st.integers(0, 30), unique=True), st.integers(1, 6))
def test_ranges_are_neighbours_of_one_shard_and_no_longer_than_asked(places: list[int], most: int) -> None:
    sequence = np.array(places, np.int64)
    shards = sequence // 7
    ranges = order.adjacent(sequence, shards, most)
    assert [int(p) for part in ranges for p in part] == places
    for part in ranges:
        assert 1 <= len(part) <= most
        assert (np.diff(part) == 1).all()
        assert len(set((part // 7).tolist())) == 1
    for a, b in itertools.pairwise(ranges):
        assert len(a) == most or b[0] != a[-1] + 1 or a[-1] // 7 != b[0] // 7


@pytest.mark.parametrize("stream", words.Stream)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_words_look_random(seed: int, stream: words.Stream) -> None:
    drawn = words.mixed(seed, 0, stream, np.arange(20000))
    bits = np.unpackbits(drawn.view(np.uint8)).reshape(20000, 64)
    assert len(np.unique(drawn)) == 20000
    # a deviation of 20,000 draws is 0.0035 of a bit's mean and 0.007 of a correlation: five of each
    assert abs(bits.mean(axis=0) - 0.5).max() < 0.018
    assert abs(np.corrcoef(drawn[:-1].astype(float), drawn[1:].astype(float))[0, 1]) < 0.035


@given(st.integers(0, 60), st.integers(1, 7), UNEVEN)
def test_shares_are_equal_and_cover(samples: int, world: int, uneven: str) -> None:
    shares = [order.share(np.arange(samples), rank, world, uneven) for rank in range(world)]
    assert {len(s) for s in shares} == {order.share_size(samples, world, uneven)}
    read = np.concatenate(shares)
    if uneven == DROP:
        assert len(set(read.tolist())) == len(read) >= samples - world + 1
    else:
        assert set(read.tolist()) == set(range(samples))


@given(st.integers(0, 40), st.integers(1, 5), st.integers(1, 4))
def test_workers_batches_in_turn_are_the_sequence(samples: int, workers: int, batch: int) -> None:
    sequence = np.arange(100, 100 + samples)
    own = [order.worker_sequence(sequence, w, workers, batch) for w in range(workers)]
    batches = [[s[i : i + batch] for i in range(0, len(s), batch)] for s in own]
    turns = [b[i] for i in range(max(map(len, batches))) for b in batches if i < len(b)]
    assert np.concatenate([*turns, np.arange(0)]).tolist() == sequence.tolist()
    assert max(map(len, own)) - min(map(len, own)) <= batch
    for worker, whole in enumerate(own):
        for taken in range(len(whole) + 1):
            place = order.worker_place(taken, worker, workers, batch)
            rest = order.worker_sequence(sequence[place:], worker, workers, batch, place)
            assert rest.tolist() == whole[taken:].tolist()


@given(st.integers(1, 40), st.integers(1, 4), UNEVEN, st.data())
def test_resuming_with_the_same_ranks_is_exact(samples: int, world: int, uneven: str, data: st.DataObject) -> None:
    whole = order.epoch_order(np.arange(samples) // 4, 1, 0, 2)
    start = Cursor().at(world)
    uninterrupted = sequences(whole, start, uneven)
    taken = data.draw(st.integers(0, len(uninterrupted[0])))
    again = Cursor.from_json(json.loads(json.dumps(start.taken(taken).to_json()))).at(world)
    assert sequences(whole, again, uneven) == [s[taken:] for s in uninterrupted]


@given(st.integers(1, 60), st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), min_size=1, max_size=4), UNEVEN)
def test_any_history_of_ranks_reads_each_sample_once(
    samples: int, history: list[tuple[int, int]], uneven: str
) -> None:
    whole = order.epoch_order(np.arange(samples) // 4, 1, 0, 2)
    cursor, read = Cursor(), []
    for world, wanted in history:
        cursor = cursor.at(world)
        left = sequences(whole, cursor, uneven)
        taken = min(wanted, len(left[0]))
        read += [sample for s in left for sample in s[:taken]]
        cursor = cursor.taken(taken)
    cursor = cursor.at(1)
    read += sequences(whole, cursor, uneven)[0]
    assert set(read) == set(range(samples))
    if uneven == DROP:
        assert len(read) == samples


def test_the_end_of_an_epoch_is_the_beginning_of_the_next() -> None:
    assert Cursor(4).at(2).taken(9).next_epoch() == Cursor(5)
    assert Cursor(4).at(2).at(3).segments == (Segment(3, 0),)


@pytest.mark.parametrize(
    "state", [{}, {"epoch": 0}, {"epoch": 0, "segments": [[0, 1]]}, {"epoch": -1, "segments": []},
              {"epoch": 0, "segments": 3}, {"epoch": "x", "segments": []},
              {"epoch": 0, "segments": [[2, 1], [1, -1]]}, {"epoch": 0, "segments": [[0, 1], [1, 1]]},
              {"epoch": 0, "round": -1, "segments": []}]
)  # fmt: skip
def test_a_state_that_is_none_is_refused(state: dict[str, object]) -> None:
    with pytest.raises(DatasetError, match="not the state"):
        Cursor.from_json(state)


@pytest.mark.parametrize("segments", [(Segment(2, 6),), (Segment(2, 6), Segment(3, 0))])
def test_more_taken_than_there_is_is_refused(segments: tuple[Segment, ...]) -> None:
    with pytest.raises(DatasetError, match="took 6 samples of its 5"):
        order.rank_sequence(np.arange(10), Cursor(0, segments), 0, REPEAT)
