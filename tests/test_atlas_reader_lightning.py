"""Lightning 2: whole epochs, checkpoints in the middle and at the end, early stopping, max_steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from reader_loops import BATCH, BATCHES, order_of, orders, publish, uids
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader

from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas.reader.loader import collate
from gaussianverse.fitter.vision import import_torchvision

import_torchvision()
import lightning  # noqa: E402
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint  # noqa: E402

WORKERS = pytest.mark.parametrize("workers", [0, 2])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("dataset"))


class Recorder(lightning.LightningModule):
    """A model that notes the uids of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.epochs: list[list[str]] = []

    def training_step(self, batch: dict[str, Any], number: int) -> Tensor:
        if number == 0 or not self.epochs:
            self.epochs.append([])
        self.epochs[-1] += batch["uid"]
        loss: Tensor = self.layer(batch["atlas"].mean().reshape(1, 1)).square().sum()
        self.log("loss", 1.0)  # never improves
        return loss

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.SGD(self.parameters(), 0.0)

    @property
    def read(self) -> list[str]:
        return [uid for epoch in self.epochs for uid in epoch]


def fit(loader: Any, folder: Path, *callbacks: Any, resume: Path | None = None, **options: Any) -> Recorder:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model = Recorder()
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks), callbacks=list(callbacks),
        default_root_dir=folder, **options,
    )  # fmt: skip
    trainer.fit(model, loader, ckpt_path=resume)
    return model


def own(root: Path, workers: int) -> AtlasLoader:
    return AtlasLoader(AtlasDataset(root), BATCH, num_workers=workers, persistent_workers=workers > 0)


def plain(root: Path, workers: int) -> DataLoader[Any]:
    return DataLoader(AtlasDataset(root, batch_size=BATCH), BATCH, num_workers=workers, collate_fn=collate)


@WORKERS
@pytest.mark.parametrize("make", [own, plain])
def test_lightning_reads_whole_epochs(root: Path, tmp_path: Path, make: Any, workers: int) -> None:
    assert fit(make(root, workers), tmp_path, max_epochs=2).read == orders(root, 0, 1)
    limited = fit(make(root, workers), tmp_path, max_epochs=3, limit_train_batches=5)
    assert limited.epochs == [order_of(root, epoch)[: 5 * BATCH] for epoch in range(3)]
    stopped = fit(make(root, workers), tmp_path, EarlyStopping("loss", patience=1), max_epochs=5)
    assert stopped.read == orders(root, 0, 1)


@WORKERS
@pytest.mark.parametrize("step", [1, 5, BATCHES - 1, BATCHES, BATCHES + 3])
def test_lightning_goes_on_from_any_checkpoint(root: Path, tmp_path: Path, step: int, workers: int) -> None:
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=step, save_top_k=-1, filename="{step}")
    first = fit(own(root, workers), tmp_path, saving, max_epochs=2)
    assert first.read == orders(root, 0, 1)
    resumed = fit(own(root, workers), tmp_path, resume=tmp_path / f"step={step}.ckpt", max_epochs=3)
    epoch, batches = divmod(step, BATCHES)
    assert resumed.read == orders(root, *range(epoch, 3))[batches * BATCH :]


def test_lightning_goes_on_from_the_end_of_an_epoch(root: Path, tmp_path: Path) -> None:
    """Lightning gives such a loader its epoch, and no state."""
    fit(own(root, 0), tmp_path, ModelCheckpoint(tmp_path, save_last=True), max_epochs=2)
    resumed = fit(own(root, 0), tmp_path, resume=tmp_path / "last.ckpt", max_epochs=4)
    assert resumed.read == orders(root, 2, 3)


# saved at each step, or after the last one, when Lightning counts an epoch that was cut off as a whole one
@pytest.mark.parametrize(
    ("stop", "every"), [(3, 1), (3, None), (BATCHES - 1, None), (BATCHES, 1), (BATCHES + 3, None), (2 * BATCHES, 1)]
)
def test_lightning_goes_on_from_max_steps(root: Path, tmp_path: Path, stop: int, every: int | None) -> None:
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=every, save_last=True)
    first = fit(own(root, 0), tmp_path, saving, max_steps=stop)
    resumed = fit(own(root, 0), tmp_path, resume=tmp_path / "last.ckpt", max_steps=stop + BATCHES + 2)
    batches = uids_of_batches(root, 4)
    assert first.read == [uid for batch in batches[:stop] for uid in batch]
    assert resumed.read == [uid for batch in batches[stop : stop + BATCHES + 2] for uid in batch]


def uids_of_batches(root: Path, epochs: int) -> list[list[str]]:
    """The batches of some epochs."""
    loader = AtlasLoader(AtlasDataset(root), BATCH)
    return [uids([batch]) for _ in range(epochs) for batch in loader]


@WORKERS
def test_lightning_takes_an_epoch_without_an_end(root: Path, tmp_path: Path, workers: int) -> None:
    """Exact if its batches are bounded; else Lightning reads a batch ahead, of which its checkpoint says nothing."""

    def made() -> AtlasLoader:
        return AtlasLoader(AtlasDataset(root, infinite=True), BATCH, num_workers=workers)

    for limit, skipped in (({"limit_train_batches": 18}, 0), ({}, 1)):
        saving = ModelCheckpoint(tmp_path / str(skipped), every_n_train_steps=13, filename="{step}")
        assert fit(made(), tmp_path, saving, max_steps=15, **limit).read == orders(root, 0, 1)[: 15 * BATCH]
        resumed = fit(made(), tmp_path, resume=tmp_path / str(skipped) / "step=13.ckpt", max_steps=18, **limit)
        assert resumed.read == orders(root, 0, 1)[(13 + skipped) * BATCH :][: 5 * BATCH]


def test_a_checkpoint_that_lightning_saves_after_an_epochs_last_step_repeats_nothing(
    root: Path, tmp_path: Path
) -> None:
    """With max_steps and no saving by steps, Lightning resumes with an epoch of one batch, by whichever loader."""
    saving = ModelCheckpoint(tmp_path, save_last=True)
    fit(own(root, 0), tmp_path, saving, max_steps=BATCHES)
    resumed = fit(own(root, 0), tmp_path, resume=tmp_path / "last.ckpt", max_steps=2 * BATCHES + 1)
    assert resumed.read == order_of(root, 1)[:BATCH] + order_of(root, 2)
    fit(plain(root, 0), tmp_path / "plain", ModelCheckpoint(tmp_path / "plain", save_last=True), max_steps=BATCHES)
    by_itself = fit(plain(root, 0), tmp_path, resume=tmp_path / "plain/last.ckpt", max_steps=2 * BATCHES + 1)
    assert by_itself.epochs[0] == order_of(root, 0)[:BATCH]
