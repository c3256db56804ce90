"""The machine's faults, made for real under runs as users start them: no object is condemned; the last line tells.

Each run ends with exit code 3, or waits and goes on; once mended, the same command ends with the bytes of an
undisturbed run. `test_pipeline_faults.py` has every error of the system at every place, without Ray and mounts.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from pipeline_commands import build_command, last_line, run, running, temporary_folder
from pipeline_runs import (
    PATIENCE_S,
    TINY,
    dataset,
    differing,
    undisturbed_dataset,
    until,
    write_inputs,
    write_manifest,
)
from servers import fault_proxy
from servers.fault_proxy import FaultProxy, proxying
from servers.moto_server import BUCKET
from servers.mounts import Mount, mounted, small

from gaussianverse.atlas import dataset_format
from gaussianverse.atlas.store import open_storage
from gaussianverse.atlas.store.options import StoreOptions
from gaussianverse.atlas.store.storage import Storage
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.dataset import layout, records
from gaussianverse.pipeline.dataset.parquet import from_parquet
from gaussianverse.pipeline.dataset.schemas import QUARANTINE

pytestmark = pytest.mark.slow

UIDS = ["a", "b", "c", "d", "e", "f"]
SOON = ("--set", "policy.breaker_store_s=5", "--set", "policy.pause_s=0.2", "--set", "policy.pause_max_s=1")
"""A run that gives up after seconds and not after minutes."""
ENDPOINT = "store.endpoint_url={}"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder, UIDS)
    return folder


@pytest.fixture(scope="module")
def expected(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    return undisturbed_dataset(out, str(inputs / "objects.jsonl"), load("test", TINY))


@dataclass
class Case:
    """A run and its store."""

    command: list[str]
    storage: Storage
    errors: Path
    environment: dict[str, str] | None = None

    def broken(self, when: Callable[[], object], breaks: Callable[[], object], *words: str) -> None:
        """Break something in the middle; the run ends with exit code 3 and a last line that has these words."""
        with running(self.command, self.errors, self.environment) as driver:
            until(lambda: driver.poll() is not None or when())
            assert driver.poll() is None, last_line(self.errors)
            breaks()
            code, told = driver.wait(PATIENCE_S), last_line(self.errors)
        assert code == 3, self.errors.read_text()[-2000:]
        assert told.startswith("error: ")
        assert not [word for word in (*words, "same command") if word not in told], told

    def mended(self, expected: dict[str, bytes]) -> None:
        """Nobody was condemned, and the same command ends with the expected bytes."""
        keys = [layout.parse_fragment(entry.key) for entry in self.storage.list(layout.WORK)]
        assert [key for key in keys if key and not records.read(self.storage, *key).ok] == []
        done = run(self.command, self.environment)
        assert done.returncode == 0, done.stderr
        given_up = from_parquet(QUARANTINE, self.storage.get(dataset_format.QUARANTINE))
        assert given_up.num_rows == 0
        assert differing(dataset(self.storage), expected) == []


def case(inputs: Path, out: Path | str, tmp_path: Path, *more: str, store: StoreOptions | None = None) -> Case:
    command = build_command(inputs, out, *SOON, *more)
    return Case(command, open_storage(str(out), store or StoreOptions()), tmp_path / "errors")


def fitted(storage: Storage) -> bool:
    """Whether the run is in the middle."""
    return any(True for _ in storage.list(layout.fragments("splats", 0)))


def share_of(inputs: Path, tmp_path: Path) -> tuple[Path, tuple[Path, str, str]]:
    """A folder of a manifest whose views are on a share, and the arguments that mount it."""
    write_manifest(tmp_path, UIDS)
    return tmp_path, (tmp_path / "views", "--bind", str(inputs / "views"))


def test_views_on_a_share_that_is_lost(inputs: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    folder, arguments = share_of(inputs, tmp_path)
    with mounted(*arguments) as share:
        one = case(folder, tmp_path / "out", tmp_path)
        one.broken(lambda: fitted(one.storage), share.lost, str(share.at), "mount the share")
        share.back()
        one.mended(expected)


def test_a_share_that_is_lost_for_a_minute(inputs: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """With the default pauses."""
    folder, arguments = share_of(inputs, tmp_path)
    with mounted(*arguments) as share:
        out = tmp_path / "out"
        one = Case(build_command(folder, out), open_storage(str(out), StoreOptions()), tmp_path / "errors")
        with running(one.command, one.errors) as driver:
            until(lambda: driver.poll() is not None or fitted(one.storage))
            share.lost()
            time.sleep(60)
            assert driver.poll() is None, last_line(one.errors)
            share.back()
            assert driver.wait(PATIENCE_S) == 0, one.errors.read_text()[-2000:]
        assert from_parquet(QUARANTINE, one.storage.get(dataset_format.QUARANTINE)).num_rows == 0
        assert differing(dataset(one.storage), expected) == []


@pytest.mark.parametrize("options", [(), ("nr_inodes=60",)], ids=["bytes", "files"])
def test_a_full_output(inputs: Path, expected: dict[str, bytes], tmp_path: Path, options: tuple[str, ...]) -> None:
    with mounted(*small(tmp_path / "disk", *options)) as disk:
        out = disk.at / "out"
        one = case(inputs, out, tmp_path)
        freed = list[Callable[[], None]]()
        fill = filled_with_files if options else Mount.fill
        one.broken(
            lambda: fitted(one.storage),
            lambda: freed.append(fill(disk)),
            str(out),
            "No space left",
            "free space there",
        )
        freed[0]()
        if options:
            disk.remount("nr_inodes=4000")
        one.mended(expected)


def filled_with_files(disk: Mount) -> Callable[[], None]:
    made = list[Path]()
    with suppress(OSError):
        while True:
            made.append(disk.at / f"filler-{len(made)}")
            made[-1].touch()

    def free() -> None:
        for path in made:
            path.unlink(missing_ok=True)

    return free


def test_an_output_that_becomes_read_only(inputs: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    with mounted(*small(tmp_path / "disk")) as disk:
        one = case(inputs, disk.at / "out", tmp_path)

        def read_only() -> None:
            until(lambda: disk.remount("ro"))

        one.broken(lambda: fitted(one.storage), read_only, str(disk.at), "Read-only file system", "can be written to")
        disk.remount("rw")
        one.mended(expected)


def test_an_output_that_is_lost(inputs: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    with mounted(tmp_path / "disk", "--bind", str(tmp_path / "real")) as disk:
        one = case(inputs, disk.at / "out", tmp_path)
        one.broken(lambda: fitted(one.storage), disk.lost, str(disk.at / "out"), "the output is lost", "Mount it")
        disk.back()
        one.mended(expected)


@pytest.fixture
def bucket(inputs: Path, s3_endpoint: str, tmp_path: Path) -> str:
    """The address of a copy of the inputs; each object has a file that a fit does not need, of 512 kB."""
    url = f"s3://{BUCKET}/{tmp_path.name}"
    storage = open_storage(url, StoreOptions(endpoint_url=s3_endpoint, region="us-east-1"))
    for path in inputs.rglob("*.*"):
        storage.put_if_absent(path.relative_to(inputs).as_posix(), path.read_bytes())
    for uid in UIDS:
        storage.put_if_absent(f"views/{uid}/notes.bin", bytes(1 << 19))
    return url


def remote(url: str, out: str, endpoint: str, tmp_path: Path) -> Case:
    """A run whose manifest and views are in a bucket."""
    store = StoreOptions(endpoint_url=endpoint, region="us-east-1")
    given = ("--set", ENDPOINT.format(endpoint), "--set", "store.region=us-east-1", "--set", "store.max_attempts=2")
    made = case(Path("/"), out, tmp_path, *given, store=store)
    made.command[made.command.index("--manifest") + 1] = f"{url}/objects.jsonl"
    return made


def test_a_full_folder_for_temporary_files(
    bucket: str, s3_endpoint: str, expected: dict[str, bytes], tmp_path: Path
) -> None:
    one = remote(bucket, str(tmp_path / "out"), s3_endpoint, tmp_path)
    one.command[one.command.index("--workers") + 1] = "1"  # a worker that starts later would choose another folder
    with temporary_folder() as (folder, one.environment), mounted(*small(folder)) as disk:
        freed = list[Callable[[], None]]()
        one.broken(
            lambda: fitted(one.storage), lambda: freed.append(disk.fill()),
            f"temporary files ({disk.at})", "No space left", "free space there, or set TMPDIR",
        )  # fmt: skip
        freed[0]()
        one.mended(expected)


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with proxying(s3_endpoint) as started:
        yield started


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (fault_proxy.EXPIRED, ["expired: renew them"]),
        (fault_proxy.DENIED, ["check address, region and permissions"]),
        (fault_proxy.UNSENT, ["infrastructure failures in a row"]),
        (fault_proxy.UNAVAILABLE, ["infrastructure failures in a row"]),
    ],
)
def test_an_output_in_a_bucket_that_fails_half_way(
    bucket: str, proxy: FaultProxy, fault: str, words: list[str], expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = f"{bucket}/out"
    one = remote(bucket, out, proxy.url, tmp_path)

    def breaks() -> None:
        proxy.fault = lambda method, path: fault if "/out" in path else ""

    one.broken(lambda: fitted(one.storage), breaks, out, *words)
    proxy.fault = ""
    one.mended(expected)


def test_views_in_a_bucket_that_may_no_longer_be_read(
    bucket: str, proxy: FaultProxy, expected: dict[str, bytes], tmp_path: Path
) -> None:
    one = remote(bucket, str(tmp_path / "out"), proxy.url, tmp_path)

    def breaks() -> None:
        proxy.fault = lambda method, path: fault_proxy.EXPIRED if "views" in path else ""

    one.broken(lambda: fitted(one.storage), breaks, f"{bucket}/views", "ExpiredToken", "renew them")
    proxy.fault = ""
    one.mended(expected)


def meminfo(free_kib: int) -> str:
    """/proc/meminfo of a node of 16 GiB."""
    return (
        f"MemTotal: {16 << 20} kB\nMemFree: {free_kib} kB\nMemAvailable: {free_kib} kB\nBuffers: 0 kB\nCached: 0 kB\n"
    )


def test_a_node_whose_memory_something_else_takes(inputs: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    """Ray kills tasks. Forged is the kernel's file, which Ray and the check before an object is blamed both read."""
    forged = tmp_path / "meminfo"
    forged.write_text(meminfo(15 << 20))
    inside = ["unshare", "--mount", "sh", "-c", f'mount --bind {forged} /proc/meminfo && exec "$@"', "sh"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make a namespace of mounts (root)")
    one = case(inputs, tmp_path / "out", tmp_path, "--set", "fit.steps=2000")
    plain, one.command = one.command, [*inside, *one.command]
    one.broken(
        lambda: fitted(one.storage), lambda: forged.write_text(meminfo(1 << 18)), "the node is short of memory"
    )
    one.command = plain
    out = tmp_path / "whole" / "out"
    config = load("test", [*TINY, "fit.steps=2000"])
    one.mended(undisturbed_dataset(out, str(inputs / "objects.jsonl"), config))
