import io

import numpy as np
import pytest
from PIL import Image

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.picture import panels, sheet

CONFIG = AtlasConfig(size=8)


def array() -> np.ndarray:
    values = np.zeros((8, 8, 16), np.float32)
    values[..., 8:11] = 0.01
    values[..., 12] = 1
    values[2, 5, [3, 7, 11]] = 1
    values[2, 5, 4:7] = (1, 0.5, 0)
    values[2, 5, 13:16] = (0, 1, -1)
    return values


def test_each_panel_shows_its_channels() -> None:
    found = panels(array(), CONFIG)
    assert list(found) == ["position", "albedo", "opacity", "scale", "rotation"]
    assert found["albedo"][2, 5].tolist() == [255, 128, 0]
    assert found["albedo"][0, 0].tolist() == [0, 0, 0]
    assert found["opacity"][2, 5].tolist() == [253, 231, 37]
    assert found["opacity"][0, 0].tolist() == [68, 1, 84]
    assert found["rotation"][2, 5].tolist() == [128, 255, 0]
    # with offsets of 0, the positions are the sphere points
    assert found["position"].min() == 0
    assert found["position"].max() == 255


def test_positions_go_along_the_axes_of_the_plane() -> None:
    """Columns are latitudes, so z falls from left to right."""
    z = panels(np.where(np.arange(16) == 12, 1.0, np.zeros((128, 128, 16))))["position"][..., 2].astype(int)
    assert (np.diff(z[:, ::8].mean(axis=0)) < 0).all()


def test_the_sheet_is_a_png_with_five_panels() -> None:
    picture = Image.open(io.BytesIO(sheet(array(), CONFIG)))
    assert picture.format == "PNG"
    assert picture.width == 5 * (256 + 8) + 8
    assert picture.getpixel((8 + 264 + 5 * 32 + 16, 22 + 2 * 32 + 16)) == (255, 128, 0)


def test_a_wrong_shape_and_nan_are_refused() -> None:
    with pytest.raises(AtlasError, match="an atlas of size 8 has shape"):
        panels(np.zeros((8, 8, 15)), CONFIG)
    with pytest.raises(AtlasError, match="not finite"):
        panels(np.full((8, 8, 16), np.nan), CONFIG)
