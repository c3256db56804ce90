"""Epochs of any length and without an end: which samples each rank and worker reads of them, and every position."""

from __future__ import annotations

import json
from itertools import chain, islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.atlas.reader import order
from gaussianverse.atlas.reader.order import Cursor
from gaussianverse.atlas.reader.progress import Progress
from gaussianverse.atlas.reader.route import Route
from gaussianverse.atlas.reader.selection import Selection
from gaussianverse.atlas.reader.weighted import WeightedSelection

Read = list[tuple[int, int]]
WORLDS = st.integers(1, 3)
COUNTS, LENGTHS = st.integers(3, 20), st.integers(3, 50)
"""Numbers of samples, and of samples of an epoch: fewer, equally many, more."""


def selection(count: int, epoch_samples: int | None = None, *, weighted: bool = False) -> Selection:
    """Samples of several shards, of which some are not selected."""
    places = np.arange(count) * 2 + 1
    samples = Selection("digest", places, places // 9, seed=5, window=2, neighbours=3, epoch_samples=epoch_samples)
    weights = np.arange(2.0 * count + 1)
    return WeightedSelection(**vars(samples), column="w", weights=weights) if weighted else samples


def pairs(draws: order.Draws) -> Read:
    return [(place, turn) for place, turn in draws.tolist()]


def progress(samples: Selection, rank: int, world: int, state: object = None, *, infinite: bool = False) -> Progress:
    made = Progress(samples, order.DROP, rank, world, infinite)
    if state is not None:
        made.load_state_dict(json.loads(json.dumps(state)), 1)
    return made


def begin(made: Progress) -> tuple[Route, Read]:
    """A pass, and some of its samples: all, or 100 if there is no end."""
    route = made.begin("key")
    return route, list(islice(chain.from_iterable(map(pairs, route.pieces())), 100))


@given(COUNTS, LENGTHS)
def test_epochs_of_any_length_are_the_rounds_one_after_the_other(count: int, length: int) -> None:
    whole, cut = selection(count), selection(count, length)
    rounds = np.concatenate([whole.epoch(number) for number in range(3 * length // count + 1)])
    assert np.concatenate([cut.epoch(number) for number in range(3)]).tolist() == rounds[: 3 * length].tolist()
    assert len(cut) == length
    for number in range(3 * length // count):
        one = rounds[number * count : (number + 1) * count]
        assert sorted(one[:, 0].tolist()) == whole.places.tolist()
        assert set(one[:, 1].tolist()) == {number}


@given(COUNTS, LENGTHS, st.lists(st.tuples(WORLDS, st.integers(0, 30)), min_size=1, max_size=5), st.booleans())
def test_other_numbers_of_ranks_go_on_in_epochs_of_any_length(
    count: int, length: int, history: list[tuple[int, int]], weighted: bool
) -> None:
    """No sample is read twice in a round, and an epoch loses only what does not divide by the ranks that end it.

    Nor is a draw by weights, which has a turn of its own.
    """
    samples = selection(count, length, weighted=weighted)
    read: Read = []
    state, left, epoch = None, length, 0
    for world, wanted in history:
        ranks = [progress(samples, rank, world, state) for rank in range(world)]
        if left < world:  # fewer than there are ranks now
            left, epoch = length, epoch + 1
        for made in ranks:
            assert made.epoch == epoch
            route, found = begin(made)
            assert len(found) == route.size == left // world
            read += found[:wanted]
            if wanted:
                made.moved(route, min(wanted, len(found)))
        left -= world * min(wanted, left // world)
        if left < world:
            left, epoch = length, epoch + 1
        states = [made.state_dict(1) for made in ranks]
        assert all(state == states[0] for state in states)
        state = states[0]
    assert len(set(read)) == len(read)
    _, rest = begin(progress(samples, 0, 1, state))
    assert len(rest) == left
    both = set(read) | set(rest)
    assert len(both) == len(read) + len(rest)
    assert set(pairs(samples.epoch(epoch))) <= both


@given(COUNTS, WORLDS, st.integers(0, 70), st.integers(0, 25), st.booleans())
def test_an_endless_pass_is_found_again_at_any_sample(
    count: int, world: int, taken: int, more: int, weighted: bool
) -> None:
    samples = selection(count, weighted=weighted)
    for rank in range(world):
        route, whole = begin(progress(samples, rank, world, infinite=True))
        assert route.size is None
        made = progress(samples, rank, world, infinite=True)
        moved = made.begin("key")
        made.moved(moved, taken)
        resumed = progress(samples, rank, world, made.state_dict(1), infinite=True)
        route, rest = begin(resumed)
        assert rest[: 100 - taken] == whole[taken:]
        resumed.moved(route, more)
        _, last = begin(progress(samples, rank, world, resumed.state_dict(1), infinite=True))
        assert last[: 100 - taken - more] == whole[taken + more :]


@given(COUNTS, WORLDS, WORLDS, st.integers(0, 40))
def test_other_numbers_of_ranks_go_on_in_an_endless_pass(count: int, before: int, after: int, taken: int) -> None:
    samples, state = selection(count), {}
    read: Read = []
    for rank in range(before):
        made = progress(samples, rank, before, infinite=True)
        route, found = begin(made)
        made.moved(route, taken)
        read, state = read + found[:taken], made.state_dict(1)
    rest = [begin(progress(samples, rank, after, state, infinite=True))[1] for rank in range(after)]
    size = count // before
    left = (count - taken % size * before) // after
    now = [*chain.from_iterable(found[:left] for found in rest)]
    assert len(set(read + now)) == len(read) + len(now)
    number = taken // size + (left == 0)
    # all of the round that was under way, but for what does not divide
    of_round = set(pairs(samples.epoch(number)))
    assert len(of_round & set(read + now)) > count - after or left == 0
    following = [*chain.from_iterable(found[left:][: count // after] for found in rest)]
    assert set(following) <= set(pairs(samples.epoch(number + (left > 0))))
    assert len(set(following)) == count // after * after


@given(COUNTS, WORLDS, st.integers(1, 4), st.integers(1, 5), st.integers(0, 60), st.booleans())
def test_workers_batches_in_turn_are_the_pass_also_from_any_sample_of_a_worker(
    count: int, workers: int, batch: int, start: int, taken: int, infinite: bool
) -> None:
    made = progress(selection(count), 0, 1, infinite=infinite)
    made.moved(made.begin("old"), start)
    resumed = progress(selection(count), 0, 1, made.state_dict(1), infinite=infinite)
    route, whole = begin(resumed)

    def of_worker(worker: int, taken: int = 0) -> Read:
        pieces = route.pieces(worker, workers, batch, taken)
        return [*islice(chain.from_iterable(map(pairs, pieces)), 200)]

    own = [of_worker(worker) for worker in range(workers)]
    batches = [[read[i : i + batch] for i in range(0, len(read), batch)] for read in own]
    turns = [b[i] for i in range(max(map(len, batches))) for b in batches if i < len(b)]
    assert [*chain(*turns)][: len(whole)] == whole
    for worker, read in enumerate(own):
        assert of_worker(worker, taken)[: 200 - taken] == read[taken:]


def test_an_endless_pass_has_the_epochs_and_others_have_rounds_of_their_own() -> None:
    samples = selection(11)
    made = progress(samples, 0, 1, infinite=True)
    passes = [begin(made)[1] for _ in range(3)]
    assert passes[0] == [*chain(*(pairs(samples.epoch(number)) for number in range(10)))][:100]
    rounds = [tuple(place for place, _ in read[i : i + 11]) for read in passes for i in range(0, 99, 11)]
    assert len(set(rounds)) == len(rounds) == 27
    assert len({turn for read in passes for _, turn in read[:99]}) == 27
    assert made.state_dict(1)["epoch"] == 2


def test_a_state_says_where_a_pass_is_in_its_rounds() -> None:
    made = progress(selection(10), 0, 2, infinite=True)
    made.moved(made.begin("key"), 13)
    assert Cursor.from_json(made.state_dict(1)) == Cursor(0, (order.Segment(2, 3),), 2)
