import numpy as np

from gaussianverse.atlas import Gaussians
from gaussianverse.atlas.gaussians import canonical_quats
from gaussianverse.atlas.interchange.splat import to_splat


def test_every_gaussian_comes_back_to_eight_bits_the_most_visible_first() -> None:
    rng = np.random.default_rng(0)
    g = Gaussians(
        rng.normal(size=(50, 3)), rng.uniform(0.01, 0.1, (50, 3)), canonical_quats(rng.normal(size=(50, 4))),
        rng.uniform(0.01, 1, 50), rng.uniform(0, 1, (50, 3)),
    )  # fmt: skip
    data = to_splat(g)
    assert len(data) == 32 * len(g)
    floats = np.frombuffer(data, "<f4").reshape(-1, 8)
    octets = np.frombuffer(data, "u1").reshape(-1, 32)
    order = np.argsort(-g.opacities * g.scales.prod(axis=1))
    np.testing.assert_array_equal(floats[:, :3], g.means[order])
    np.testing.assert_array_equal(floats[:, 3:6], g.scales[order])
    np.testing.assert_allclose(octets[:, 24:27] / 255, g.colors[order], atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(octets[:, 27] / 255, g.opacities[order], atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose((octets[:, 28:] - 128.0) / 128, g.quats[order], atol=1 / 128)
