"""The examples, offline, on shards of tiny objects made by the main job."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipeline_runs import finished, write_inputs

from gaussianverse.atlas import AtlasDataset, AtlasLoader
from gaussianverse.atlas.interchange.ply import read_ply
from gaussianverse.examples import sample_atlas, train_atlas
from gaussianverse.examples.diffusion import byte_embeddings, tiny_unet, widened

UIDS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("made")
    return finished(folder / "out", write_inputs(folder, UIDS), "run.shard_size=2")


@pytest.fixture(scope="module")
def seen(dataset: str) -> str:
    """The same objects in shards with reference views."""
    folder = Path(dataset).parent
    return finished(folder / "seen", str(folder / "objects.jsonl"), "run.views=4")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run torch on one thread: on a busy machine, several would wait for each other for minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(dataset: str, out: Path, *arguments: str) -> list[dict[str, Any]]:
    assert train_atlas.main([dataset, str(out), "--tiny-random", "--batch-size", "2", *arguments]) == 0
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_a_sample_is_a_ply(dataset: str, tmp_path: Path) -> None:
    options = ["--steps", "120", "--batch-size", "3", "--learning-rate", "1e-2", "--ema", "0.9"]
    losses = np.array([s["diffusion"] for s in trained(dataset, tmp_path / "run", *options)])
    assert len(losses) == 120
    # the loss of one step depends on its random noise level, so means are compared.
    # Measured over seeds 0 to 5: 0.82 to 0.90
    assert losses[-30:].mean() < 0.95 * losses[:15].mean()
    ply = tmp_path / "x.ply"
    arguments = [dataset, str(tmp_path / "run/step-000120"), str(ply), "--tiny-random"]
    assert sample_atlas.main([*arguments, "--caption", "a ball", "--steps", "8"]) == 0
    assert 0 < len(read_ply(ply.read_bytes())) <= 16 * 16


def test_a_resumed_run_is_the_uninterrupted_one(dataset: str, tmp_path: Path) -> None:
    options = ["--photometric", "0.1", "--view-size", "32", "--save-every", "2"]
    whole = trained(dataset, tmp_path / "whole", "--steps", "5", *options)
    assert all(0 < s["photometric"] < 2 for s in whole)
    resumed = trained(
        dataset, tmp_path / "resumed", "--steps", "5", *options, "--resume", str(tmp_path / "whole/step-000002")
    )
    assert resumed == whole[2:]


def test_the_photometric_loss_is_of_the_objects_views_where_shards_carry_some(seen: str, tmp_path: Path) -> None:
    options = ["--photometric", "1", "--save-every", "2"]
    short = trained(seen, tmp_path / "short", "--steps", "3", *options)
    # --view-size has no effect, since no view is rendered
    assert trained(seen, tmp_path / "again", "--steps", "3", *options, "--view-size", "7") == short
    resumed = ["--steps", "3", *options, "--resume", str(tmp_path / "short/step-000002")]
    assert trained(seen, tmp_path / "resumed", *resumed) == short[2:]


class Still:
    """An optimiser that changes nothing."""

    def zero_grad(self, **_: bool) -> None:
        pass

    def step(self) -> None:
        pass


def measured(trainer: train_atlas.Trainer, batch: Any) -> float:
    """Mean photometric loss over 24 draws of noise, times and views, the same in each call; nothing is learnt."""
    step, optimizer = trainer.step, trainer.optimizer
    trainer.optimizer = Still()  # type: ignore[assignment]
    losses = []
    for trainer.step in range(10_000, 10_024):
        losses.append(trainer.update(batch)["photometric"])
    trainer.step, trainer.optimizer = step, optimizer
    return float(np.mean(losses))


@pytest.mark.parametrize("seed", [0, 1])
def test_with_views_the_photometric_loss_falls(seen: str, tmp_path: Path, seed: int) -> None:
    options = ["--tiny-random", "--batch-size", "3", "--learning-rate", "1e-2", "--photometric", "1"]
    arguments = [seen, str(tmp_path), *options, "--seed", str(seed)]
    trainer = train_atlas.Trainer(train_atlas.parser().parse_args(arguments))
    (batch,) = trainer.loader
    before = measured(trainer, batch)
    assert measured(trainer, batch) == before
    for trainer.step in range(40):
        trainer.update(batch)
    # measured over seeds 0 to 4: 0.86 to 0.92
    assert measured(trainer, batch) < 0.96 * before


def test_of_all_atlases_an_objects_own_looks_most_like_its_views(seen: str) -> None:
    (batch,) = AtlasLoader(AtlasDataset(seen, views=True), batch_size=3)
    for k in range(3):
        losses = torch.zeros(3)
        for draw in range(8):
            generator = torch.Generator().manual_seed(draw)
            reference = train_atlas.given_view(batch, k, generator, torch.device("cpu"))
            with torch.no_grad():
                of_each = [train_atlas.photometric_loss(a, reference, None) for a in batch["atlas"]]
            losses += torch.stack(of_each)
        assert int(losses.argmin()) == k


def test_widening_repeats_what_the_checkpoint_does() -> None:
    torch.manual_seed(0)
    narrow = tiny_unet(16).eval()
    image, captions = torch.randn(2, 4, 16, 16), byte_embeddings(torch.device("cpu"))(["a", ""])
    with torch.no_grad():
        expected = narrow(image, 7, captions).sample
        wide = widened(narrow)
        found = wide(image.repeat(1, 4, 1, 1), 7, captions).sample
    assert (wide.config.in_channels, wide.config.out_channels) == (16, 16)
    assert torch.allclose(found, expected.repeat(1, 4, 1, 1), atol=1e-5)


def test_a_checkpoint_of_other_channels_is_refused() -> None:
    unet = tiny_unet(16)
    unet.register_to_config(in_channels=9)
    with pytest.raises(ValueError, match="9 channels in"):
        widened(unet)


def test_a_share_of_captions_is_dropped() -> None:
    embedded = torch.ones(2000, 3, 2)
    kept = train_atlas.drop_captions(embedded, 0.2, torch.Generator().manual_seed(0))
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert abs(float((kept == 0).all(dim=(1, 2)).float().mean()) - 0.2) < 0.03
    assert torch.equal(train_atlas.drop_captions(embedded, 0.0, torch.Generator()), embedded)


def test_cameras_look_at_the_origin() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        viewmats, Ks = train_atlas.random_camera(generator, 32)
        rotation, shift = viewmats[0, :3, :3], viewmats[0, :3, 3]
        assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-5)
        assert float(torch.linalg.det(rotation)) > 0.99
        assert torch.allclose(shift, torch.tensor([0.0, 0.0, train_atlas.CAMERA_DISTANCE]), atol=1e-5)
        assert Ks.shape == (1, 3, 3)


def test_a_sample_without_visible_gaussians_says_so() -> None:
    with pytest.raises(ValueError, match="no Gaussian of the sample"):
        sample_atlas.gaussians_of(torch.zeros(16, 8, 8))
