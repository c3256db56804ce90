"""`python -m bench.precision FIT.npz ...`: PSNR of renders of float32 and float16 atlases against their fits."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.atlas import real
from bench.record import keep
from gaussianverse.atlas import AtlasConfig, Gaussians, pack, unpack
from gaussianverse.pipeline.dataset.members import atlas_array
from gaussianverse.pipeline.run.fidelity import atlas_psnr

DTYPES = ("float32", "float16")
SIZES = (128, 256, 512)


def measured(gaussians: Gaussians, dtype: str) -> dict[str, Any]:
    """PSNR of the renders at each size, size of the file, and the largest displacement of a Gaussian."""
    config = AtlasConfig(dtype=dtype)
    made = pack(gaussians, config)
    data = made.to_bytes()
    stored = unpack(atlas_array(data, config), config)
    # without dropped Gaussians, which do not depend on the dtype
    packed = gaussians[made.source[made.source >= 0]]
    return {
        "psnr": {size: atlas_psnr(packed, stored, size) for size in SIZES},
        "nbytes": len(data),
        "moved": float(np.linalg.norm(stored.means - packed.means, axis=1).max()),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fits", nargs="*", type=Path, help=".npz files of `python -m gaussianverse.fitter`")
    options = parser.parse_args(arguments)
    rows = {}
    for name, gaussians in real(options.fits).items():
        extent = float(np.ptp(gaussians.means, axis=0).max())
        if extent > 2:  # normalise as before a fit
            gaussians = replace(
                gaussians, means=gaussians.means / np.float32(extent), scales=gaussians.scales / np.float32(extent)
            )
        rows[name] = {dtype: measured(gaussians, dtype) for dtype in DTYPES}
        sys.stderr.write(f"{name}: {rows[name]}\n")
    if not rows:
        sys.stderr.write("error: no fits; pass .npz files of `python -m gaussianverse.fitter`\n")
        return 1
    summary = {
        dtype: {
            str(size): {"median_db": median(found), "least_db": min(found)}
            for size in SIZES
            for found in [[row[dtype]["psnr"][size] for row in rows.values()]]
        }
        for dtype in DTYPES
    }
    keep("precision", {"background": "white", "views": 4, "psnr": summary, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
