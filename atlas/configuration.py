"""Loader of configuration tables into frozen dataclasses, for all packages."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

Config = TypeVar("Config")


class ConfigError(ValueError):
    """A configuration value is not allowed; the message names the field, the value and what is allowed."""


def from_table(cls: type[Config], table: Mapping[str, Any], where: str = "") -> Config:
    """Make a dataclass, whose fields all have defaults, from a table of TOML or JSON.

    A field whose default is a dataclass takes a nested table. A float may be a whole number, and a tuple a list.

    Args:
        cls: the dataclass.
        table: {field: value}; other fields keep their defaults.
        where: dotted name of the table, for messages; "" for a whole profile.

    Raises:
        ConfigError: a field is unknown, a value has a different type than the default, or `cls` refuses it.
    """
    defaults = cls()
    known = {f.name for f in dataclasses.fields(defaults)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            owner, kind = (f"[{where}]", "field") if where else ("a profile", "table")
            raise ConfigError(f"{owner} has no {kind} {name!r}; it has {', '.join(sorted(known))}")
        arguments[name] = _converted(f"{where}.{name}" if where else name, value, getattr(defaults, name))
    return cls(**arguments)


def _converted(name: str, value: Any, default: Any) -> Any:
    """Convert `value` to the type of the field's default."""
    if dataclasses.is_dataclass(default):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is {value!r}, expected a table [{name}]")
        return from_table(type(default), value, name)
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        if not all(type(number) in (int, float) for number in value):
            raise ConfigError(f"{name} is {value!r}, expected numbers")
        return tuple(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise ConfigError(f"{name} is {value!r}, expected {type(default).__name__}")
    return value


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Require one of `allowed`."""
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")


def check_whole(name: str, value: Any, low: int, high: float = math.inf) -> None:
    """Require a whole number from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        span = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
        raise ConfigError(f"{name} is {value!r}, expected a whole number {span}")


def check_at_least(name: str, value: float, low: float) -> None:
    """Require a finite number of at least `low`."""
    if not low <= value < math.inf:
        raise ConfigError(f"{name} is {value!r}, expected at least {low}")


def check_fraction(name: str, value: float) -> None:
    """Require a number in [0, 1]."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value!r}, expected a fraction between 0 and 1")
