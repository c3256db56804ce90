"""Ray's start: addresses that do not answer, and errors in one line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent import futures
from contextlib import closing
from pathlib import Path

import grpc
import pytest
import ray

from gaussianverse.pipeline import arguments
from gaussianverse.pipeline.config import load
from gaussianverse.pipeline.errors import PipelineError
from gaussianverse.pipeline.run import ray_start
from gaussianverse.pipeline.run.executor import Job
from gaussianverse.pipeline.run.ray_start import ray_executor, reachable


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.fixture
def other() -> Iterator[int]:
    """The port of a gRPC server that is not Ray."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_no_ray_answers_is_an_error(
    scheme: str, silent: int, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_start, "_CONNECT_S", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        dead = server.getsockname()[1]
    for port, word in ((dead, "refused"), (silent, "does not answer as Ray does"), (other, "UNIMPLEMENTED")):
        with pytest.raises(PipelineError, match=word):
            reachable(f"{scheme}127.0.0.1:{port}")


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = futures.Future[None]()
    monkeypatch.setattr(ray_start, "_CONNECT_S", 0.05)
    monkeypatch.setattr(socket, "create_connection", lambda *_: waiting.result(10))
    with pytest.raises(PipelineError, match="no answer"):
        reachable("head.example:6379")
    waiting.set_exception(OSError("late"))


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8265", "host", "host:port", "ray://", "host:99999", "a:1/b", ""]
)
def test_an_address_of_another_form_is_named(address: str) -> None:
    with pytest.raises(PipelineError, match="expected host:port, ray://host:port, auto or local"):
        reachable(address)


def test_the_cluster_of_this_machine_is_named_if_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", lambda: [])
    with pytest.raises(PipelineError, match="'auto': Could not find any running Ray instance"):
        reachable("auto")


def test_whatever_ray_raises_at_its_start_is_one_line_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def init(**options: object) -> None:
        seen.append(Path(str(options["_temp_dir"])))
        raise Exception("The current node timed out during startup.\nThis could happen because ..")

    monkeypatch.setattr(ray, "init", init)
    expected = r"^Ray did not start: The current node timed out during startup\. This"
    with pytest.raises(PipelineError, match=expected), ray_executor(load("test"), Job("/nowhere")):
        pass
    assert not seen[0].parent.exists()


def test_ray_address_names_the_cluster_unless_an_option_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = arguments.argparse.ArgumentParser()
    arguments.add_building(parser)

    def address(*options: str) -> str:
        return arguments.building_config_of(parser.parse_args(["--profile", "test", *options])).ray.address

    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert address() == "head:6379"
    assert (
        capsys.readouterr().err
        == "Ray: joining head:6379, as RAY_ADDRESS says (--ray-address local starts it here)\n"
    )
    assert address("--ray-address", "local") == ""
    assert address("--ray-address", "other:6379") == address("--set", "ray.address=other:6379") == "other:6379"
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert address() == ""
    assert capsys.readouterr().err == ""
