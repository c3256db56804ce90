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
from pipeline_runs import until
from playwright.sync_api import Browser, Page, sync_playwright

from gaussianverse.atlas.dataset_format import SPLATS
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.fitter.comparison import drawn
from gaussianverse.fitter.turntable import turntable
from gaussianverse.pipeline.dataset.shards import read_record

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
