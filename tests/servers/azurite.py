"""Azurite, Microsoft's own emulator of Azure Blob Storage, on 127.0.0.1: `npm install -g azurite`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.processes import answers, free_ports, processes

PROGRAM = "azurite-blob"
# the emulator's account and key are the same everywhere, and public
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def missing() -> str:
    """The reason why it cannot run here; "" if it can."""
    return "" if shutil.which(PROGRAM) else f"{PROGRAM} is not installed: npm install -g azurite"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The connection string, for as long as the context lasts."""
    (port,) = free_ports(1)
    with processes(folder) as started:
        command = (PROGRAM, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder))
        started.start("azurite", *command, "--silent", "--skipApiVersionCheck")
        started.until(lambda: answers(port), PROGRAM)
        yield (
            f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};"
            f"BlobEndpoint=http://127.0.0.1:{port}/{_ACCOUNT};"
        )
