"""The trainer as a library: what is learnt of a step, exactness of a resumed training, and what is refused."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from pipeline_runs import finished, write_inputs
from torch import Tensor, nn

from gaussianverse.atlas import AtlasDataset
from gaussianverse.examples.captions import hashed_words
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.networks import small_network
from gaussianverse.examples.photometric import RENDERS, PhotometricConfig
from gaussianverse.examples.process import EPSILON, SAMPLE, Process, V, make_process
from gaussianverse.examples.representation import Representation, RepresentationConfig
from gaussianverse.examples.sampling import DDIM, DPM, sample, solver_of
from gaussianverse.examples.training import Trainer, TrainingConfig
from gaussianverse.examples.validation import reconstruction

CONFIG = TrainingConfig(steps=6, batch_size=2, precision="float32")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("made")
    return finished(folder / "out", write_inputs(folder, ["a", "b", "c"]), "run.shard_size=2")


pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """Two convolutions that know time and caption, called as diffusers' UNet; with dropout, which draws as well."""

    def __init__(self, channels_in: int = 19) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(channels_in, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.of_captions, self.drop = nn.Linear(8, 16), nn.Dropout(0.1)

    def forward(self, values: Tensor, times: Tensor, captions: Tensor) -> Any:
        known = self.of_captions(captions.mean(1)) + times[:, None] / 1000
        return SimpleNamespace(sample=self.last(self.drop(torch.relu(self.first(values) + known[:, :, None, None]))))


def made(url: str, config: TrainingConfig = CONFIG, **options: Any) -> Trainer:
    torch.manual_seed(0)
    data = AtlasDataset(url, infinite=True, views=config.photometric.views_read)
    representation = Representation.of(data, RepresentationConfig())
    return Trainer(config, data, representation, Net(), hashed_words(8, 4), **options)


def losses(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    found = []
    for _ in range(steps):
        trainer.train(until_step=trainer.step + 1)
        found.append(trainer.take_losses())
    return found


@pytest.mark.parametrize("prediction", [SAMPLE, V, EPSILON])
def test_the_clean_atlas_follows_of_what_is_predicted(prediction: str) -> None:
    process = make_process(prediction, zero_snr=prediction != EPSILON)
    clean, noise = torch.randn(2, 3, 16, 4, 4)
    times = torch.tensor([0, 500, 998])
    noisy = process.noisy(clean, noise, times)
    assert torch.allclose(process.clean(process.target(clean, noise, times), noisy, times), clean, atol=1e-3)
    assert torch.allclose(process.signal**2 + process.sigma**2, torch.ones(1000), atol=1e-6)
    assert (float(process.signal[-1]) == 0) == (prediction != EPSILON)


def test_epsilon_without_signal_is_refused() -> None:
    with pytest.raises(TrainingError, match="no-zero-snr"):
        make_process(EPSILON, zero_snr=True)


@pytest.mark.parametrize("solver", [DDIM, DPM])
@pytest.mark.parametrize("prediction", [SAMPLE, V])
def test_a_solver_finds_what_a_perfect_network_knows(dataset: str, solver: str, prediction: str) -> None:
    data = AtlasDataset(dataset)
    representation, process = Representation.of(data), make_process(prediction)
    truth = data.get("a")["atlas"]
    clean = representation(truth)[None]

    def perfect(noisy: Tensor, times: Tensor, embedded: Tensor) -> Tensor:
        signal, sigma = process.at(times)
        return process.target(clean, (noisy - signal * clean) / sigma, times)

    found = sample(perfect, process, representation, hashed_words(8, 4), ["x"], seeds=[3], steps=8, solver=solver)
    assert torch.allclose(found[0], representation.inverse(clean)[0], atol=1e-3)


def test_a_stable_diffusion_scheduler_leaves_no_noise_in_a_sample() -> None:
    """Its `set_alpha_to_one` is False, by which DDIM would end at the first noise level."""
    config = make_process(V).scheduler.config
    of_sd = DDIMScheduler.from_config(config, set_alpha_to_one=False)
    process = Process(DDPMScheduler.from_config(of_sd.config))
    assert process.scheduler.config["set_alpha_to_one"] is False
    assert float(solver_of(process, DDIM, 4).final_alpha_cumprod) == 1
    assert float(solver_of(process, DPM, 4).sigmas[-1]) == 0


def test_a_sample_does_not_depend_on_what_else_is_sampled(dataset: str) -> None:
    trainer = made(dataset)
    trainer.train(until_step=2)
    whole = trainer.sample(["a", "b", "c"], seed=4, steps=3, guidance=2.0)
    parts = trainer.sample(["a", "b", "c"], seed=4, steps=3, guidance=2.0, at_once=1)
    alone = trainer.sample(["c"], seed=6, steps=3, guidance=2.0)
    assert torch.allclose(whole, parts, atol=1e-5)
    assert torch.allclose(whole[2:], alone, atol=1e-5)
    assert not torch.allclose(whole[0], whole[2], atol=1e-2)


@pytest.mark.parametrize("per_pixel", [True, False])
@pytest.mark.parametrize("log_scale", [True, False])
def test_a_representation_is_standardised_and_can_be_undone(
    dataset: str, tmp_path: Path, per_pixel: bool, log_scale: bool
) -> None:
    data = AtlasDataset(dataset)
    made = Representation.of(data, RepresentationConfig(per_pixel=per_pixel, floor=0.0, log_scale=log_scale))
    atlases = torch.stack([data.get(uid)["atlas"] for uid in "abc"])
    values = made(atlases)
    assert torch.allclose(made.inverse(values), atlases, atol=3e-4)
    if per_pixel:
        assert torch.allclose(values.mean(0), torch.zeros(1), atol=1e-2)
    deviations = values.square().mean((0, 2, 3)).sqrt()
    assert 0.5 < float(deviations.min()) < 1.1
    assert float(deviations.max()) < 1.1
    made.save(tmp_path)
    again = Representation.load(tmp_path)
    assert torch.equal(again(atlases), values)
    assert (again.config, again.digest) == (made.config, made.digest)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_training_has_the_same_losses_to_the_last_digit(dataset: str, workers: int) -> None:
    term = PhotometricConfig(weight=0.1, references=RENDERS, views=2, objects=1, size=24)
    config = replace(CONFIG, accumulate=2, caption_dropout=0.5, photometric=term, steps=5)
    whole = losses(made(dataset, config), 5)
    assert all(loss["photometric"] > 0 for loss in whole)
    first = made(dataset, replace(config, workers=workers))
    assert losses(first, 2) == whole[:2]
    torch.manual_seed(9)
    second = made(dataset, config)
    second.load_state_dict(first.state_dict())
    assert losses(second, 3) == whole[2:]


def test_noise_does_not_depend_on_the_time_that_is_drawn(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU generators of one seed give noise and times of the same random bits."""
    trainer = made(dataset, replace(CONFIG, batch_size=1))
    batch, drawn = next(iter(trainer.loader)), []

    def keep(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        drawn.append(torch.cat([times.float(), noise.flatten()[:64].abs()]))
        return clean

    monkeypatch.setattr(trainer.process, "noisy", keep)
    for trainer.step in range(200):
        trainer.losses(batch)
    with_time = torch.corrcoef(torch.stack(drawn, dim=1))[0, 1:]
    # four deviations of the correlation of 200 independent pairs
    assert float(with_time.abs().max()) < 4 / 200**0.5


def test_accumulated_batches_are_one_batch(dataset: str) -> None:
    trainer, other = (made(dataset, replace(CONFIG, clip=1e9)) for _ in range(2))
    batches = [next(iter(trainer.loader)) for _ in range(2)]
    trainer.network.eval()
    with torch.no_grad():
        expected = sum(sum(trainer.losses(batch, number).values()) for number, batch in enumerate(batches)) / 2
    other.update(batches)
    # dropout is the only difference
    assert abs(other.take_losses()["diffusion"] / float(expected) - 1) < 0.1


def test_it_learns_and_the_average_follows(dataset: str) -> None:
    trainer = made(dataset, TrainingConfig(steps=150, batch_size=3, learning_rate=1e-2, warmup=5, ema=0.9))
    atlases = torch.stack([trainer.dataset.get(uid)["atlas"] for uid in "abc"])
    captions = trainer.embed([trainer.dataset.get(uid)["caption"] for uid in "abc"])

    def error() -> float:
        with trainer.averaged_weights():
            at = reconstruction(
                trainer.predict, trainer.process, trainer.representation, atlases, captions, times=[250]
            )
        return at[250]["offset"]

    before = error()
    trainer.train()
    assert trainer.progress == 1
    assert error() < 0.6 * before


def test_what_does_not_fit_together_is_refused(dataset: str) -> None:
    data = AtlasDataset(dataset, infinite=True)
    representation = Representation.of(data)
    with pytest.raises(TrainingError, match="the network cannot take atlases"):
        Trainer(CONFIG, data, representation, Net(16), hashed_words(8, 4))
    with pytest.raises(TrainingError, match="the network cannot take"):
        Trainer(CONFIG, data, representation, Net(), hashed_words(9, 4))
    term = replace(CONFIG, photometric=PhotometricConfig(weight=1.0))
    with pytest.raises(TrainingError, match=r"have 0 reference views.*run\.views=4"):
        Trainer(term, data, representation, Net(), hashed_words(8, 4))
    with pytest.raises(TrainingError, match="standardise=False"):
        Representation.of(AtlasDataset(dataset, standardise=True))
    with pytest.raises(TrainingError, match="Net has no gradient checkpointing"):
        Trainer(replace(CONFIG, gradient_checkpointing=True), data, representation, Net(), hashed_words(8, 4))
    with pytest.raises(TrainingError, match="atlases of 40 cells"):
        small_network(40, 19, 8, 4)
    with pytest.raises(TrainingError, match="without a photometric weight"):
        PhotometricConfig(lpips_weights=Path("vgg.pth"))
    with pytest.raises(TrainingError, match="one seed for each"):
        made(dataset).sample(["a"], at_once=0)
    representation.digest = "other"
    with pytest.raises(TrainingError, match="read the dataset"):
        Trainer(CONFIG, data, representation, Net(), hashed_words(8, 4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": None}, {"cpu_seconds": 1.0}, {"steps": 0}, {"batch_size": 0}, {"ema": 2.0}, {"precision": "fp8"},
        {"learning_rate": 0.0}, {"warmup": -1},
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TrainingError):
        replace(CONFIG, **wrong)
