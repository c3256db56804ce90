from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.configuration import ConfigError


def test_defaults_are_the_papers() -> None:
    config = AtlasConfig()
    assert (config.size, config.pad, config.layout, config.dtype, config.min_smoothness) == (
        128, "transport", "fibonacci", "float32", 0.80,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 7), ("size", 513), ("size", 128.0), ("size", "128"), ("size", True),
        ("pad", "none"), ("pad", None), ("layout", "hexagons"), ("plane_indices", None),
        ("plane_sha256", "0" * 64), ("dtype", "float64"), ("dtype", "bfloat16"),
        ("min_smoothness", 1.0), ("min_smoothness", -0.1), ("min_smoothness", float("nan")),
        ("min_smoothness", "0.9"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_allowed_names_its_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"atlas\.{field} is .*, expected"):
        AtlasConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 8), ("size", 512), ("pad", "before"), ("layout", "ring"), ("dtype", "float16"),
        ("plane_indices", "a.npy"), ("min_smoothness", 0)],
)  # fmt: skip
def test_a_value_that_is_allowed(field: str, value: Any) -> None:
    assert getattr(AtlasConfig(**{field: value}), field) == value


def test_the_ring_has_no_other_plane_indices() -> None:
    with pytest.raises(ConfigError, match="needs layout fibonacci"):
        AtlasConfig(layout="ring", plane_indices="a.npy")


@pytest.mark.parametrize("sha256", ["", "a" * 63, "A" * 64, 7])
def test_a_hash_is_64_hexadecimal_digits(sha256: Any) -> None:
    if sha256 == "":
        assert AtlasConfig(plane_indices="a.npy", plane_sha256=sha256).plane_sha256 == ""
        return
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        AtlasConfig(plane_indices="a.npy", plane_sha256=sha256)


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        AtlasConfig().size = 64  # type: ignore[misc]
