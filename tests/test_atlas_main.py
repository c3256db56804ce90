from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gaussianverse.atlas import Gaussians
from gaussianverse.atlas.__main__ import main
from gaussianverse.atlas.gaussians import canonical_quats
from gaussianverse.atlas.plane import plane_indices


@pytest.fixture
def fit(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(60, 3))
    means *= 0.4 / np.linalg.norm(means, axis=1, keepdims=True)
    gaussians = Gaussians(
        means=means.astype(np.float32),
        scales=rng.uniform(0.01, 0.05, (60, 3)).astype(np.float32),
        quats=canonical_quats(rng.normal(size=(60, 4))),
        opacities=np.full(60, 0.9, np.float32),
        colors=rng.uniform(0, 1, (60, 3)).astype(np.float32),
    )
    path = tmp_path / "fit.npz"
    gaussians.save(path)
    return path


def test_pack_show_and_unpack(fit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, back = tmp_path / "a.npy", tmp_path / "back.npz"
    assert main([str(fit), str(out), "--size", "8", "--min-smoothness", "0"]) == 0
    assert "60 Gaussians, 4 cells padded, 0 dropped" in capsys.readouterr().out
    assert np.load(out, allow_pickle=False).shape == (8, 8, 16)
    assert main(["show", str(out), str(tmp_path / "a.png")]) == 0
    assert Image.open(tmp_path / "a.png").width > 1000
    assert main(["unpack", str(out), str(back)]) == 0
    before, after = Gaussians.load(fit), Gaussians.load(back)
    rows = np.lexsort(before.means.T), np.lexsort(after.means.T)
    np.testing.assert_allclose(after.colors[rows[1]], before.colors[rows[0]])
    assert main(["unpack", str(out), str(tmp_path / "back.ply")]) == 0
    again = tmp_path / "b.npy"
    assert main([str(tmp_path / "back.ply"), str(again), "--size", "8", "--min-smoothness", "0"]) == 0
    np.testing.assert_allclose(np.load(again), np.load(out), atol=1e-5)


def test_plane_is_the_solved_one(tmp_path: Path) -> None:
    assert main(["plane", str(tmp_path / "p.npy"), "--size", "8"]) == 0
    assert sorted(np.load(tmp_path / "p.npy").tolist()) == list(range(64))


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"no npz", "not an .npz file of Gaussians"), (b"", "not an .npz file of Gaussians"), (None, "No such file")],
)
def test_faults_are_one_line_and_exit_1(
    content: bytes | None, fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.npz"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path), str(tmp_path / "o.npy")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert fault in error
    assert str(path) in error


def test_a_rough_atlas_is_not_written(fit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(fit), str(tmp_path / "o.npy"), "--size", "8", "--min-smoothness", "0.999"]) == 1
    assert "smoothness" in capsys.readouterr().err
    assert not (tmp_path / "o.npy").exists()


def test_show_refuses_what_is_no_atlas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 4)))
    assert main(["show", str(tmp_path / "x.npy"), str(tmp_path / "x.png")]) == 1
    assert "an atlas has shape" in capsys.readouterr().err


def test_layout_and_indices_are_chosen_the_same_way_in_both_directions(fit: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.roll(plane_indices(8).reshape(8, 8), 2, axis=0))
    before = Gaussians.load(fit).means
    for choice in (["--layout", "ring"], ["--plane-indices", str(tmp_path / "p.npy")]):
        out, back = tmp_path / "a.npy", tmp_path / "back.npz"
        assert main([str(fit), str(out), "--size", "8", *choice]) == 0
        assert main(["unpack", str(out), str(back), *choice]) == 0
        after = Gaussians.load(back).means
        np.testing.assert_allclose(after[np.lexsort(after.T)], before[np.lexsort(before.T)], atol=1e-6)
        assert main(["show", str(out), str(tmp_path / "a.png"), *choice]) == 0
