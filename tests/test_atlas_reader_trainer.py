"""Hugging Face's Trainer and accelerate in one process; `test_atlas_reader_ranks.py` has them with two ranks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from reader_loops import BATCH, named, order_of, orders, publish, uids
from reader_ranks import Recorder
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas.reader.loader import collate
from gaussianverse.fitter.vision import import_torchvision

import_torchvision()
import transformers  # noqa: E402
from accelerate import Accelerator, DataLoaderConfiguration  # noqa: E402

WORKERS = [{}, {"dataloader_num_workers": 2}, {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("dataset"))


def train(
    root: Path, out: Path, resume: Path | None = None, how: dict[str, Any] | None = None, **options: Any
) -> list[str]:  # fmt: skip
    """The uids that a model is given, in their order."""
    transformers.logging.set_verbosity_error()
    arguments = transformers.TrainingArguments(
        str(out), per_device_train_batch_size=BATCH, use_cpu=True, report_to=[], disable_tqdm=True, **options
    )
    model = Recorder()
    trainer = transformers.Trainer(
        model, arguments, train_dataset=AtlasDataset(root, batch_size=BATCH, **(how or {}))
    )
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return named(root, (key for step in model.read for key in step))


@pytest.mark.parametrize("workers", WORKERS, ids=["none", "two", "persistent"])
def test_trainer_reads_whole_epochs_and_goes_on_from_a_checkpoint(
    root: Path, tmp_path: Path, workers: dict[str, Any]
) -> None:
    assert train(root, tmp_path, num_train_epochs=2, save_steps=7, **workers) == orders(root, 0, 1)
    for step, start in ((7, 28), (14, 53)):
        resumed = train(root, tmp_path, tmp_path / f"checkpoint-{step}", num_train_epochs=3, **workers)
        assert resumed == orders(root, 0, 1, 2)[start:]


def test_trainer_goes_on_from_max_steps(root: Path, tmp_path: Path) -> None:
    for stop in (5, 11):
        read = train(root, tmp_path / str(stop), max_steps=stop, save_steps=stop)
        resumed = train(root, tmp_path / str(stop), tmp_path / f"{stop}/checkpoint-{stop}", max_steps=22)
        assert read + resumed == orders(root, 0, 1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dispatch", [True, False])
def test_accelerate_prepares_a_plain_loader(root: Path, dispatch: bool, workers: int) -> None:
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=dispatch))
    samples = DataLoader(
        AtlasDataset(root, batch_size=BATCH), BATCH, num_workers=workers, collate_fn=lambda s: collate(s)["atlas"]
    )
    loader = accelerator.prepare(samples)
    for epoch in range(2):
        assert named(root, (float(atlas[0, 0, 0]) for batch in loader for atlas in batch)) == order_of(root, epoch)
    loader.set_epoch(0)
    rest = accelerator.skip_first_batches(loader, 3)
    assert named(root, (float(atlas[0, 0, 0]) for batch in rest for atlas in batch)) == order_of(root, 0)[3 * BATCH :]


@pytest.mark.parametrize("stop", [1, 5, 10])
def test_accelerate_saves_the_state_of_stateful_loaders(root: Path, tmp_path: Path, stop: int) -> None:
    """Its own, over torchdata's, and an AtlasLoader that is registered."""

    def made() -> tuple[Any, Any, AtlasLoader]:
        configuration = DataLoaderConfiguration(dispatch_batches=False, use_stateful_dataloader=True)
        accelerator = Accelerator(cpu=True, dataloader_config=configuration)
        samples = StatefulDataLoader(AtlasDataset(root, batch_size=BATCH), BATCH, num_workers=2, collate_fn=collate)
        loader, own = accelerator.prepare(samples), AtlasLoader(AtlasDataset(root), BATCH)
        accelerator.register_for_checkpointing(own)
        return accelerator, loader, own

    accelerator, loader, own = made()
    for number, (first, second) in enumerate(zip(loader, own, strict=True), 1):
        assert first["uid"] == second["uid"]
        if number == stop:
            accelerator.save_state(str(tmp_path / "state"))
            break
    accelerator, loader, own = made()
    accelerator.load_state(str(tmp_path / "state"))
    assert uids(own) == order_of(root, 0)[stop * BATCH :]
    assert uids(loader) == order_of(root, 0)[stop * BATCH :]


@pytest.mark.parametrize("workers", [0, 2])
def test_accelerate_and_trainer_take_an_epoch_without_an_end(root: Path, tmp_path: Path, workers: int) -> None:
    for dispatch in (True, False):
        accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=dispatch))
        endless = AtlasDataset(root, batch_size=BATCH, infinite=True)
        samples = DataLoader(endless, BATCH, num_workers=workers, collate_fn=lambda s: collate(s)["atlas"])
        found = (float(atlas[0, 0, 0]) for batch in accelerator.prepare(samples) for atlas in batch)
        assert named(root, islice(found, 60)) == orders(root, 0, 1)[:60]
    options = {"how": {"infinite": True}, "dataloader_num_workers": workers}
    assert train(root, tmp_path, max_steps=15, save_steps=12, **options) == orders(root, 0, 1)[: 15 * BATCH]
    resumed = train(root, tmp_path, tmp_path / "checkpoint-12", max_steps=20, **options)
    assert resumed == orders(root, 0, 1)[12 * BATCH : 20 * BATCH]
