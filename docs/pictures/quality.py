"""Draw the picture of `docs/quality.md`: for each column of views an object with a low and one with a high value.

python docs/pictures/quality.py VIEWS docs/pictures        VIEWS has a folder of renders with `_nd.exr` per object
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from gaussianverse.fitter.frame import frame_of
from gaussianverse.fitter.quality import quality
from gaussianverse.fitter.view_hash import canonical_views, view_hash
from gaussianverse.fitter.views import Views, load_views

_COLUMNS = ("coverage", "colour_std", "complexity", "normal_agreement", "mask_agreement")
_SIDE, _LINE, _COLORS = 128, 18, 64


def measured(views: Views) -> dict[str, float | str]:
    """The columns of an object's views."""
    found: dict[str, float | str] = {**quality(views), "view_hash": view_hash(views, frame_of(views).center)}
    return {**found, "normal_agreement": views.normal_agreement, "mask_agreement": views.mask_agreement}


def pictures_of(views: Views) -> list[Image.Image]:
    """The object from its front and from its right, on white."""
    shown = canonical_views(views, frame_of(views).center)[:2]
    rgba = [Image.fromarray(views.images[v]).resize((_SIDE, _SIDE), Image.Resampling.BOX) for v in shown]
    return [Image.alpha_composite(Image.new("RGBA", one.size, "white"), one).convert("RGB") for one in rgba]


def main(folder: Path, to: Path) -> None:
    """Measure all objects and write quality.png."""
    found, shown = dict[str, dict[str, float | str]](), dict[str, list[Image.Image]]()
    for path in sorted(folder.iterdir()):
        views = load_views(path, size=256, compared_views=8)
        views = views[np.flatnonzero(views.images[..., 3].any(axis=(1, 2)))]  # as a fit takes them
        found[path.name], shown[path.name] = measured(views), pictures_of(views)
    rows = []
    for name in _COLUMNS:
        known = sorted((float(values[name]), uid) for uid, values in found.items() if float(values[name]) != -1)
        rows.append((name, [(known[k][1], f"{known[k][0]:.3f}") for k in (0, -1)]))
    pairs = combinations(sorted(found), 2)
    bits = {
        pair: (int(str(found[pair[0]]["view_hash"]), 16) ^ int(str(found[pair[1]]["view_hash"]), 16))
        for pair in pairs
    }
    near = min(bits, key=lambda pair: bits[pair].bit_count())
    rows.append(("view_hash", [(uid, f"{bits[near].bit_count()} bits apart") for uid in near]))
    height = _SIDE + _LINE
    page = Image.new("RGB", (4 * _SIDE + 20, height * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    for i, (name, pair) in enumerate(rows):
        for k, (uid, value) in enumerate(pair):
            left = k * (2 * _SIDE + 20)
            draw.text((left + 4, i * height + 4), f"{name} {value}", fill="black")
            for j, one in enumerate(shown[uid]):
                page.paste(one, (left + j * _SIDE, i * height + _LINE))
            print(f"{name}: {value} {uid}")
    page.quantize(_COLORS).save(to / "quality.png", optimize=True)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
