from pathlib import Path

import pytest

from gaussianverse.atlas.configuration import ConfigError, from_table
from gaussianverse.pipeline.config import RunConfig, digest_of, load


def test_a_profile_with_overrides() -> None:
    config = load("test", ["fit.steps=7", "fit.loss.l1=1", "ray.workers=2", "store.region=eu-west-1", "run.seed=3"])
    assert (config.fit.steps, config.fit.loss.l1, config.ray.workers) == (7, 1.0, 2)
    assert (config.store.region, config.run.seed, config.fit.size) == ("eu-west-1", 3, 64)


@pytest.mark.parametrize("profile", ["cpu", "quick", "fixed", "unbounded", "test", "fast", "paper"])
def test_every_profile_that_ships_loads(profile: str) -> None:
    config = load(profile)
    assert config.gpus_per_fit == (1.0 if profile in ("fast", "paper") else 0.0)


@pytest.mark.parametrize(
    ("backend", "asked", "gpus"),
    [
        ("gsplat", -1, 1.0),
        ("gsplat", 0, 0.0),
        ("gsplat", 0.25, 0.25),
        ("cpu", -1, 0.0),
        ("cpu", 0, 0.0),
        ("cpu", 2, 2.0),
    ],
)
def test_a_fit_asks_for_the_gpus_that_it_is_told_to_and_none_is_a_number(
    backend: str, asked: float, gpus: float
) -> None:
    assert load("test", [f"fit.backend={backend}", f"ray.gpus_per_fit={asked}"]).gpus_per_fit == gpus


def test_all_tables_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        "[fit]\nsteps = 5\n[atlas]\nsize = 32\n[run]\nshard_size = 4\n[ray]\nworkers = 1\n[policy]\nkills = 2\n"
        '[store]\nendpoint_url = "http://127.0.0.1:1"\n'
    )
    config = load(str(path))
    assert (config.atlas.size, config.run.shard_size, config.policy.kills) == (32, 4, 2)


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("fit.no_such=1", "no_such"), ("nothing.x=1", "nothing"), ("fit.steps", "section.key=value"),
        ("steps=1", "section.key=value"), ("fit.steps=many", "steps"), ("fit.steps=0", "steps"),
        ("run.shard_size=0", "shard_size"), ("ray.workers=-1", "workers"), ("policy.kills=true", "kills"),
        ("fit.steps.x=1", "not a table"), ("ray.address=1", "address"), ("fit.loss=3", "loss"),
    ],
)  # fmt: skip
def test_faults_name_the_field(override: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        load("test", [override])


@pytest.mark.parametrize(
    "override", ["run.shard_size=1", "ray.workers=0", "ray.max_calls=1", "ray.object_store_mb=80"]
)
def test_the_least_that_is_allowed(override: str) -> None:
    load("test", [override])


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["run.views=-1"], "run.views"), (["run.views=100"], "run.views"), (["run.views_size=64"], "views_size"),
        (["run.views=2", "run.views_size=-1"], "views_size"), (["ray.max_calls=0"], "max_calls"),
        (["ray.object_store_mb=79"], "object_store_mb"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(overrides: list[str], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        load("test", overrides)


def test_spaces_about_an_override_do_not_matter() -> None:
    config = load("test", [" fit.steps = 7 ", "store.region= eu-west-1 "])
    assert (config.fit.steps, config.store.region) == (7, "eu-west-1")


def test_a_run_without_views_has_the_identity_that_it_had_before_there_were_any() -> None:
    assert load("test").identity()["run"] == {"shard_size": 256, "seed": 0}
    seen = load("test", ["run.views=2"]).identity()["run"]
    assert seen == {"shard_size": 256, "seed": 0, "views": 2, "views_size": 0}


def test_the_papers_rule_of_reduction_is_what_runs_had_before_there_was_another() -> None:
    """It is the default, and no part of their identity; the profiles of production name theirs, which is one."""
    assert "reduce" not in load("paper").identity()
    for profile in ("quick", "cpu", "fast", "test"):
        assert load(profile).identity()["reduce"] == {"rule": "refine"}
        assert "reduce" not in load(profile, ["reduce.rule=scale"]).identity()
    with pytest.raises(ConfigError, match=r"reduce\.rule is 'smallest', expected one of refine, contribution, scale"):
        load("test", ["reduce.rule=smallest"])


def test_the_order_of_tables_does_not_change_the_digest() -> None:
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})


def test_only_what_decides_the_bytes_is_identity() -> None:
    def digest(*overrides: str) -> str:
        return digest_of(load("test", overrides).identity())

    assert digest() == digest("ray.workers=7", "policy.kills=9", "store.region=x")
    assert len({digest(), digest("fit.steps=161"), digest("atlas.size=64"), digest("run.seed=1")}) == 4
    assert len({digest(f"reduce.rule={rule}") for rule in ("refine", "contribution", "scale")}) == 3


def test_the_identity_can_be_read_back() -> None:
    config = load("cpu")
    assert from_table(RunConfig, config.identity()).fit == config.fit
