"""The reading of the ranks of a run, by the loops of several libraries: `torchrun reader_ranks.py LOOP ROOT OUT`.

Each rank writes what it read to OUT/RANK.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reader_loops import BATCH, keys_of, uids
from torch import distributed
from torch.utils.data import DataLoader, Dataset

from gaussianverse import AtlasDataset, AtlasLoader
from gaussianverse.atlas.errors import DatasetError
from gaussianverse.atlas.reader.loader import collate
from gaussianverse.fitter.vision import import_torchvision


def run_ranks(world: int, loop: str, root: Path, out: Path) -> list[Any]:
    """Run this file with torchrun; what each rank wrote."""
    out.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}", __file__]
    done = subprocess.run(
        [*command, loop, str(root), str(out)], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])},  # where bench/ is
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(world)]


def torch_alone(root: Path, _: Path) -> dict[str, Any]:
    """Three batches and the state after them; two epochs of a plain DataLoader."""
    distributed.init_process_group("gloo")
    loader = AtlasLoader(AtlasDataset(root), BATCH, num_workers=1)
    read = uids(batch for _, batch in zip(range(3), loader, strict=False))
    state = loader.state_dict()
    plain = DataLoader(AtlasDataset(root, batch_size=BATCH), BATCH, num_workers=1, collate_fn=collate)
    return {"read": read, "state": state, "plain": [uids(plain) for _ in range(2)]}


def tensors(samples: list[Any]) -> dict[str, Any]:
    """A batch of tensors alone, as accelerate dispatches them."""
    return {"atlas": collate(samples)["atlas"]}


def refusal(act: Callable[[], Any]) -> str:
    """The message of the DatasetError that this raises."""
    try:
        act()
    except DatasetError as error:
        return str(error)
    return "none"


def accelerate(root: Path, _: Path) -> dict[str, Any]:
    """All batches of two epochs by each way that accelerate prepares a DataLoader, and a third from its middle."""
    from accelerate import Accelerator, DataLoaderConfiguration

    read: dict[str, Any] = {}
    for dispatch in (True, False):
        accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=dispatch))

        def prepared(dataset: Dataset[Any], accelerator: Accelerator = accelerator, **how: Any) -> Any:
            return accelerator.prepare(DataLoader(dataset, BATCH, collate_fn=tensors, **how))

        # with dispatch, workers give batches to all ranks in turn, else each gives as many as there are ranks
        taken = BATCH if dispatch else 2 * BATCH
        loader = prepared(AtlasDataset(root, batch_size=taken, rank=0, world=1), num_workers=2)
        passes = [[key for b in loader for key in keys_of(b["atlas"])] for _ in range(2)]
        rest = accelerator.skip_first_batches(loader, 2)
        read[f"dispatch {dispatch}"] = [*passes, [key for b in rest for key in keys_of(b["atlas"])]]
        refused = prepared(AtlasDataset(root))
        read[f"refusal {dispatch}"] = refusal(lambda refused=refused: next(iter(refused)))
    samples = prepared(AtlasDataset(root).map_style(), shuffle=True)
    read["map_style"] = [[key for b in samples for key in keys_of(b["atlas"])] for _ in range(2)]
    dataset = AtlasDataset(root)
    own = AtlasLoader(dataset, BATCH)
    own.set_epoch(0)
    read["AtlasLoader"] = [uids(own) for _ in range(2)]
    return read


def trainer(root: Path, out: Path) -> dict[str, Any]:
    """Steps of two epochs by Trainer, and what it reads from its checkpoint in the second one."""
    import_torchvision()
    import transformers

    transformers.logging.set_verbosity_error()
    read: dict[str, Any] = {}
    made: dict[str, Callable[[], Dataset[Any]]] = {
        "iterable": lambda: AtlasDataset(root, batch_size=BATCH, rank=0, world=1),
        "map_style": lambda: AtlasDataset(root).map_style(),
    }
    for name, dataset in made.items():
        for resume in (None, str(out / name / "checkpoint-8")):
            options = transformers.TrainingArguments(
                str(out / name), per_device_train_batch_size=BATCH, num_train_epochs=2, save_steps=8, use_cpu=True,
                report_to=[], disable_tqdm=True, dataloader_num_workers=1,
            )  # fmt: skip
            model = Recorder()
            transformers.Trainer(model, options, train_dataset=dataset()).train(resume_from_checkpoint=resume)
            read[f"{name} {'whole' if resume is None else 'resumed'}"] = model.read
    refused = transformers.Trainer(Recorder(), options, train_dataset=AtlasDataset(root))
    read["refusal"] = refusal(refused.train)
    return read


class Recorder(torch.nn.Module):
    """A model that notes which samples it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.read: list[list[float]] = []

    def forward(self, atlas: torch.Tensor) -> dict[str, torch.Tensor]:
        self.read.append(keys_of(atlas))
        return {"loss": self.weight.square().sum()}


if __name__ == "__main__":
    loop, root, out = sys.argv[1:]
    found = {"torch": torch_alone, "accelerate": accelerate, "trainer": trainer}[loop](Path(root), Path(out))
    (Path(out) / f"{os.environ['RANK']}.json").write_text(json.dumps(found))
    if distributed.is_initialized():
        distributed.destroy_process_group()
