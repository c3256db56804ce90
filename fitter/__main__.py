"""`python -m fitter VIEWS OUT.npz`: fit one object, without Ray or a store."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from atlas.errors import AtlasError
from atlas.ply import write_ply
from fitter.comparison import comparison
from fitter.config import ConfigError, FitConfig, load_profile
from fitter.errors import FitError
from fitter.fit import fit_object
from fitter.lpips import LpipsUnavailable
from fitter.rasterize import BackendUnavailable
from fitter.threads import set_threads
from fitter.views import FORMATS, load_views, split_heldout


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fitter", description="Fit the views of one object.")
    parser.add_argument("views", metavar="VIEWS", help="folder, .tar, .tar.gz or transforms.json")
    parser.add_argument("out", metavar="OUT.npz", type=Path, help="where the Gaussians go")
    parser.add_argument(
        "--profile", default="cpu", help="cpu, test, paper, fast, or a TOML file (default: cpu)"
    )
    parser.add_argument("--format", choices=FORMATS, default="auto", help="of the views (default: auto)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--picture", type=Path, metavar="FILE.png", help="also write held-out views above their renders"
    )
    parser.add_argument("--ply", type=Path, metavar="FILE", help="also write a PLY that 3DGS viewers open")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 done, 1 the object or the machine is at fault (one line on stderr), 2 usage."""
    options = _parser().parse_args(arguments)
    # torch's own threads cost more than they bring at this size
    torch.set_num_threads(1)
    set_threads(os.cpu_count() or 1)
    try:
        config = FitConfig.from_dict(load_profile(options.profile).get("fit", {}))
        if not options.out.parent.is_dir():
            raise FileNotFoundError(f"{options.out.parent} is no folder; make it first")
        views = load_views(
            options.views,
            options.format,
            size=config.size,
            min_views=config.min_views,
            with_depth=config.init == "depth",
        )
        with tqdm(total=config.steps, unit="step", disable=None) as bar:

            def progress(_step: int, gaussians: int, loss: float) -> None:
                bar.update()
                if bar.n % 50 == 0:
                    bar.set_postfix(gaussians=gaussians, loss=f"{loss:.4f}")

            fit = fit_object(views, config, seed=options.seed, progress=progress)
        fit.gaussians.save(options.out)
        if options.picture:
            _, heldout = split_heldout(views, config.heldout_every)
            options.picture.write_bytes(comparison(heldout if len(heldout) else views, fit.gaussians))
        if options.ply:
            options.ply.write_bytes(write_ply(fit.gaussians))
    except (FitError, AtlasError, ConfigError, LpipsUnavailable, BackendUnavailable, OSError) as fault:
        sys.stderr.write(f"error: {options.views}: {fault}\n")
        return 1
    s = fit.stats
    seconds = sum(float(s[f"seconds_{phase}"]) for phase in ("init", "fit", "metrics"))
    sys.stdout.write(
        f"{options.out}: {s['n_gaussians']} Gaussians, PSNR {s['psnr']:.2f} dB, SSIM {s['ssim']:.4f} "
        f"on {s['n_heldout'] or s['n_views']} {s['metrics_on']} views (white), {seconds:.1f} s, "
        f"peak {s['peak_mb']:.0f} MB\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
