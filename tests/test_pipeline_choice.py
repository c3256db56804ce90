"""The objects of a part: conditions as texts, splits, lists, and draws that come out the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reader_datasets import publish_dataset

from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.catalogue import Catalogue
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.pipeline.errors import UsageError
from gaussianverse.pipeline.ops.choice import Choice, parse_filter, read_uids

UIDS = [f"o{i:02d}" for i in range(30)]
LOST = "o03"
CATEGORIES = ("Food", "Plants, small", "in")


def fields(i: int) -> dict[str, Any]:
    extras = {"score": 0.5 * i, "rank": i, "good": i % 2 == 0, "note": "x in y" if i == 5 else ""}
    return {"category": CATEGORIES[i % 7 % 3], "split": ("train", "val")[i % 5 == 0], "extras": extras}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    root = publish_dataset(
        tmp_path_factory.mktemp("set"), UIDS, shard_size=8, quarantined=frozenset({LOST}),
        fields={uid: fields(i) for i, uid in enumerate(UIDS)},
    )  # fmt: skip
    return Catalogue(LocalStorage(root))


def numbers(catalogue: Catalogue, choice: Choice) -> list[int]:
    return [int(uid[1:]) for uid in catalogue.uids(choice.places(catalogue))]


ALL = [i for i in range(30) if i != 3]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["psnr>=45"], [25, 26, 27, 28, 29]),
        (["psnr > 45", "psnr<=48"], [26, 27, 28]),
        (["rank=7"], [7]),
        (["rank == 7"], [7]),
        (["rank != 7"], [i for i in ALL if i != 7]),
        (["rank in 7, 9,3"], [7, 9]),
        (["rank not in 0,1,2", "rank<6"], [4, 5]),
        (["score<1.25"], [0, 1, 2]),
        (["score < 1"], [0, 1]),
        (["good = true", "rank<6"], [0, 2, 4]),
        (["good!=TRUE", "rank<6"], [1, 5]),
        (["license in CC0-1.0,CC-BY-4.0", "rank<6"], [0, 1, 4]),
        (["license  not   in CC0-1.0,CC-BY-4.0", "rank<6"], [2, 5]),
        (['category in "Plants, small",Food', "rank<6"], [0, 1, 4]),
        (["category = Plants, small", "rank<6"], [1, 4]),
        (["category == in", "rank<6"], [2, 5]),
        (["category='in'", "rank<6"], [2, 5]),
        (["note == x in y"], [5]),
        (['note = "x in y"'], [5]),
        (["uid>=o28"], [28, 29]),
    ],
)
def test_conditions(catalogue: Catalogue, texts: list[str], expected: list[int]) -> None:
    assert numbers(catalogue, Choice(filters=tuple(texts))) == expected


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("psnr", UsageError, "filter 'psnr': expected COLUMN OPERATOR VALUE"),
        ("", UsageError, "expected COLUMN OPERATOR VALUE"),
        (">=30", UsageError, "expected COLUMN OPERATOR VALUE"),
        ("psnr in ", UsageError, "expected COLUMN OPERATOR VALUE"),
        ("psnr in 1,,2", UsageError, "expected COLUMN OPERATOR VALUE"),
        ("psnr >= ", UsageError, "'' is no number"),
        ("psnr>=high", UsageError, "filter 'psnr>=high': 'high' is no number"),
        ("rank in 1,two", UsageError, "'two' is no number"),
        ("good=1", UsageError, "'1' is neither true nor false"),
        ("quality>3", DatasetError, "has no column quality; it has index, uid"),
        ("psnr>nan", DatasetError, "no value compares with nan"),
        ("captions=x", UsageError, "a column of lists"),
        ('note in "x', UsageError, "unexpected end of data"),
        ("rank>1e400", DatasetError, "none of 29 samples passes"),
    ],
)
def test_conditions_that_are_refused(catalogue: Catalogue, text: str, error: type, words: str) -> None:
    with pytest.raises(error) as found:
        Choice(filters=(text,)).places(catalogue)
    assert words in str(found.value)


@given(st.text(max_size=12) | st.text(alphabet="psnr in=<>!,'\"\n0.x", max_size=20))
def test_any_text_is_a_condition_or_a_named_error(catalogue: Catalogue, text: str) -> None:
    for whole in (text, f"psnr{text}", f"note {text}", f"good={text}"):
        try:
            name, operator, _ = parse_filter(whole, catalogue)
        except (UsageError, DatasetError):
            continue
        assert catalogue.has_column(name)
        assert operator in ("==", "!=", "<", "<=", ">", ">=", "in", "not in")


def test_a_split_and_a_list(catalogue: Catalogue) -> None:
    assert numbers(catalogue, Choice(split="val")) == [0, 5, 10, 15, 20, 25]
    assert numbers(catalogue, Choice(split="val", uids=("o25", "o04", "o05"))) == [5, 25]


def test_a_quarantined_object_is_named_with_its_reason(catalogue: Catalogue) -> None:
    with pytest.raises(DatasetError, match=f"{LOST}: it was quarantined: bad_input"):
        Choice(uids=("o01", LOST)).places(catalogue)
    with pytest.raises(DatasetError, match="nobody: no such object"):
        Choice(uids=("nobody",)).places(catalogue)


def test_draws_are_of_the_seed_and_the_uids_alone(catalogue: Catalogue) -> None:
    drawn = [numbers(catalogue, Choice(count=10, seed=seed)) for seed in range(8)]
    assert all(len(one) == 10 and one == sorted(set(one)) for one in drawn)
    assert drawn == [numbers(catalogue, Choice(count=10, seed=seed)) for seed in range(8)]
    assert len({tuple(one) for one in drawn}) == 8
    assert {i for one in drawn for i in one} == set(ALL), "every object can be drawn"


def test_a_draw_from_fewer_objects_keeps_those_that_were_drawn(catalogue: Catalogue) -> None:
    """So a dataset that grew, or lost some, gives much the same subset."""
    for seed in range(5):
        drawn = set(numbers(catalogue, Choice(count=10, seed=seed)))
        fewer = set(numbers(catalogue, Choice(count=10, seed=seed, filters=("rank<20",))))
        assert {i for i in drawn if i < 20} <= fewer


def test_more_than_there_are_is_all(catalogue: Catalogue) -> None:
    assert numbers(catalogue, Choice(count=99)) == ALL
    assert numbers(catalogue, Choice(per_category=99)) == ALL


def test_so_many_of_each_category(catalogue: Catalogue) -> None:
    for seed in range(5):
        found = numbers(catalogue, Choice(per_category=2, seed=seed))
        kinds = [CATEGORIES[i % 7 % 3] for i in found]
        assert [kinds.count(name) for name in CATEGORIES] == [2, 2, 2]
        assert found == sorted(found)
    few = numbers(catalogue, Choice(per_category=3, filters=("category == Food",), count=2))
    assert len(few) == 2
    assert {CATEGORIES[i % 7 % 3] for i in few} == {"Food"}


@pytest.mark.parametrize("wrong", [{"per_category": -1}, {"count": -3}, {"per_category": 0}, {"count": 0}])
def test_numbers_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected at least 1"):
        Choice(**wrong)  # type: ignore[arg-type]


def test_it_says_what_it_is() -> None:
    choice = Choice(("psnr>=30", "license  in a,b"), "val", ("x", "y"), 3, 20, 7)
    assert choice.words() == [
        "psnr>=30", "license in a,b", "split val", "a list of 2 uids",
        "at most 3 of each category, drawn with seed 7", "at most 20 objects, drawn with seed 7",
    ]  # fmt: skip
    assert Choice().words() == []


def test_a_file_of_uids(tmp_path: Path) -> None:
    path = tmp_path / "uids.txt"
    path.write_bytes(b"\xef\xbb\xbfo01\r\n\r\n  o02 \no05")
    assert read_uids(path) == ["o01", "o02", "o05"]
    for content, words in ((b"\n \n", "no uids"), (b"\xff\xfe\x00", "cannot be read")):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=words):
            read_uids(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_uids(tmp_path / "none.txt")
