"""Take the pictures of README and `docs/report.md`: pages of an output and of one object, in the system's chromium.

python docs/pictures/page.py OUT/report UID docs/pictures        page.png, page-object.png
python docs/pictures/page.py OUT/report UID docs/pictures run    run-counts.png (as Fig. 2d of the paper),
                                                                 run-gallery.png, run-splat.png, run-error.png
"""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

_WIDTH, _HEIGHT = 1120, 1180
_SETTLED_MS = 8000  # WebGL in software takes seconds for its first picture
_COLORS = 256
"""Of a PNG's palette, by which a page with many renders stays below 300 kB."""


def whole_pages(tab: Page, page: Path, uid: str, to: Path) -> None:
    """Write page.png and page-object.png."""
    for address, name in (("index.html", "page.png"), (f"files/objects/{uid}.html", "page-object.png")):
        opened(tab, page / address)
        tab.screenshot(path=to / name)


def parts(tab: Page, page: Path, uid: str, to: Path) -> None:
    """Write pictures of parts: the histogram of Gaussians per object, the gallery, a splat and its error map."""
    opened(tab, page / "index.html")
    kept(tab.locator(".chart", has=tab.get_by_role("heading", name="Gaussians", exact=True)), to / "run-counts.png")
    kept(tab.locator("#view"), to / "run-gallery.png")
    opened(tab, page / f"files/objects/{uid}.html")
    kept(tab.locator("#splat"), to / "run-splat.png")
    errors = tab.locator("figure", has_text="Error of the atlas").locator("img")
    kept(errors, to / "run-error.png")


def opened(tab: Page, path: Path) -> None:
    """Open a page and wait until it is drawn."""
    tab.goto(path.resolve().as_uri())
    tab.wait_for_timeout(_SETTLED_MS)


def kept(part: Locator, path: Path) -> None:
    """Write a picture of a part of a page with few colours."""
    image = Image.open(BytesIO(part.screenshot())).convert("RGB")
    image.quantize(_COLORS, dither=Image.Dither.NONE).save(path, optimize=True)


def main(page: Path, uid: str, to: Path, take: str = "") -> None:
    """Take the pictures."""
    with sync_playwright() as playwright:
        arguments = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        size = {"width": _WIDTH, "height": _HEIGHT}
        tab = browser.new_page(viewport=size, color_scheme="light")
        (parts if take == "run" else whole_pages)(tab, page, uid, to)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
