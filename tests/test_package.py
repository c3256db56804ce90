"""The installed package is one, whole, whatever lies beside it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from gaussianverse import __version__
from gaussianverse.fitter.native.sources import INSTRUCTION_SETS

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("atlas", "examples", "fitter", "manifests", "pipeline")
OTHER_FITTER = "fitter==1.8.1"


def ran(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command and return what it prints, in an environment that knows nothing of this checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=clean | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(kind: str, source: Path, folder: Path) -> Path:
    """A `wheel` or `sdist` of a source tree, made as pip has it made, without an index."""
    program = f"import sys, build_backend; print(build_backend.build_{kind}(sys.argv[1]))"
    folder.mkdir(exist_ok=True)
    return folder / ran(sys.executable, "-c", program, folder, cwd=source, PYTHONPATH=".").splitlines()[-1]


def instruction_sets() -> tuple[str, ...]:
    """Instruction sets that the native kernels are compiled for here."""
    return INSTRUCTION_SETS if platform.machine() == "x86_64" else INSTRUCTION_SETS[:1]


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Files of the checkout that git knows."""
    return ran("git", "ls-files", "-z", cwd=ROOT).rstrip("\0").split("\0")


@pytest.fixture(scope="module")
def source(tracked: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout."""
    return built("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with ours in it."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_wheel_holds_one_package_and_every_file_of_its_rooms(wheel: Path, tracked: list[str]) -> None:
    names = members(wheel)
    info = f"gaussianverse-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"gaussianverse", info}
    rooms = {f"gaussianverse/{name}" for name in tracked if name.startswith(tuple(f"{room}/" for room in ROOMS))}
    own = {name for name in tracked if name.startswith("gaussianverse/") and "." in name}
    expected = own | rooms | {f"gaussianverse/fitter/native/kernels_{name}.so" for name in instruction_sets()}
    assert {name for name in names if not name.startswith(info)} == expected
    assert {
        "gaussianverse/py.typed",
        "gaussianverse/fitter/profiles/paper.toml",
        "gaussianverse/atlas/data/plane_indices_fibonacci_128.npy",
        "gaussianverse/atlas/data/plane_indices_fibonacci_192.npy",
        "gaussianverse/examples/train_atlas.py",
        "gaussianverse/manifests/sample/objects.jsonl",
        "gaussianverse/manifests/sample/spot/00000/00000.png",
        "gaussianverse/manifests/sample/spot/00000/00000.json",
    } <= expected


def test_the_sample_that_is_installed_is_whole_and_small(wheel: Path) -> None:
    """Every file of it that git knows, 40 views of each object of the manifest."""
    prefix = "gaussianverse/manifests/sample/"
    with zipfile.ZipFile(wheel) as archive:
        files = {info.filename.removeprefix(prefix): info for info in archive.infolist() if prefix in info.filename}
        rows = [json.loads(line) for line in archive.read(f"{prefix}objects.jsonl").splitlines()]
    for row in rows:
        views = [name for name in files if name.startswith(f"{row['views']}/") and name.endswith(".png")]
        assert len(views) == 40
    assert len(rows) == 4
    assert sum(info.compress_size for info in files.values()) < 4 << 20


def test_the_source_distribution_has_files_for_links_and_gives_the_same_wheel(
    source: Path, wheel: Path, tmp_path: Path
) -> None:
    with tarfile.open(built("sdist", source, tmp_path / "sdist")) as archive:
        assert all(member.isfile() or member.isdir() for member in archive.getmembers())
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / f"gaussianverse-{__version__}"
    assert not (unpacked / "tests").exists()
    assert members(built("wheel", unpacked, tmp_path / "wheel")) == members(wheel)


def test_an_output_folder_does_not_hide_the_reader(site: Path, tmp_path: Path) -> None:
    """Output folders have an atlas/ of their own."""
    for name in (*ROOMS, "splats", "views", "work"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    program = "import gaussianverse; print(gaussianverse.AtlasDataset, gaussianverse.__file__)"
    printed = ran(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(site))
    assert printed.split() == [
        "<class", "'gaussianverse.atlas.reader.dataset.AtlasDataset'>", str(site / "gaussianverse" / "__init__.py")
    ]  # fmt: skip


def test_the_folders_names_are_not_installed(site: Path, tmp_path: Path) -> None:
    found = "[name for name in sys.argv[1:] if importlib.util.find_spec(name)]"
    program = f"import importlib.util, sys; print({found})"
    # -S: without what else is installed here
    assert ran(sys.executable, "-S", "-c", program, *ROOMS, cwd=tmp_path, PYTHONPATH=str(site)) == "[]\n"


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == __version__


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Path:
    """The programs of a fresh environment with the wheel; what it depends on is borrowed from this one."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=True)
    borrowed = home / "borrowed"
    borrowed.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("gaussianverse", "__editable__", "fitter")) and path.suffix != ".pth":
            (borrowed / path.name).symlink_to(path)
    purelib = sysconfig.get_path("purelib", vars={"base": str(home)})
    Path(purelib, "borrowed.pth").write_text(f"{borrowed}\n")
    pip(home / "bin", "install", "--no-deps", "--no-index", wheel)
    return home / "bin"


def pip(programs: Path, *words: str | Path) -> None:
    ran(programs / "python", "-m", "pip", "--disable-pip-version-check", *words, cwd=programs)


@pytest.mark.slow
def test_beside_the_other_fitter_both_work_and_ours_stays_when_it_goes(installed: Path, tmp_path: Path) -> None:
    download = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path), OTHER_FITTER]
    done = subprocess.run(download, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1]}")
    pip(installed, "install", OTHER_FITTER)
    both = "import fitter, gaussianverse.fitter as ours; print(fitter.Fitter, ours.fit_object)"
    printed = ran(installed / "python", "-c", both, cwd=tmp_path)
    assert "'fitter.fitter.Fitter'" in printed
    assert "function fit_object" in printed
    pip(installed, "uninstall", "--yes", "fitter")
    ours = "import gaussianverse.fitter as ours; print(ours.fit_object, ours.load_profile('paper'))"
    assert "36864" in ran(installed / "python", "-c", ours, cwd=tmp_path)
    record = importlib.metadata.Distribution.at(next(installed.parent.rglob("gaussianverse-*.dist-info")))
    files = record.files
    assert files
    assert all(Path(file.locate()).exists() for file in files)


@pytest.mark.slow
def test_a_wheel_in_a_fresh_environment_builds_the_sample(installed: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    ran(installed / "gaussianverse", "fit-shard", "--sample", "--profile", "test", cwd=work)
    ran(installed / "gaussianverse", "verify", "--out", "out", cwd=work)
    program = "import gaussianverse as g; print(g.__file__, len(list(g.AtlasDataset('.', shuffle=False))))"
    file, count = ran(installed / "python", "-c", program, cwd=work / "out").split()
    assert Path(file).is_relative_to(installed.parent)
    assert count == "4"


@pytest.mark.slow
def test_without_a_compiler_the_kernels_are_compiled_by_the_one_of_the_index(source: Path, tmp_path: Path) -> None:
    """The compiler comes from PyPI, for the build alone; what it makes draws what the system's compiler draws."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(Path(sys.base_prefix, "bin", "python3").resolve())
    copy = shutil.copytree(source, tmp_path / "source", symlinks=True)
    command = [programs / "python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path / "wheels", copy]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CXX"))} | {"PATH": str(programs)}
    done = subprocess.run([str(word) for word in command], env=clean, capture_output=True, text=True, cwd=tmp_path)
    if "ziglang" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("no package index that has ziglang")
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (tmp_path / "wheels").glob("gaussianverse-*-py3-none-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    tests = [ROOT / "tests" / name for name in ("test_fitter_native.py", "test_fitter_native_step.py")]
    ran(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=tmp_path,
        PYTHONPATH=os.pathsep.join([str(tmp_path / "site"), str(ROOT / "tests")]),
    )  # fmt: skip
