import gzip
import struct

import numpy as np
import pytest

from gaussianverse.atlas import Gaussians
from gaussianverse.atlas.gaussians import canonical_quats
from gaussianverse.atlas.interchange.spz import to_spz


def gaussians(n: int = 50) -> Gaussians:
    rng = np.random.default_rng(0)
    return Gaussians(
        rng.normal(size=(n, 3)), rng.uniform(0.01, 0.1, (n, 3)), canonical_quats(rng.normal(size=(n, 4))),
        rng.uniform(0.01, 1, n), rng.uniform(0, 1, (n, 3)),
    )  # fmt: skip


def test_every_gaussian_is_there_as_the_format_rounds_it() -> None:
    """Read here by the format's own description: https://github.com/nianticlabs/spz."""
    g = gaussians()
    n, data = len(g), gzip.decompress(to_spz(g))
    assert struct.unpack("<4sIIBBBB", data[:16]) == (b"NGSP", 3, n, 0, 12, 0, 0)
    assert len(data) == 16 + n * (9 + 1 + 3 + 3 + 4)
    places, opacities, colors, scales, quats = np.split(
        np.frombuffer(data[16:], "u1"), np.cumsum([9 * n, n, 3 * n, 3 * n])
    )
    fixed = np.pad(places.reshape(-1, 3), ((0, 0), (1, 0))).copy().view("<i4")[:, 0].reshape(n, 3) >> 8
    np.testing.assert_allclose(fixed / 4096, g.means, atol=0.51 / 4096)
    np.testing.assert_allclose(opacities / 255, g.opacities, atol=0.51 / 255)
    sh = (colors.reshape(n, 3) / 255 - 0.5) / 0.15
    np.testing.assert_allclose(0.5 + 0.28209479 * sh, g.colors, atol=0.004)
    np.testing.assert_allclose(scales.reshape(n, 3) / 16 - 10, np.log(g.scales), atol=0.51 / 16)
    np.testing.assert_allclose(_smallest_three(quats.copy().view("<u4")), g.quats, atol=0.003)


def _smallest_three(packed: np.ndarray) -> np.ndarray:
    """Quaternions wxyz: two bits name the largest of xyzw, then nine bits and a sign for each other."""
    quats = np.zeros((len(packed), 4))
    for row, bits in zip(quats, packed.tolist(), strict=True):
        largest = bits >> 30
        for k in (3, 2, 1, 0):
            if k != largest:
                row[k] = (-1 if bits >> 9 & 1 else 1) * (bits & 511) / 511 * np.sqrt(0.5)
                bits >>= 10
        row[largest] = np.sqrt(max(0.0, 1 - np.square(row).sum()))
    return canonical_quats(quats[:, [3, 0, 1, 2]])


def test_equal_gaussians_give_equal_bytes_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert to_spz(gaussians()) == to_spz(gaussians())
    assert capfd.readouterr() == ("", "")
