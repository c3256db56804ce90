"""init: writes a profile as a TOML file in which every setting stands with its meaning, range and default."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gaussianverse import __version__
from gaussianverse.atlas.os_errors import describe
from gaussianverse.fitter.config import profile_path
from gaussianverse.pipeline.arguments import add_json
from gaussianverse.pipeline.config import RunConfig, load
from gaussianverse.pipeline.errors import PipelineError, UsageError

_COLUMNS = 100


def toml_of(config: RunConfig, title: str) -> str:
    """The configuration as TOML with comments; `pipeline.config.load` reads the same configuration from it.

    Args:
        config: configuration of a run.
        title: first lines, of which each becomes a comment.
    """
    head = [*title.splitlines(), "A setting that is left out has the value that stands beside it as its default."]
    return "\n".join([*_comments(head), *_table(config, "")]) + "\n"


def _table(config: Any, name: str) -> Iterator[str]:
    """Lines of a table, and after it of those within it, as TOML asks."""
    default, meaning = type(config)(), meanings(type(config))
    fields = dataclasses.fields(config)
    tables = [f.name for f in fields if dataclasses.is_dataclass(getattr(config, f.name))]
    if name:
        yield from ("", "", *_comments([inspect.cleandoc(type(config).__doc__ or "").partition("\n\n")[0]]))
        yield f"[{name}]"
    for field in fields:
        if field.name not in tables:
            yield from ("", *_comments([f"{meaning[field.name]} Default: {_value(getattr(default, field.name))}"]))
            yield f"{field.name} = {_value(getattr(config, field.name))}"
    for table in tables:
        yield from _table(getattr(config, table), f"{name}.{table}" if name else table)


def meanings(cls: type) -> dict[str, str]:
    """The docstrings below the fields of a dataclass, by name, each on one line."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for field, after in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            found[field.target.id] = " ".join(str(after.value.value).split())
    return found


def _comments(texts: list[str]) -> Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(text, _COLUMNS, initial_indent="# ", subsequent_indent="# ")


def _value(value: Any) -> str:
    """A value of a setting in TOML."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `gaussianverse init`."""
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="file to write; default: PROFILE.toml, in this folder"
    )
    parser.add_argument("--profile", default="quick", help="profile to begin with: a name, or a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one setting")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file; returns the exit code.

    Raises:
        UsageError: the file is there.
        PipelineError: it cannot be written.
        ConfigError: there is no such profile, or a value is not allowed.
    """
    config, source = load(args.profile, args.set), profile_path(args.profile)
    file: Path = args.file or Path(f"{source.stem}.toml")
    lines = source.read_text().splitlines()
    about = [line.removeprefix("# ") for line in lines[: next((k for k, x in enumerate(lines) if x[:1] != "#"), 0)]]
    title = "\n".join([f"Settings of gaussianverse {__version__}, profile {source.stem}.", " ".join(about)])
    try:
        with file.open("x", encoding="utf-8") as sink:
            sink.write(toml_of(config, title))
    except FileExistsError as error:
        raise UsageError(f"{file} is there and stays as it is; name another file") from error
    except OSError as error:
        raise PipelineError(f"{file}: {describe(error)}; name a file in a folder that you may write to") from error
    if args.json:
        print(json.dumps({"file": str(file), "profile": args.profile}))
    else:
        print(f"Written: {file}. Change it, and pass it as --profile {file}")
    return 0
