"""`python -m bench.sensitivity DATASET`: PSNR of renders of atlases of which groups of channels are disturbed.

Noise has a standard deviation relative to the channel's over all cells and objects ("channel"), or to each cell's
over the objects ("cell", with the floor of the trainer). A group is also blurred over the plane, and replaced by its
mean over the object. At last patches of all channels are reduced to a few principal components. The reference is the
atlas as it is. `python -m bench.pilot` makes such a dataset.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.learning_data import Objects, interval, read
from bench.record import keep
from gaussianverse.atlas import AtlasDataset
from gaussianverse.examples.losses import GroupWeights
from gaussianverse.examples.representation import GROUPS, Representation, RepresentationConfig

NOISE = (0.02, 0.05, 0.1, 0.2, 0.4)
BLUR = (1, 2, 4)
"""Standard deviations of the blur in cells."""
COMPONENTS = (32, 48, 64, 96, 128, 192)
PATCH = 4
Disturb = Callable[[Tensor], Tensor]


def channels(group: str) -> list[int]:
    return list(range(16)) if group == "all" else list(GROUPS[group])


def noisy(representation: Representation, group: str, amount: float, generator: torch.Generator) -> Disturb:
    """Add noise to a group of channels of what a network sees; the three copies of opacity get their own."""
    chosen = channels(group)

    def disturb(atlas: Tensor) -> Tensor:
        seen = representation(atlas)
        seen[chosen] += amount * torch.randn(seen[chosen].shape, generator=generator)
        made = representation.inverse(seen)
        result = atlas.clone()
        result[chosen] = made[chosen]
        return result

    return disturb


def blurred(representation: Representation, group: str, sigma: float | None) -> Disturb:
    """Blur a group of channels over the plane, or replace it by its mean (None)."""
    chosen = channels(group)

    def disturb(atlas: Tensor) -> Tensor:
        seen = representation(atlas)
        part = seen[chosen] * representation.std[chosen] + representation.mean[chosen]
        part = part.mean((1, 2), keepdim=True).expand_as(part) if sigma is None else blur(part, sigma)
        seen[chosen] = (part - representation.mean[chosen]) / representation.std[chosen]
        result = atlas.clone()
        result[chosen] = representation.inverse(seen)[chosen]
        return result

    return disturb


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [C, S, S], cut off at three standard deviations."""
    reach = int(3 * sigma)
    steps = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights = (weights / weights.sum()).repeat(len(x), 1, 1, 1)
    padded = nn.functional.pad(x[None], (reach, reach, reach, reach), mode="replicate")
    across = nn.functional.conv2d(padded, weights, groups=len(x))
    return nn.functional.conv2d(across, weights.transpose(2, 3), groups=len(x))[0]


def reduced(representation: Representation, atlases: list[Tensor], count: int) -> Disturb:
    """Keep `count` principal components of the 256 numbers of each patch of 4 x 4 cells.

    That bounds what a network can learn whose last layer makes a patch of `count` channels. The components are those
    of all patches of the atlases, in the weights of the trainer's loss.
    """
    weights = GroupWeights().per_channel().sqrt()

    def patches(atlas: Tensor) -> Tensor:
        return nn.functional.pixel_unshuffle((representation(atlas) * weights)[None], PATCH)[0].flatten(1).T

    values = torch.cat([patches(atlas) for atlas in atlases])
    mean = values.mean(0)
    basis = torch.linalg.eigh((values - mean).T @ (values - mean)).eigenvectors[:, -count:]

    def disturb(atlas: Tensor) -> Tensor:
        kept = (patches(atlas) - mean) @ basis @ basis.T + mean
        side = representation.size // PATCH
        return representation.inverse(nn.functional.pixel_shuffle(kept.T.view(1, -1, side, side), PATCH)[0] / weights)

    return disturb


def cases(dataset: AtlasDataset, objects: Objects) -> dict[str, dict[str, Disturb]]:
    """Disturbances by row and column of the table."""
    forms = {
        "channel": Representation.of(dataset, RepresentationConfig(per_pixel=False)),
        "channel, linear": Representation.of(dataset, RepresentationConfig(per_pixel=False, log_scale=False)),
        "cell": Representation.of(dataset),
    }
    generator = torch.Generator().manual_seed(0)
    rows = [("channel", group) for group in (*GROUPS, "all")]
    rows += [("channel, linear", "scale"), ("cell", "offset"), ("cell", "all")]
    table = {
        f"{group} ({form})": {str(amount): noisy(forms[form], group, amount, generator) for amount in NOISE}
        for form, group in rows
    }
    for group in (*GROUPS, "all"):
        amounts = {f"blur {sigma}": sigma for sigma in BLUR} | {"mean": None}
        table[f"{group} (replaced)"] = {name: blurred(forms["channel"], group, s) for name, s in amounts.items()}
    seen = forms["cell"]
    table["patches (principal components)"] = {str(k): reduced(seen, objects.atlases, k) for k in COMPONENTS}
    return table


def measured(objects: Objects, table: dict[str, dict[str, Disturb]]) -> dict[str, dict[str, list[float]]]:
    """Mean PSNR and half its 95 % interval over the objects, by row and column."""
    renders = objects.renders()
    result: dict[str, dict[str, list[float]]] = {}
    for row, columns in table.items():
        result[row] = {}
        for name, disturb in columns.items():
            scores = [objects.score(disturb(a), r) for a, r in zip(objects.atlases, renders, strict=True)]
            result[row][name] = [round(value, 2) for value in interval(scores)]
        sys.stderr.write(f"{row}: {result[row]}\n")
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="folder of a dataset, such as bench.pilot's")
    parser.add_argument("--objects", type=int, default=20)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    dataset = AtlasDataset(options.dataset)
    objects = read(dataset, options.objects)
    table = measured(objects, cases(dataset, objects))
    keep("sensitivity", {"objects": len(objects.uids), "uids": objects.uids, "psnr_db": table})
    return 0


if __name__ == "__main__":
    sys.exit(main())
