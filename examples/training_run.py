"""A training in a folder: checkpoints, metrics, validation and sampled atlases at their intervals."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from gaussianverse.atlas import AtlasDataset
from gaussianverse.examples import checkpoints
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.pictures import write_pictures
from gaussianverse.examples.sampling import DDIM
from gaussianverse.examples.trained import ABOUT
from gaussianverse.examples.training import Trainer
from gaussianverse.examples.validation import reconstruction
from gaussianverse.examples.views import orbit, psnr, render_atlas

METRICS, STATE = "metrics.jsonl", "train.pt"
log = logging.getLogger("train_atlas")


@dataclass(frozen=True)
class RunConfig:
    """What a training writes, and when. Intervals are in steps; 0 = never.

    Attributes:
        out: folder of the run.
        log_every: of mean losses to `metrics.jsonl` and TensorBoard.
        save_every: of checkpoints; one is written at the end as well.
        validate_every: of x0's errors by noise level.
        sample_every: of sampled atlases.
        objects: objects of the validation, whose captions are sampled.
        sample_steps: evaluations of the network for a sample.
        guidance: of samples.
        solver: of samples.
        keep: newest checkpoints that stay; 0 = all.
    """

    out: Path
    log_every: int = 50
    save_every: int = 5_000
    validate_every: int = 5_000
    sample_every: int = 5_000
    objects: int = 4
    sample_steps: int = 25
    guidance: float = 1.0
    solver: str = DDIM
    keep: int = 0

    def __post_init__(self) -> None:
        counts = (self.log_every, self.save_every, self.validate_every, self.sample_every, self.keep)
        if min(counts) < 0 or min(self.log_every, self.objects, self.sample_steps) < 1:
            raise TrainingError(f"{self}: intervals of at least 0; log_every, objects and sample_steps of at least 1")


class Run:
    """Runs a trainer in a folder.

    Args:
        trainer: the training.
        config: what is written, and when.
        settings: all that a resumed training must have in common with this one, as JSON has it; saved with each
            checkpoint.
        validation: the objects whose x0 and captions are looked at; of the same statistics.
    """

    def __init__(
        self, trainer: Trainer, config: RunConfig, settings: Mapping[str, Any], validation: AtlasDataset
    ) -> None:
        self.trainer, self.config = trainer, config
        self.settings = json.loads(json.dumps(settings))
        self._validation = validation
        places = validation.samples.places
        chosen = places[np.unique(np.linspace(0, len(places) - 1, min(config.objects, len(places))).astype(int))]
        self._uids = validation.catalogue.uids(chosen)
        self._writer: SummaryWriter | None = None

    def resume(self, asked: str) -> None:
        """Go on from a checkpoint: a folder, or "latest", which skips torn ones.

        Raises:
            TrainingError: there is none, or one of other settings.
        """
        # one rank decides, since a check of sums may differ while files still arrive
        found = [None if self.trainer.rank else str(checkpoints.find(self.config.out, asked))]
        broadcast_object_list(found)
        folder = Path(str(found[0]))
        if differing := _differences(json.loads((folder / ABOUT).read_text())["settings"], self.settings):
            raise TrainingError(
                f"{folder}: trained with other settings ({'; '.join(differing)}): pass those again, or start a new "
                "training in another folder"
            )
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        self.trainer.load_state_dict(state)
        log.info("resumed at step %d from %s", self.trainer.step, folder)

    def train(self) -> None:
        """Train to the end."""
        trainer, config = self.trainer, self.config
        if trainer.rank == 0:
            config.out.mkdir(parents=True, exist_ok=True)
            _forget_later(config.out / METRICS, trainer.step)
            self._writer = SummaryWriter(config.out / "tensorboard", purge_step=trainer.step + 1)
        every_of = (config.log_every, config.save_every, config.validate_every, config.sample_every)
        intervals = [every for every in every_of if every]
        while trainer.progress < 1:
            trainer.train(until_step=min((trainer.step // every + 1) * every for every in intervals))
            self._after_step()
        if self._writer is not None:
            self._writer.close()

    def _after_step(self) -> None:
        """Log, validate, sample and save what is due."""
        trainer, config, done = self.trainer, self.config, self.trainer.progress >= 1

        def due(every: int) -> bool:
            return bool(every) and (done or trainer.step % every == 0)

        if due(config.log_every):
            found = {**trainer.take_losses(), "learning_rate": float(trainer.optimizer.param_groups[0]["lr"])}
            self._log(found)
        saved = due(config.save_every) or done
        if saved:
            trainer.mean_losses()
        if trainer.rank == 0:
            if due(config.validate_every):
                self._log(self._validated())
            if due(config.sample_every):
                self._log(self._sampled())
            if saved:
                checkpoints.write(config.out, trainer.step, self._fill, keep=config.keep)
        trainer.accelerator.wait_for_everyone()

    def _log(self, found: Mapping[str, float]) -> None:
        if self._writer is None:
            return
        step = self.trainer.step
        log.info("step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
        for name, value in found.items():
            self._writer.add_scalar(name, value, step)
        with (self.config.out / METRICS).open("a") as file:
            file.write(json.dumps({"step": step, **found}) + "\n")

    def _truth(self) -> tuple[Tensor, list[str]]:
        """Atlases [B, 16, S, S] and captions of the validation's objects; captions are empty if none is learnt."""
        samples = [self._validation.get(uid) for uid in self._uids]
        atlases = torch.stack([sample["atlas"].float() for sample in samples]).to(self.trainer.device)
        without = self.trainer.config.caption_dropout == 1
        return atlases, ["" if without else str(sample["caption"]) for sample in samples]

    def _validated(self) -> dict[str, float]:
        trainer = self.trainer
        atlases, captions = self._truth()
        embedded = trainer.embed(captions).to(trainer.device)
        with trainer.averaged_weights():
            found = reconstruction(
                trainer.predict, trainer.process, trainer.representation, atlases, embedded, cameras=orbit(4)
            )
        return {f"x0_{name}/t{time:03d}": v for time, row in found.items() for name, v in row.items()}

    def _sampled(self) -> dict[str, float]:
        """Sample the validation's captions, write their pictures, and compare with the objects' own atlases."""
        trainer, config = self.trainer, self.config
        truth, captions = self._truth()
        made = trainer.sample(captions, steps=config.sample_steps, guidance=config.guidance, solver=config.solver)
        points, cameras = trainer.representation.points, orbit(8)
        scores = []
        for uid, sampled, true in zip(self._uids, made, truth, strict=True):
            folder = config.out / "samples" / f"step-{trainer.step:06d}"
            views = write_pictures(folder, uid, sampled, points)
            if self._writer is not None:
                self._writer.add_image(f"samples/{uid}", views, trainer.step, dataformats="HWC")
            scores.append(psnr(render_atlas(sampled, points, cameras), render_atlas(true, points, cameras)))
        return {"sample_psnr": sum(scores) / len(scores)}

    def _fill(self, folder: Path) -> None:
        """Write the files of a checkpoint."""
        trainer = self.trainer
        with trainer.averaged_weights():
            trainer.network.save_pretrained(folder / "unet")
        trainer.process.save(folder)
        trainer.representation.save(folder)
        (folder / ABOUT).write_text(json.dumps({"step": trainer.step, "settings": self.settings}, indent=1))
        torch.save(trainer.state_dict(), folder / STATE)


def _forget_later(metrics: Path, step: int) -> None:
    """Drop lines of later steps, which a resumed training writes again."""
    if metrics.exists():
        lines = [line for line in metrics.read_text().splitlines() if line.endswith("}")]
        new = metrics.with_name(f".{METRICS}")
        new.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= step))
        new.replace(metrics)  # whole at any moment


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between two trees of settings."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [d for key in keys for d in _differences(old.get(key), new.get(key), f"{name}.{key}".strip("."))]
    same = old == new or (isinstance(old, float) and isinstance(new, float) and math.isclose(old, new))
    return [] if same else [f"{name} {old!r} there, {new!r} here"]
