"""`init` writes a file that gives the same configuration, in which every setting is explained."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gaussianverse.fitter import config as fitter_config
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.config import RunConfig, digest_of, load
from gaussianverse.pipeline.ops.init import meanings

PROFILES = sorted(path.stem for path in Path(fitter_config.__file__).parent.glob("profiles/*.toml"))
Captured = pytest.CaptureFixture[str]


def tables(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All tables of a configuration with their names, that of all of them first."""
    yield name, config
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from tables(value, f"{name}.{field.name}".lstrip("."))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_file_gives_the_same_configuration(profile: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    assert cli.main(["init", "--profile", profile, str(file)]) == 0
    before, after = load(profile), load(str(file))
    assert after == before
    assert digest_of(after.identity()) == digest_of(before.identity())


def test_an_overridden_value_is_in_the_file_and_a_file_can_be_the_profile(tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    texts = ["store.region='a\"b\\\\c é'", "fit.growth.cells=[8, 2]", "fit.rates.means=[1e-9, 0.0]"]
    options = [word for text in texts for word in ("--set", text)]
    assert cli.main(["init", "--profile", "cpu", *options, str(one)]) == 0
    assert cli.main(["init", "--profile", str(one), str(other)]) == 0
    assert load(str(other)) == load("cpu", texts) != load("cpu")


def test_every_setting_stands_in_the_file_below_its_meaning_and_its_default(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    assert cli.main(["init", str(file)]) == 0
    text = file.read_text()
    assert max(map(len, text.splitlines())) <= 100
    read, blocks = tomllib.loads(text), text.split("\n\n")
    for name, table in tables(RunConfig()):
        found: Any = read
        for part in filter(None, name.split(".")):
            found = found[part]
        for field in dataclasses.fields(table):
            assert field.name in found
            if dataclasses.is_dataclass(getattr(table, field.name)):
                continue
            meaning = meanings(type(table))[field.name]
            assert len(meaning) > 10
            default = json.dumps(getattr(table, field.name))
            shown = [" ".join(block.replace("\n# ", " ").split()) for block in blocks]
            # tomllib and json write 1e-05 and 0.0001 alike, but for the spelling
            assert any(block.startswith(f"# {meaning} Default: ") and f"\n{field.name} = " in raw
                       for block, raw in zip(shown, blocks, strict=True)), (name, field.name)  # fmt: skip
            if isinstance(getattr(table, field.name), bool | int | str):
                assert any(f"# {meaning} Default: {default} {field.name} = " in block for block in shown)


def test_numbers_have_a_range() -> None:
    words = ("at least", "0 to ", "8 to ", "above 0", "0 = ", "1 is refused", "-1 = ", "seed")
    for name, table in tables(RunConfig()):
        for field in dataclasses.fields(table):
            value = getattr(table, field.name)
            if isinstance(value, int | float | tuple) and not isinstance(value, bool):
                meaning = meanings(type(table))[field.name]
                assert any(word in meaning.replace("Seed", "seed") for word in words), (name, field.name, meaning)


def test_a_file_that_is_there_stays(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quick.toml").write_text("mine")
    assert cli.main(["init"]) == 2
    assert Path("quick.toml").read_text() == "mine"
    assert capsys.readouterr().err == "error: quick.toml is there and stays as it is; name another file\n"
    assert cli.main(["init", "--profile", "cpu"]) == 0
    assert capsys.readouterr().out == "Written: cpu.toml. Change it, and pass it as --profile cpu.toml\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--profile", "fastest"], "no profile 'fastest'"),
        (["--set", "fit.stepz=3"], "stepz"),
        (["--set", "fit.steps=0"], "steps"),
        (["none/mine.toml"], "none/mine.toml: No such file or directory; name a file in a folder"),
    ],
)
def test_a_wrong_profile_or_value_writes_nothing(
    arguments: list[str], said: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", *arguments]) == 1
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
