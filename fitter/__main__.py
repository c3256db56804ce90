"""Command line `python -m gaussianverse.fitter VIEWS OUT.npz`: fits one object without Ray or a store."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tqdm import tqdm

from gaussianverse.atlas.configuration import ConfigError
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.interchange.ply import write_ply
from gaussianverse.escape import one_line
from gaussianverse.fitter.agreement.verdict import AGREES
from gaussianverse.fitter.comparison import comparison
from gaussianverse.fitter.config import load_fit_config
from gaussianverse.fitter.errors import FitError
from gaussianverse.fitter.fit import fit_prepared
from gaussianverse.fitter.lpips import LpipsUnavailable
from gaussianverse.fitter.memory import reset_peak
from gaussianverse.fitter.prepare import load_to_fit, prepare
from gaussianverse.fitter.rasterize import BackendUnavailable
from gaussianverse.fitter.threads import available_cores, set_threads
from gaussianverse.fitter.views import FORMATS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gaussianverse.fitter", description="Fit 3D Gaussians to the views of one object."
    )
    parser.add_argument("views", metavar="VIEWS", help="folder, .tar, .tar.gz or transforms.json")
    parser.add_argument("out", metavar="OUT.npz", type=Path, help="file for the Gaussians")
    parser.add_argument("--profile", default="cpu", help="cpu, test, paper, fast, or a TOML file (default: cpu)")
    parser.add_argument("--format", choices=FORMATS, default="auto", help="format of the views (default: auto)")
    parser.add_argument("--seed", type=_seed, default=0, help="seed of all random numbers (default: 0)")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png",
        help="also write held-out views above their renders; training views if none are held out",
    )  # fmt: skip
    parser.add_argument(
        "--ply", type=Path, metavar="FILE", help="also write a PLY that 3DGS viewers open, in the views' world"
    )
    parser.add_argument("--json", action="store_true", help="print all statistics as one JSON object")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^63 - 1")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; exit code 0 done, 1 error (one line on stderr), 2 wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for path in (options.out, options.ply, options.picture):
        # refuse before a minute of work
        if path and (path.is_dir() or not path.parent.is_dir()):
            parser.error(f"{path} cannot be written: it is a folder, or its folder does not exist")
    try:
        config = load_fit_config(options.profile)
    except ConfigError as error:
        parser.error(str(error))
    set_threads(available_cores())
    try:
        reset_peak()
        prepared = prepare(load_to_fit(options.views, options.format, config), config)
        with tqdm(total=config.steps, unit="step", disable=None) as bar:

            def progress(_step: int, gaussians: int, loss: float) -> None:
                bar.update()
                if bar.n % 50 == 0:
                    bar.set_postfix(gaussians=gaussians, loss=f"{loss:.4f}")

            fit = fit_prepared(prepared, config, seed=options.seed, progress=progress)
        fit.gaussians.save(options.out)
        if options.picture:
            options.picture.write_bytes(comparison(prepared.measured, prepared.recall(fit.gaussians)))
        if options.ply:
            placed = prepared.placed
            options.ply.write_bytes(write_ply(fit.gaussians, center=placed.center, unit=placed.unit))
    except (FitError, AtlasError, ConfigError, LpipsUnavailable, BackendUnavailable, OSError) as error:
        sys.stderr.write(one_line(f"error: {error}") + "\n")
        return 1
    s = fit.stats
    if options.json:
        sys.stdout.write(json.dumps(s) + "\n")
        return 0
    seconds = sum(float(s[f"seconds_{phase}"]) for phase in ("init", "fit", "metrics"))
    on = "held-out" if s["metrics_on"] == "heldout" else "training"
    sys.stdout.write(
        f"{options.out}: {s['n_gaussians']} Gaussians, PSNR {s['psnr']:.2f} dB, SSIM {s['ssim']:.4f} "
        f"on {s['n_heldout'] or s['n_views']} {on} views (white), {seconds:.1f} s, peak {s['peak_mb']:.0f} MB\n"
    )
    sys.stdout.write(_doubts(float(s["pose_agreement"]), str(s["views_doubtful"]), str(s["views_skipped"])))
    return 0


def _doubts(agreement: float, doubtful: str, skipped: str) -> str:
    """Lines about what cameras and silhouettes say about each other; none where they agree."""
    lines = [f"left out: {skipped}\n"] if skipped else []
    if 0 <= agreement < AGREES or doubtful:
        named = f"; doubtful views: {doubtful}" if doubtful else ""
        lines.append(f"cameras and silhouettes agree by {agreement:.2f} only{named}\n")
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
