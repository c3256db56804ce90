"""What a stage leaves behind for an object: its facts, its fragment, and the journal entry beside it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gaussianverse.atlas import dataset_format, tar
from gaussianverse.atlas.canonical_json import to_json
from gaussianverse.atlas.dataset_format import MAX_VIEWS, OK, QUARANTINED
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.store.errors import NotFound
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import FACTS, JOURNAL, Facts, from_json, known, row
from gaussianverse.pipeline.errors import FragmentError, PipelineError, message
from gaussianverse.pipeline.policy import REASONS
from gaussianverse.pipeline.store.publish import Published, publish

_FROM_MANIFEST = ("index", "uid", "source_id", "shard", "category", "license", "caption", "caption_source")


@dataclass(frozen=True)
class Record:
    """A parsed fragment."""

    facts: Facts
    members: dict[str, bytes]

    @property
    def ok(self) -> bool:
        """Whether there is a sample; if not, `facts` say why."""
        return self.facts["status"] == OK

    def main(self, stage: str) -> bytes:
        """The member that holds the arrays."""
        return self.members[dataset_format.main_member(stage, str(self.facts["uid"]))]


class Stopwatch:
    """When work on a fragment began, and where; makes its journal entry."""

    def __init__(self, attempts: int) -> None:
        self.attempts, self.started, self.clock = attempts, time.time(), time.perf_counter()

    def entry(self, stage: str, facts: Mapping[str, Any], measured: Mapping[str, Any]) -> Facts:
        """The journal's row but for the fragment's hash."""
        return row(
            JOURNAL[stage],
            {
                **measured,
                "index": facts["index"],
                "uid": facts["uid"],
                "stage": stage,
                "status": facts["status"],
                "attempts": self.attempts,
                "started": round(self.started, 3),
                "seconds": time.perf_counter() - self.clock,
                "host": f"{socket.gethostname()}/{os.getpid()}",
            },
        )


def facts_of(stage: str, manifest_row: Mapping[str, Any], run: Run, **values: Any) -> Facts:
    """The facts of one object: its row of the manifest, then what the stage found."""
    return row(
        FACTS[stage],
        {
            **{name: manifest_row[name] for name in _FROM_MANIFEST},
            "config_digest": run.digest,
            "schema_version": dataset_format.SCHEMA_VERSION,
            **values,
        },
    )


def publish_sample(
    storage: Storage,
    stage: str,
    facts: Facts,
    data: bytes,
    watch: Stopwatch,
    measured: Mapping[str, Any],
    images: Mapping[str, bytes] | None = None,
) -> Published:
    """Publish a finished object: arrays, facts, caption, and the images of views by their suffix."""
    uid = str(facts["uid"])
    members = {
        dataset_format.main_member(stage, uid): data,
        **{f"{uid}.{suffix}": image for suffix, image in (images or {}).items()},
        dataset_format.facts_member(uid): to_json(facts),
        dataset_format.caption_member(uid): str(facts["caption"]).encode(),
    }
    return _publish(storage, stage, facts, members, watch.entry(stage, facts, measured))


def publish_quarantine(
    storage: Storage,
    stage: str,
    manifest_row: Mapping[str, Any],
    run: Run,
    why: Mapping[str, Any],
    watch: Stopwatch,
) -> Published:
    """Publish that an object is given up, under the same key that its success would have had.

    Args:
        storage: of the run.
        stage: that could not be done.
        manifest_row: of the object, with its shard.
        run: the run.
        why: `reason`, one of the closed list, `error_class` and `error_message`.
        watch: started when the work was.
    """
    reason = why["reason"] if why["reason"] in REASONS else "unknown"
    facts = facts_of(
        stage,
        manifest_row,
        run,
        status=QUARANTINED,
        reason=reason,
        error_class=why["error_class"],
        error_message=message(why["error_message"]),
    )
    members = {dataset_format.facts_member(str(facts["uid"])): to_json(facts)}
    return _publish(storage, stage, facts, members, watch.entry(stage, facts, {}))


def _publish(
    storage: Storage, stage: str, facts: Facts, members: Mapping[str, bytes], entry: Facts
) -> Published:
    """The journal entry first, under the fragment's own hash: whichever fragment wins, its entry exists."""
    shard, uid = int(facts["shard"]), str(facts["uid"])
    data = tar.build(members)
    sha256 = sha256_of(data)
    entry = {**entry, "fragment_sha256": sha256}
    publish(storage, layout.run_record(stage, shard, uid, sha256), to_json(entry), durable=False)
    return publish(storage, layout.fragment(stage, shard, uid), data)


def sample_members(stage: str, facts: Mapping[str, Any]) -> list[str]:
    """Names of the members of an object that came through, in the order in which they lie in the tar."""
    # a damaged count must not ask for memory
    count = min(int(facts.get("n_reference_views", 0)), MAX_VIEWS)
    return dataset_format.member_names(stage, str(facts["uid"]), count)


def given_up(stage: str, facts: Mapping[str, Any]) -> bytes:
    """The fragment, in this family, of an object that another stage gave up, of whose row `facts` are."""
    own = row(FACTS[stage], known(FACTS[stage], facts))
    return tar.build({dataset_format.facts_member(str(own["uid"])): to_json(own)})


def parse(stage: str, shard: int, uid: str, data: bytes) -> Record:
    """Read a fragment and check that it is this object's.

    Raises:
        FragmentError: it is damaged, or another object's.
    """
    where = layout.fragment(stage, shard, uid)
    try:
        members = tar.parse(data)
        facts = from_json(FACTS[stage], members.get(dataset_format.facts_member(uid), b""))
    except (AtlasError, PipelineError) as fault:
        raise FragmentError(f"{where}: {fault}; delete it to have it made again") from fault
    expected = (
        set(sample_members(stage, facts)) if facts["status"] == OK else {dataset_format.facts_member(uid)}
    )
    if set(members) != expected or (facts["uid"], facts["shard"]) != (uid, shard):
        raise FragmentError(
            f"{where}: holds {', '.join(sorted(members))}, expected {', '.join(sorted(expected))}"
        )
    return Record(facts, members)


def read(storage: Storage, stage: str, shard: int, uid: str) -> Record:
    """Fetch and parse a fragment. Raises NotFound and what `parse` raises."""
    return parse(stage, shard, uid, storage.get(layout.fragment(stage, shard, uid)))


def read_entry(storage: Storage, stage: str, facts: Mapping[str, Any], sha256: str) -> Facts:
    """The journal entry of the fragment with these facts and this hash; defaults where it is lost or damaged."""
    shard, uid = int(facts["shard"]), str(facts["uid"])
    try:
        return from_json(JOURNAL[stage], storage.get(layout.run_record(stage, shard, uid, sha256)))
    except (PipelineError, NotFound):
        about = {name: facts[name] for name in ("index", "uid", "status")}
        return row(JOURNAL[stage], {**about, "stage": stage, "fragment_sha256": sha256})
