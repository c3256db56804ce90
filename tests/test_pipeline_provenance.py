"""The digest of the product's sources covers every file that can change a byte of a dataset."""

from importlib.resources import files
from pathlib import Path

import pytest

from gaussianverse.pipeline.dataset import provenance

NO_PART = {".so", ".md", ".txt", ".json", ".jsonl", ".png", ".js", ".html", ".css"}
"""Compiled from sources, texts, prices of `plan`, the renders of the sample, and the page of `report`."""


def test_every_kind_of_file_in_the_rooms_is_counted_or_known_to_decide_nothing() -> None:
    for room in provenance._ROOMS:
        counted = {name for name, _ in provenance._sources(files(f"gaussianverse.{room}"), room)}
        root = Path(str(files(f"gaussianverse.{room}")))
        for path in root.rglob("*"):
            if path.is_file() and path.suffix not in NO_PART and path.parent.name != "__pycache__":
                assert f"{room}/{path.relative_to(root)}" in counted, path


@pytest.mark.parametrize(
    ("room", "name"),
    [
        ("fitter", "fitter/native/src/blend.cpp"), ("fitter", "fitter/native/src/lanes.h"),
        ("fitter", "fitter/profiles/quick.toml"), ("atlas", "atlas/packing.py"),
        ("pipeline", "pipeline/run/tasks.py"),
    ],
)  # fmt: skip
def test_a_changed_source_changes_the_digest(room: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, sources = provenance.code_digest.__wrapped__(), provenance._sources

    def changed(folder: object, path: str) -> list[tuple[str, bytes]]:
        return [(n, data + b" " if n == name else data) for n, data in sources(folder, path)]  # type: ignore[arg-type]

    monkeypatch.setattr(provenance, "_sources", changed)
    assert provenance.code_digest.__wrapped__() != before
