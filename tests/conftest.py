import os
import sys

# Ray on one machine: on 127.0.0.1, without accounts and without telling anybody. Read at import, so set here.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import settings

# The tests try the same inputs each time, so that what fails is what was changed; `make fuzz` looks for others.
# No deadlines: machines are shared.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--run-slow"):
        skip = pytest.mark.skip(reason="slow: minutes; run with --run-slow")
        for item in items:
            if item.get_closest_marker("slow"):  # keywords would also hold the names of the folders above
                item.add_marker(skip)


@pytest.fixture(scope="module", autouse=True)
def no_ray_is_left() -> Iterator[None]:
    """Fails a file whose tests leave Ray running in this process, where the next file could not start its own."""
    yield
    if ray := sys.modules.get("ray"):
        assert not ray.is_initialized()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Runs torch on one thread: on a busy machine, several would wait for each other for minutes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def egl() -> None:
    """Skips where OpenGL cannot draw."""
    pytest.importorskip("moderngl", reason="needs the extra 'render'")
    with suppress(ImportError):  # of torch's builds for CUDA; loaded after the LLVM of Mesa it ends the process
        import triton  # noqa: F401
    from gaussianverse.manifests.errors import RenderError
    from gaussianverse.manifests.rendering import drawing

    try:
        drawing._open_context()[1].release()
    except RenderError as error:
        pytest.skip(f"OpenGL cannot draw here: {error}")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of an S3 server in this process, with a bucket called `bucket`."""
    from servers.moto_server import serving

    with serving() as endpoint:
        yield endpoint
