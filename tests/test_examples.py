"""Training, sampling and evaluation by their command lines, offline, on shards of tiny objects."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from pipeline_runs import finished, write_inputs
from tiny_pipeline import write_clip, write_pipeline

from bench.datasets import publish_dataset
from gaussianverse.atlas import AtlasDataset, AtlasLoader
from gaussianverse.atlas.interchange.ply import read_ply
from gaussianverse.examples import checkpoints, evaluate_samples, sample_atlas, train_atlas
from gaussianverse.examples.captions import clip_embeddings, dropped
from gaussianverse.examples.errors import TrainingError
from gaussianverse.examples.evaluation import validity
from gaussianverse.examples.networks import load_network, widened
from gaussianverse.examples.photometric import given_views, photometric_loss
from gaussianverse.examples.process import EPSILON, V, checkpoint_process
from gaussianverse.examples.views import DISTANCE, orbit, random_cameras

UIDS = ["a", "b", "c"]
CPU = torch.device("cpu")
QUIET = ["--validate-every", "0", "--sample-every", "0", "--log-every", "1"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("made")
    return finished(folder / "out", write_inputs(folder, UIDS), "run.shard_size=2")


@pytest.fixture(scope="module")
def seen(dataset: str) -> str:
    """The same objects in shards with reference views."""
    folder = Path(dataset).parent
    return finished(folder / "seen", str(folder / "objects.jsonl"), "run.views=4")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Other objects, some of which have no caption."""
    captions = {"d": "", "e": "a ball"}
    return str(publish_dataset(tmp_path_factory.mktemp("other") / "out", "de", shard_size=2, captions=captions))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("sd2"))


pytestmark = pytest.mark.usefixtures("one_thread")


def train(dataset: str, out: Path, *arguments: str) -> list[dict[str, Any]]:
    assert train_atlas.main([dataset, str(out), "--batch-size", "2", *QUIET, *arguments]) == 0
    return metrics(out)


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def refused(caplog: pytest.LogCaptureFixture, *arguments: str) -> str:
    """What a training that cannot begin says."""
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        assert train_atlas.main([*arguments, *QUIET]) == 1
    return caplog.text


def on_rank(rank: int, world: int, port: int, killed_at: int, arguments: list[str]) -> None:
    """Train as one rank of several; rank 0 is killed while it writes the checkpoint of step `killed_at`."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    if world > 1:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
        )  # fmt: skip
    write = checkpoints.sha256_of_file

    def killed(path: Path) -> str:
        about = path.parent / "about.json"
        if about.exists() and json.loads(about.read_text())["step"] == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path)

    checkpoints.sha256_of_file = killed
    os._exit(train_atlas.main(arguments))


def on_ranks(world: int, *arguments: str, killed_at: int = 0) -> list[int | None]:
    """Exit codes of a training on so many processes; when one is killed, the others are ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [
        context.Process(target=on_rank, args=(rank, world, port, killed_at, list(arguments))) for rank in range(world)
    ]
    for process in ranks:
        process.start()
    ranks[0].join(900)
    for process in ranks[1:]:
        if killed_at:
            process.kill()
        process.join(900)
    return [process.exitcode for process in ranks]


@pytest.mark.parametrize("world", [1, 2])
def test_a_checkpoints_training_is_killed_and_resumed_to_the_last_digit(
    dataset: str, pipeline: Path, tmp_path: Path, world: int
) -> None:
    """A pipeline of Stable Diffusion 2's shape, with byte-pair encoding, through the code of a real one."""
    options = [
        "--checkpoint", str(pipeline), "--prediction", V, "--convert", "--steps", "4", "--save-every", "1",
        "--batch-size", "1", "--accumulate", "2", "--caption-dropout", "0.5", "--gradient-checkpointing", *QUIET,
        "--log-every", "3",
    ]  # fmt: skip
    assert on_ranks(world, dataset, str(tmp_path / "whole"), *options) == [0] * world
    whole = metrics(tmp_path / "whole")
    assert [line["step"] for line in whole] == [3, 4]
    killed = on_ranks(world, dataset, str(tmp_path / "run"), *options, killed_at=3)
    assert killed[0] == -signal.SIGKILL
    assert sorted(p.name for p in (tmp_path / "run").glob("step-*")) == ["step-000001", "step-000002"]
    resumed = [*options, "--resume", "latest", "--workers", "1"]
    assert on_ranks(world, dataset, str(tmp_path / "run"), *resumed) == [0] * world
    assert metrics(tmp_path / "run") == whole
    # what was learnt is the same as well
    networks = [load_network(tmp_path / name / "step-000004").state_dict() for name in ("whole", "run")]
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())


def test_a_small_network_learns_and_writes_what_it_samples(dataset: str, tmp_path: Path) -> None:
    options = ["--small", "--steps", "6", "--warmup", "1", "--validate-every", "6", "--sample-every", "6"]
    assert (
        train_atlas.main([dataset, str(tmp_path / "run"), *options, "--sample-steps", "2", "--log-every", "3"]) == 0
    )
    lines = metrics(tmp_path / "run")
    losses = [line["diffusion"] for line in lines if "diffusion" in line]
    assert len(losses) == 2
    merged = {name: value for line in lines for name, value in line.items()}
    assert {"x0_offset_world/t020", "x0_psnr/t999", "x0_scale/t500", "sample_psnr"} <= set(merged)
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    pictures = {path.name for path in (tmp_path / "run" / "samples" / "step-000006").iterdir()}
    assert {f"{uid}{end}" for uid in UIDS for end in (".png", "-views.png")} <= pictures


def test_captions_are_sampled_and_evaluated(dataset: str, pipeline: Path, tmp_path: Path) -> None:
    train(dataset, tmp_path / "run", "--checkpoint", str(pipeline), "--steps", "1")
    trained, out = str(tmp_path / "run" / "step-000001"), tmp_path / "out"
    lines = tmp_path / "captions.txt"
    lines.write_text("a red ball\na chair\n")
    options = ["--checkpoint", str(pipeline), "--steps", "2", "--at-once", "3"]
    asked = ["--captions", str(lines), "--seeds", "0", "5"]
    assert sample_atlas.main([trained, str(out), *asked, *options]) == 0
    made = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert [(line["caption"], line["seed"]) for line in made] == [
        ("a red ball", 0), ("a red ball", 5), ("a chair", 0), ("a chair", 5),
    ]  # fmt: skip
    for line in made:
        assert len(read_ply((out / f"{line['name']}.ply").read_bytes())) == line["gaussians"] > 0
    assert sample_atlas.main([trained, str(tmp_path / "none"), "--unconditional", "--solver", "ddim", *options]) == 0

    clip = write_clip(tmp_path / "clip")
    assert evaluate_samples.main([trained, dataset, str(tmp_path / "eval"), "--clip", str(clip), *options]) == 0
    found = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert [row["uid"] for row in found["rows"]] == UIDS
    for kind in ("sample", "atlas"):
        assert set(found["mean"][kind]) == {"finite", "live", "connected", "clip_score"}
        assert 0 <= found["mean"][kind]["clip_score"] <= 100
    assert found["mean"]["atlas"]["finite"] == 1


def test_what_a_training_cannot_begin_with_is_refused(
    dataset: str, other: str, pipeline: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, base = str(tmp_path / "new"), [dataset, str(tmp_path / "run")]
    sd2 = ["--checkpoint", str(pipeline), "--steps", "1"]
    assert "predicts epsilon, asked for is v_prediction" in refused(caplog, dataset, out, *sd2, "--prediction", V)
    assert "no-zero-snr" in refused(caplog, dataset, out, *sd2, "--zero-snr")
    assert "--resume out" in refused(caplog, dataset, out, *sd2, "--resume", "latest")
    assert "--set run.views=4" in refused(caplog, dataset, out, *sd2, "--photometric", "1")
    assert "scheduler_config.json" in refused(caplog, dataset, out, "--checkpoint", str(tmp_path / "absent"))
    train(*base[:1], Path(base[1]), *sd2)
    assert "--resume latest to go on" in refused(caplog, *base, *sd2)
    differing = refused(caplog, *base, *sd2, "--resume", "latest", "--learning-rate", "0.1", "--no-log-scale")
    assert "training.learning_rate 5e-05 there, 0.1 here" in differing
    assert "representation.log_scale True there, False here" in differing
    assert "1 of 2 objects have no caption" in refused(caplog, other, out, *sd2)
    assert "cannot take atlases of 8 cells" in refused(caplog, other, out, "--small")
    assert "no gradient checkpointing" in refused(caplog, dataset, out, "--small", "--gradient-checkpointing")
    assert "--convert is for checkpoints" in refused(caplog, dataset, out, "--small", "--convert")
    lpips = ["--photometric", "1", "--photometric-references", "renders", "--lpips-weights", str(tmp_path / "absent")]
    assert "not the weights" in refused(caplog, dataset, out, *sd2, *lpips)
    assert not Path(out).exists()


def test_what_a_model_cannot_sample_with_is_refused(
    dataset: str, other: str, pipeline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(dataset, tmp_path / "run", "--checkpoint", str(pipeline), "--steps", "1")
    trained, out = str(tmp_path / "run" / "step-000001"), str(tmp_path / "out")

    def said(*arguments: str) -> str:
        assert sample_atlas.main([*arguments]) == 1
        return capsys.readouterr().err

    assert "1 of 2 captions are empty" in said(trained, out, "--caption", "a", "--caption", " ")
    assert "text encoder" in said(trained, out, "--caption", "a")
    assert "representation.safetensors" in said(str(pipeline), out, "--caption", "a")
    assert "in 0 steps" in said(trained, out, "--caption", "a", "--steps", "0", "--checkpoint", str(pipeline))
    options = ["--checkpoint", str(pipeline), "--steps", "1"]

    def not_evaluated(*arguments: str) -> str:
        assert evaluate_samples.main([*arguments, *options]) == 1
        return capsys.readouterr().err

    assert "read the dataset" in not_evaluated(trained, other, out)
    assert "'count': 0" in not_evaluated(trained, dataset, out, "--count", "0")
    assert "at least 1" in said(trained, out, "--caption", "a", "--at-once", "0", *options)
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    shutil.copytree(pipeline, tmp_path / "pipe")
    weights = tmp_path / "pipe" / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert "its text encoder is" in said(trained, out, "--caption", "a", "--checkpoint", str(tmp_path / "pipe"))
    about = json.loads((copy / "about.json").read_text())
    about["settings"]["training"]["caption_dropout"] = 0
    (copy / "about.json").write_text(json.dumps(about))
    assert "--guidance 1" in said(str(copy), out, "--caption", "a", *options)
    about["settings"]["training"]["caption_dropout"] = 1
    (copy / "about.json").write_text(json.dumps(about))
    assert "--unconditional" in said(str(copy), out, "--caption", "a", *options)
    about["settings"]["statistics"] = "0" * 64
    (copy / "about.json").write_text(json.dumps(about))
    assert "take all files of one step-* folder" in said(str(copy), out, "--caption", "a", *options)


def test_a_checkpoint_keeps_its_noise_levels_or_is_converted(pipeline: Path) -> None:
    own = checkpoint_process(pipeline)
    assert own.prediction == EPSILON
    assert float(own.signal[-1]) > 0
    converted = checkpoint_process(pipeline, V, convert=True)
    assert converted.prediction == V
    assert float(converted.signal[-1]) == 0
    assert abs(float(converted.signal[0]) - float(own.signal[0])) < 1e-3
    kept = checkpoint_process(pipeline, V, convert=True, zero_snr=False)
    assert torch.equal(kept.signal, own.signal)


def test_byte_pairs_of_a_caption_reach_the_network(pipeline: Path) -> None:
    embed = clip_embeddings(pipeline, CPU)
    found = embed(["a red ball", "a chair", "unheard-of é", ""])
    assert found.shape == (4, 77, 32)
    assert len({tuple(row.flatten().tolist()) for row in found}) == 4


def test_widening_repeats_what_the_checkpoint_does(pipeline: Path) -> None:
    narrow = load_network(pipeline).eval()
    image, captions = torch.randn(2, 4, 16, 16), torch.randn(2, 5, 32)
    with torch.no_grad():
        expected = narrow(image, 7, captions).sample
        wide = widened(narrow, 19)
        inputs = torch.cat([image.repeat(1, 4, 1, 1), torch.randn(2, 3, 16, 16)], dim=1)
        found = wide(inputs, 7, captions).sample
    assert (wide.config.in_channels, wide.config.out_channels) == (19, 16)
    assert torch.allclose(found, expected.repeat(1, 4, 1, 1), atol=1e-5)
    assert widened(wide, 19) is wide


def test_a_checkpoint_of_other_channels_is_refused(pipeline: Path) -> None:
    unet = load_network(pipeline)
    unet.register_to_config(in_channels=9)
    with pytest.raises(TrainingError, match="9 channels in"):
        widened(unet)


def test_of_all_atlases_an_objects_own_looks_most_like_its_views(seen: str) -> None:
    data = AtlasDataset(seen, views=4)
    (batch,) = AtlasLoader(data, batch_size=3)
    for k in range(3):
        references = given_views(batch, k, 4, CPU)
        assert references.colors.shape[0] == 4
        with torch.no_grad():
            of_each = [photometric_loss(a, data.points(), references, None) for a in batch["atlas"]]
        assert int(torch.stack(of_each).argmin()) == k


def test_a_training_with_views_takes_several_of_several_objects(seen: str, pipeline: Path, tmp_path: Path) -> None:
    options = ["--photometric", "1", "--photometric-views", "3", "--photometric-objects", "2", "--steps", "1"]
    (line,) = train(seen, tmp_path / "run", "--checkpoint", str(pipeline), *options)
    assert 0 < line["photometric"] < 12


def test_a_share_of_captions_is_dropped() -> None:
    captions = ["x"] * 2000
    kept = dropped(captions, 0.2, torch.Generator().manual_seed(0))
    assert set(kept) == {"x", ""}
    assert abs(kept.count("") / 2000 - 0.2) < 0.03
    assert dropped(captions, 0.0, torch.Generator()) == captions
    assert dropped(captions, 1.0, torch.Generator()) == [""] * 2000


def test_cameras_look_at_the_origin_with_z_up() -> None:
    for cameras in (orbit(8), random_cameras(20, torch.Generator().manual_seed(0), 32)):
        rotations, shifts = cameras.viewmats[:, :3, :3], cameras.viewmats[:, :3, 3]
        assert torch.allclose(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=1e-5)
        assert bool((torch.linalg.det(rotations) > 0.99).all())
        assert torch.allclose(shifts, torch.tensor([0.0, 0.0, DISTANCE]).expand_as(shifts), atol=1e-5)
        # the world's z axis points up in the image: y of OpenCV's cameras points down
        assert bool((rotations[:, 1, 2] < 0).all())
        assert cameras.Ks.shape == (len(shifts), 3, 3)


def test_validity_tells_one_piece_from_two_and_from_nothing(dataset: str) -> None:
    data = AtlasDataset(dataset)
    atlas, points = data.get("a")["atlas"].clone(), data.points()
    atlas[8:11] = 0.1  # the fit of a ball has few Gaussians, and small ones
    whole = validity(atlas, points)
    assert whole["connected"] > 0.99
    assert whole["finite"] == 1
    apart = atlas.clone()
    apart[0, :8] += 5.0
    assert 0.2 < validity(apart, points)["connected"] < 0.8
    assert validity(torch.zeros_like(atlas), points) == {"finite": 1.0, "live": 0.0, "connected": 0.0}
    atlas[3] = float("nan")
    assert validity(atlas, points)["finite"] == pytest.approx(15 / 16)
