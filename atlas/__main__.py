"""Command line for single atlases: `python -m gaussianverse.atlas FIT.npz ATLAS.npy` packs one fit."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from gaussianverse import foreign
from gaussianverse.atlas.arrays import npy, read_npy
from gaussianverse.atlas.config import AtlasConfig
from gaussianverse.atlas.configuration import ConfigError
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.gaussians import Gaussians
from gaussianverse.atlas.interchange.ply import read_ply, write_ply
from gaussianverse.atlas.packing import pack, unpack
from gaussianverse.atlas.picture import sheet
from gaussianverse.atlas.plane import DEFAULT_SIZE, solve_plane_indices
from gaussianverse.escape import one_line

# settings that are needed to read an atlas and cannot be derived from its array
_READING = ("layout", "plane_indices")
_CHOICES = ("size", "pad", "dtype", "min_smoothness", *_READING)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gaussianverse.atlas",
        description="Pack, unpack and draw single atlases. FIT ATLAS.npy without a verb is short for pack.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = verbs.add_parser("pack", help="pack Gaussians into an atlas")
    verb.add_argument(
        "source", metavar="FIT", type=Path, help=".npz of `python -m gaussianverse.fitter`, or .ply of 3D Gaussians"
    )
    verb.add_argument("out", metavar="ATLAS.npy", type=Path)
    _add_choices(verb, _CHOICES)
    verb.set_defaults(call=_pack)

    verb = verbs.add_parser("unpack", help="unpack an atlas to Gaussians")
    verb.add_argument("source", metavar="ATLAS.npy", type=Path)
    verb.add_argument("out", metavar="OUT", type=Path, help=".npz, or .ply for a viewer")
    _add_choices(verb, _READING)
    verb.set_defaults(call=_unpack)

    verb = verbs.add_parser("show", help="draw the channels of an atlas")
    verb.add_argument("source", metavar="ATLAS.npy", type=Path)
    verb.add_argument("out", metavar="OUT.png", type=Path)
    _add_choices(verb, _READING)
    verb.set_defaults(call=_show)

    verb = verbs.add_parser("plane", help="solve the plane indices")
    verb.add_argument("out", metavar="OUT.npy", type=Path)
    verb.add_argument("--size", type=int, default=DEFAULT_SIZE, help=f"side (default: {DEFAULT_SIZE})")
    verb.set_defaults(call=_plane, source=None)
    return parser


def _add_choices(verb: argparse.ArgumentParser, names: tuple[str, ...]) -> None:
    for field in fields(AtlasConfig):
        if field.name in names:
            kind = {"int": int, "float": float, "str": str}[str(field.type)]
            verb.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; exit code 0 done, 1 error (one line on stderr), 2 wrong usage."""
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) >= 2 and given[0].endswith((".npz", ".ply")):
        given = ["pack", *given]
    options = _parser().parse_args(given)
    try:
        options.call(options)
    except (AtlasError, ConfigError, OSError) as error:
        sys.stderr.write(one_line(f"error: {options.source or options.out}: {error}") + "\n")
        return 1
    return 0


def _read(path: Path) -> Gaussians:
    data = foreign.read_bytes(path)
    return read_ply(data) if path.suffix == ".ply" else Gaussians.from_bytes(data)


def _load(options: argparse.Namespace) -> tuple[Any, AtlasConfig]:
    array = read_npy(foreign.read_bytes(options.source))
    if array.ndim != 3:
        raise AtlasError(f"an atlas has shape [size, size, 16], got {array.shape}")
    return array, AtlasConfig(size=array.shape[0], **{name: getattr(options, name) for name in _READING})


def _pack(options: argparse.Namespace) -> None:
    config = AtlasConfig(**{name: getattr(options, name) for name in _CHOICES})
    made = pack(_read(options.source), config)
    options.out.write_bytes(made.to_bytes())
    s = made.stats
    sys.stdout.write(
        f"{options.out}: {s['n_gaussians']} Gaussians, {s['n_padded']} cells padded, {s['n_dropped']} dropped, "
        f"transport gap {s['transport_gap']:.1e} in {s['transport_seconds']:.2f} s, "
        f"smoothness {s['smoothness']:.3f}\n"
    )


def _unpack(options: argparse.Namespace) -> None:
    gaussians = unpack(*_load(options))
    options.out.write_bytes(write_ply(gaussians) if options.out.suffix == ".ply" else gaussians.to_bytes())
    sys.stdout.write(f"{options.out}: {len(gaussians)} Gaussians\n")


def _show(options: argparse.Namespace) -> None:
    options.out.write_bytes(sheet(*_load(options)))


def _plane(options: argparse.Namespace) -> None:
    options.out.write_bytes(npy(solve_plane_indices(options.size).astype("<i4")))


if __name__ == "__main__":
    sys.exit(main())
