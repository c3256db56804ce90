from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from atlas.config import AtlasConfig
from atlas.errors import AtlasError


def test_defaults_are_the_papers() -> None:
    config = AtlasConfig()
    assert (config.size, config.pad, config.layout, config.dtype, config.min_smoothness) == (
        128, "transport", "fibonacci", "float32", 0.80,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 7), ("size", 513), ("size", 128.0), ("size", "128"), ("size", True),
        ("pad", "none"), ("pad", None), ("layout", "hexagons"), ("dtype", "float64"), ("dtype", "bfloat16"),
        ("min_smoothness", 1.0), ("min_smoothness", -0.1), ("min_smoothness", float("nan")),
        ("min_smoothness", "0.9"),
    ],
)  # fmt: skip
def test_a_value_that_is_not_allowed_names_its_field(field: str, value: Any) -> None:
    with pytest.raises(AtlasError, match=f"AtlasConfig.{field} must be"):
        AtlasConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 8), ("size", 512), ("pad", "before"), ("dtype", "float16"), ("min_smoothness", 0)],
)  # fmt: skip
def test_a_value_that_is_allowed(field: str, value: Any) -> None:
    assert getattr(AtlasConfig(**{field: value}), field) == value


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        AtlasConfig().size = 64  # type: ignore[misc]
