from typing import Any

import pyarrow as pa

from gaussianverse.pipeline.dataset.card import card_of
from gaussianverse.pipeline.dataset.metadata import Totals
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import METADATA, row

INDEX = {"size": 128, "shards": [{}, {}], "channels": ["offset_x", "opacity"]}
RUN = Run({"schema_version": 2, "config_digest": "d" * 64, "config": {"fit": {}, "run": {"seed": 0}}})


def card(*rows: dict[str, Any]) -> str:
    totals = Totals()
    totals.add(pa.Table.from_pylist([row(METADATA, r) for r in rows], schema=METADATA))
    return card_of(RUN, totals, INDEX)


def good(**fields: Any) -> dict[str, Any]:
    return {
        "status": "ok", "license": "CC0-1.0", "psnr": 30.0, "ssim": 0.9, "smoothness": 0.95, "n_gaussians": 100,
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
    assert "| PSNR on white (held-out views) | median 30.00 dB, 30.00 to 34.00 |" in text


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


def test_a_licence_cannot_break_the_table() -> None:
    assert "| a/b | 1 |" in card(good(license="a|b"))


def test_braces_in_texts_are_harmless() -> None:
    assert "| {psnr} | 1 |" in card(good(license="{psnr}"))
