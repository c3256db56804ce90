"""The dataset card: its numbers, who is to be credited, what made it, and that foreign text is only text in it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_pages import Page, page_of

from gaussianverse.atlas.dataset_format import ATLAS, SPLATS
from gaussianverse.escape import one_line
from gaussianverse.pipeline.dataset import card as cards
from gaussianverse.pipeline.dataset import metadata
from gaussianverse.pipeline.dataset.card import card_of
from gaussianverse.pipeline.dataset.metadata import Totals
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import METADATA, row
from gaussianverse.pipeline.dataset.versions import Version

INDEX = {"size": 128, "shards": [{}, {}], "channels": ["offset_x", "opacity"]}
HERE = {"gaussianverse": "0.3.0", "numpy": "2.4.0", "gsplat": ""}
RUN = Run(
    {
        "schema_version": 2, "config_digest": "d" * 64, "config": {"fit": {}, "run": {"seed": 0}},
        "versions": HERE, "code_digest": "c" * 64,
    }
)  # fmt: skip
OWN = {"code_digest": "c" * 64, "versions": "gaussianverse 0.3.0, numpy 2.4.0", "objects": 3}
OTHER = {"code_digest": "e" * 64, "versions": "gaussianverse 0.3.0, numpy 2.1.0", "objects": 2}


def card(*rows: dict[str, Any], commits: Any = None) -> str:
    totals = Totals()
    totals.add(pa.Table.from_pylist([row(METADATA, r) for r in rows], schema=METADATA))
    return card_of(Version(RUN, (RUN,), range(2)), totals, INDEX, commits or {})


def rendered(text: str) -> Page:
    """The card's page, without its front matter."""
    assert text.startswith("---\n")
    return page_of(text.split("\n---\n", 1)[1])


def tables(text: str) -> dict[str, list[list[str]]]:
    """Rows below each table's head, by the head's first cell."""
    return {head[0]: rows for head, *rows in rendered(text).tables}


def good(**fields: Any) -> dict[str, Any]:
    return {
        "status": "ok", "license": "CC0-1.0", "psnr": 30.0, "ssim": 0.9, "smoothness": 0.95, "n_gaussians": 100,
        "atlas_heldout_psnr": 29.0,
        "atlas_psnr": 99.0, "metrics_on": "heldout", **fields,
    }  # fmt: skip


def test_it_counts_objects_licences_and_reasons() -> None:
    lost = {"status": "quarantined", "reason": "low_psnr", "license": "CC-BY-4.0"}
    text = card(good(), good(psnr=34.0), good(license=""), lost, lost)
    assert "Gaussian atlases of 3 objects" in text
    assert "| objects in the manifest | 5 |" in text
    assert "| CC0-1.0 | 2 |" in text
    assert "| not stated | 1 |" in text
    assert "CC-BY-4.0" not in text, "only objects that are here have a licence here"
    assert "| low_psnr | 2 |" in text
    assert "| PSNR of the fit on white (held-out views) | median 30.00 dB, 30.00 to 34.00 |" in text
    assert "| PSNR of the atlas on white (held-out views) | median 29.00 dB, 29.00 to 29.00 |" in text


def test_the_front_matter_names_the_files_of_both_configurations() -> None:
    head = card(good()).split("---")[1]
    assert "data_files: atlas/*.tar" in head
    assert "data_files: splats/*.tar" in head


def test_metrics_on_training_views_are_not_called_held_out() -> None:
    text = card(good(), good(metrics_on="train"))
    assert "training views" in text
    assert "held-out views" not in text


def test_nothing_quarantined_is_said() -> None:
    assert "None." in card(good())


TEXTS = st.text(max_size=40) | st.text(alphabet="|<>&`*_[]()!#-\\\n\r\u202e\x1b {}:script", max_size=40)


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=4))
def test_whatever_the_manifest_says_is_only_text_in_the_card(objects: list[tuple[str, str, str]]) -> None:
    """Licence, attribution and caption of each object."""
    plain = card(*(good(license=f"L{k}", attribution=f"A{k}") for k in range(len(objects))))
    text = card(*(good(license=a, attribution=b, caption=c) for a, b, c in objects))
    assert text.split("\n---\n")[0] == plain.split("\n---\n")[0]
    shown, expected = rendered(text), rendered(plain)
    assert set(shown.elements) <= set(expected.elements)
    assert shown.attributes == expected.attributes
    found = tables(text)
    assert {row[0] for row in found["licence"]} == {one_line(a) or "not stated" for a, _, _ in objects}
    credits = {(one_line(b), one_line(a) or "not stated") for a, b, _ in objects if b}
    assert {(row[0], row[1]) for row in found.get("author, title and source", [])} == credits


def test_the_front_matter_is_yaml_that_no_object_changes() -> None:
    text = card(good(license="---\nlicense: mit\n---", attribution="---\n"))
    head = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert (head["license"], head["license_name"]) == ("other", "per-object")
    assert [config["data_files"] for config in head["configs"]] == ["atlas/*.tar", "splats/*.tar"]


def test_credits_are_grouped_and_counted_with_their_licences() -> None:
    ann, bob = "Ann: Chair, https://x.org/1", "Bob: Table"
    rows = [
        good(attribution=bob, license="CC-BY-4.0"),
        *(good(attribution=ann, license=x) for x in ("", "MIT", "MIT")),
    ]
    lost = {"status": "quarantined", "reason": "low_psnr", "attribution": "Carl"}
    text = card(*rows, good(), lost)
    assert tables(text)["author, title and source"] == [
        [ann, "MIT", "2"], [ann, "not stated", "1"], [bob, "CC-BY-4.0", "1"],
    ]  # fmt: skip
    assert "Carl" not in text, "only objects that are here ask for credit here"
    assert "These are the first" not in text
    assert "The manifest names none." in card(good(), lost)


def test_credits_are_bounded_and_the_card_says_where_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "MAX_CREDITS", 3)
    text = card(*(good(attribution=f"author {k % 5}") for k in range(12)))
    assert [row[0] for row in tables(text)["author, title and source"]] == ["author 0", "author 1", "author 2"]
    assert "These are the first 3. 4 more objects have another, in that column." in text
    assert metadata.Credits().counts == {}


def test_licences_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "MAX_LICENCES", 2)
    text = card(*(good(license=f"L{k}") for k in (0, 0, 1, 1, 2, 3, 3, 3)))
    assert tables(text)["licence"] == [["L3", "3"], ["L0", "2"]]
    assert "3 more objects have one of 2 other licences." in text


def test_a_long_text_is_cut() -> None:
    shown = tables(card(good(license="L" * 4096)))["licence"][0][0]
    assert shown == "L" * cards.MAX_TEXT + " ... (4096 characters)"


def test_it_says_what_made_it_and_names_the_shards_that_others_made() -> None:
    commits = {(family, k): {"made_with": [OWN]} for family in (SPLATS, ATLAS) for k in range(6)}
    found = tables(card(good(), commits=commits))
    assert found["digest of the code"] == [["c" * 64, "gaussianverse 0.3.0, numpy 2.4.0"]]
    assert "family" not in found
    commits |= {(SPLATS, k): {"made_with": [OWN, OTHER]} for k in (0, 3, 4)}
    commits[ATLAS, 5] = {"made_with": [{**OTHER, "code_digest": "c" * 64}]}
    assert tables(card(good(), commits=commits))["family"] == [
        ["splats", "0,3-4", "6", "e" * 64, "gaussianverse 0.3.0, numpy 2.1.0"],
        ["atlas", "5", "2", "c" * 64, "gaussianverse 0.3.0, numpy 2.1.0"],
    ]


def test_a_run_that_does_not_say_what_made_it_has_a_card() -> None:
    old = {("splats", 0): {}}
    assert "family" not in tables(card(good(), commits=old))
