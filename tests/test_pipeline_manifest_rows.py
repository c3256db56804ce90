from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pipeline_runs import planned

from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.manifests import footer, row_groups
from gaussianverse.pipeline.dataset import manifest_rows
from gaussianverse.pipeline.dataset.manifest_rows import find_row, shard_rows

UIDS = [f"o{k:02}" for k in range(12)]


@pytest.mark.parametrize("whole", [0, 1 << 20])
def test_a_long_footer_is_read_once_for_all_shards(
    whole: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, parsed = LocalStorage(tmp_path), list[int]()
    run = planned(storage, UIDS, shard_size=2)
    monkeypatch.setattr(row_groups, "WHOLE", whole)
    monkeypatch.setattr(manifest_rows, "_large", {})
    parse = footer.parse

    def counted(data: bytes) -> Any:
        parsed.append(len(data))
        return parse(data)

    monkeypatch.setattr(footer, "parse", counted)
    for _ in range(2):
        rows = [row["uid"] for shard in range(run.n_shards) for row in shard_rows(storage, run, shard)]
        assert rows == UIDS
    assert find_row(storage, run, "o07")[1] == 3
    assert len(parsed) == (whole == 0)
    other = LocalStorage(tmp_path / "other")
    assert [row["uid"] for row in shard_rows(other, planned(other, ["z"]), 0)] == ["z"]
