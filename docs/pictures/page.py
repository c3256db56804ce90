"""Take the pictures of `docs/report.md`: the page of an output, and that of one object, in the system's chromium.

python docs/pictures/page.py OUT/report UID docs/pictures
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

_WIDTH, _HEIGHT = 1120, 1180
_SETTLED_MS = 8000  # WebGL in software takes seconds for its first picture


def main(page: Path, uid: str, to: Path) -> None:
    """Write page.png and page-object.png."""
    with sync_playwright() as playwright:
        arguments = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        tab = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme="light")
        for address, name in (("index.html", "page.png"), (f"files/objects/{uid}.html", "page-object.png")):
            tab.goto((page.resolve() / address).as_uri())
            tab.wait_for_timeout(_SETTLED_MS)
            tab.screenshot(path=to / name)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
