import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.pipeline.dataset import layout

UIDS = st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True)


@given(st.sampled_from(layout.STAGES), st.integers(0, 10**7), UIDS)
def test_keys_are_parsed_back(stage: str, shard: int, uid: str) -> None:
    assert layout.parse_fragment(layout.fragment(stage, shard, uid)) == (stage, shard, uid)
    assert layout.parse_commit(layout.commit(stage, shard)) == (stage, shard)
    assert layout.fragment(stage, shard, uid).startswith(layout.fragments(stage, shard))


def test_no_two_purposes_share_a_key() -> None:
    keys = [layout.RUN, layout.MANIFEST, *dataset_format.FINAL]
    for stage in layout.STAGES:
        keys += [dataset_format.shard_tar(stage, 0), layout.stats(stage, 0), layout.journal(stage, 0)]
        keys += [layout.commit(stage, 0), layout.fragment(stage, 0, "a"), layout.run_record(stage, 0, "a", "0" * 64)]
    keys.append(layout.moments(0))
    assert len(set(keys)) == len(keys)
    for a in keys:
        assert not any(b.startswith(f"{a}/") for b in keys), "a file and a folder of one name"


@pytest.mark.parametrize("uid", ["a/b", "..", "a.b", "", "a b", "é", "a" * 129])
def test_a_uid_that_would_leave_its_place_is_refused(uid: str) -> None:
    with pytest.raises(ValueError, match="uid"):
        layout.fragment(SPLATS, 0, uid)


def test_unknown_stages_and_negative_shards_are_refused() -> None:
    with pytest.raises(ValueError, match="family"):
        dataset_format.shard_tar("splat", 0)
    with pytest.raises(ValueError, match="negative"):
        layout.moments(-1)


def test_scratch_and_journal_are_no_part_of_the_dataset() -> None:
    assert layout.in_dataset(layout.RUN)
    assert layout.in_dataset(layout.commit(ATLAS, 3))
    for key in (
        layout.fragment(SPLATS, 0, "a"),
        layout.journal(ATLAS, 0),
        dataset_format.SUMS,
        dataset_format.SUCCESS,
    ):
        assert not layout.in_dataset(key)


@pytest.mark.parametrize(
    "key", ["_commits/splats/x.json", "_commits/other/000001.json", "x_commits/splats/1.json", ""]
)
def test_other_keys_are_no_commits(key: str) -> None:
    assert layout.parse_commit(key) is None
