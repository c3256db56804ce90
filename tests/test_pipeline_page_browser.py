"""The page of `report` in a real browser: chromium of the system, with WebGL in software."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from page_outputs import FOREIGN, UIDS, built, rows_of
from PIL import Image
from pipeline_runs import data_of, planned, publish_one, until
from playwright.sync_api import Browser, Page, sync_playwright

from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.fitter.comparison import drawn
from gaussianverse.fitter.turntable import turntable
from gaussianverse.pipeline import cli
from gaussianverse.pipeline.dataset import pack, records
from gaussianverse.pipeline.dataset.layout import STAGES
from gaussianverse.pipeline.dataset.manifest_rows import shard_rows
from gaussianverse.pipeline.dataset.shards import read_record
from gaussianverse.pipeline.ops.page.objects import NUMBERS, WORST_ARE_HIGHEST

SIDE = 400
"""Pixels of the canvas."""
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("inputs")) / "out"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(out: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(out / "report"))) as listening:
        Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, out: Path, server: str) -> str:
    """Address of the page's folder."""
    return (out / "report").as_uri() if request.param == "file" else server


@pytest.fixture
def page(browser: Browser, place: str) -> Iterator[Page]:
    """A tab in which nothing may go wrong, and nothing may come from elsewhere."""
    page, complaints = browser.new_page(viewport={"width": 1000, "height": 800}), list[str]()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((place, "blob:", "data:")) else complaints.append(f"fetched {request.url}")
        ),
    )
    yield page
    page.close()
    assert complaints == []


def shown(page: Page) -> list[str]:
    return page.locator(".cell b").all_inner_texts()


def test_the_gallery_searches_filters_and_sorts(page: Page, place: str, out: Path) -> None:
    page.goto(f"{place}/index.html")
    assert shown(page) == UIDS
    assert page.locator(".cell").first.get_attribute("title") == FOREIGN
    page.fill("#search", "B")
    assert shown(page) == ["b"]
    assert page.locator("#count").inner_text() == "1 of 4 objects"
    page.fill("#search", "img SRC")
    assert shown(page) == UIDS, "captions are searched"
    page.fill("#search", "")
    rows = sorted(rows_of(out / "report"), key=lambda row: float(row["psnr"]))
    page.select_option("#order", "psnr")
    assert shown(page) == [row["uid"] for row in rows]
    page.select_option("#direction", "-1")
    assert shown(page) == [row["uid"] for row in reversed(rows)]
    page.select_option("#column", "psnr")
    page.fill("#low", str(rows[2]["psnr"]))
    assert shown(page) == [rows[3]["uid"], rows[2]["uid"]]
    page.locator(".cell").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/objects/{rows[3]['uid']}.html")


def test_the_worst_and_the_best_by_any_metric_are_one_click_away(page: Page, place: str, out: Path) -> None:
    page.goto(f"{place}/index.html")
    rows = rows_of(out / "report")
    for name, title in NUMBERS.items():
        values = {row["uid"]: float(row[name]) for row in rows}
        for which, falling in (("worst", name in WORST_ARE_HIGHEST), ("best", name not in WORST_ARE_HIGHEST)):
            page.get_by_role("button", name=f"The {which} by {title}", exact=True).click()
            assert [values[uid] for uid in shown(page)] == sorted(values.values(), reverse=falling)
            assert page.locator("#order").input_value() == name


HOSTILE = "line one\n<b onclick=alert(1)>two</b> \x1b[31m" + "x" * 400


@pytest.fixture(scope="module")
def quarantined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an output with objects that were given up, for a reason that is a text of others."""
    folder = tmp_path_factory.mktemp("quarantined") / "out"
    storage = LocalStorage(folder)
    run = planned(storage, ["a", "b", "c"])
    for stage in STAGES:
        for row in shard_rows(storage, run, 0):
            given = {**row, "shard": 0}
            if row["uid"] == "a":
                publish_one(storage, run, stage, given, data=data_of(stage, "a"))
            else:
                why = {"reason": "low_psnr", "error_class": "LowPsnr", "error_message": f"{row['uid']}: {HOSTILE}"}
                records.publish_quarantine(storage, stage, given, run, why, records.Stopwatch(1))
        pack.pack(storage, run, stage, 0)
    assert cli.main(["report", "--out", str(folder)]) == 0
    return folder / "report"


def test_the_quarantined_are_shown_with_their_reasons_and_messages(browser: Browser, quarantined: Path) -> None:
    page, complaints = browser.new_page(viewport={"width": 1000, "height": 800}), list[str]()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.goto((quarantined / "index.html").as_uri())
    assert page.locator("table", has_text="low_psnr").locator("td").all_inner_texts() == ["low_psnr", "2"]
    assert page.locator(".cell", has_text="low_psnr").locator("b").all_inner_texts() == ["b", "c"]
    page.select_option("#column", "status")
    page.fill("#contains", "quarantined")
    assert shown(page) == ["b", "c"]
    page.select_option("#column", "error_message")
    page.fill("#contains", "C: LINE")
    assert shown(page) == ["c"]
    page.locator(".cell").click()
    facts = page.locator("#facts")
    assert facts.is_visible()
    message = facts.locator("tr", has_text="message").locator("td").inner_text()
    assert message.startswith("c: line one")
    assert "<b onclick=alert(1)>two</b>" in message
    assert "x" * 50 in message
    assert page.locator("b[onclick]").count() == 0
    box = page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert box, "a long word makes the page no wider"
    facts.get_by_role("button", name="Close").click()
    page.close()
    assert complaints == []


def test_of_many_objects_only_those_in_sight_are_in_the_document(browser: Browser, out: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(out / "report", tmp_path / "report")
    (script,) = (folder / "files").glob("objects-*.js")
    row = json.loads(script.read_text().removeprefix("gallery.add(").removesuffix(");\n"))[0]
    script.write_text(f"gallery.add({json.dumps([[f'object-{k:05d}', *row[1:]] for k in range(10_000)])});\n")
    tab = browser.new_page(viewport={"width": 1000, "height": 800})
    tab.goto((folder / "index.html").as_uri())
    assert tab.locator("#count").inner_text() == "10000 of 10000 objects"
    assert 10 < len(shown(tab)) < 100
    tab.evaluate("document.getElementById('view').scrollTop = 1e9")
    tab.locator(".cell b", has_text="object-09999").wait_for()
    assert 10 < len(shown(tab)) < 100
    assert shown(tab) == sorted(shown(tab))
    tab.close()


def test_an_object_is_drawn_as_our_rasteriser_draws_it_and_turns(page: Page, place: str, out: Path) -> None:
    page.goto(f"{place}/files/objects/b.html")
    record = read_record(LocalStorage(out), SPLATS, 0, "b")
    gaussians = Gaussians.from_bytes(record.main(SPLATS))
    expected = drawn(turntable(gaussians, 1, SIDE), [gaussians])[1][0].astype(np.float64)
    assert psnr(np.full_like(expected, 255.0), expected) < 20, "a blank canvas does not pass"
    # on whole pixels
    place_at = f"position: fixed; top: 0; left: 0; z-index: 1; border: 0; border-radius: 0; width: {SIDE}px"
    page.evaluate("style => { document.getElementById('splat').style = style; }", place_at)
    until(lambda: psnr(canvas(page), expected) >= 25)
    page.locator("#splat").focus()
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    until(lambda: psnr(canvas(page), expected) < 25)


def canvas(page: Page) -> np.ndarray:
    image = Image.open(BytesIO(page.screenshot(clip={"x": 0, "y": 0, "width": SIDE, "height": SIDE})))
    return np.asarray(image.convert("RGB"), np.float64)


def psnr(image: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(image - expected).mean(), 1e-9)))
