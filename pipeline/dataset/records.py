"""`Record`: the result of a stage for one object. Publish and read fragments and their journal entries."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gaussianverse.atlas import dataset_format, tar
from gaussianverse.atlas.canonical_json import to_json
from gaussianverse.atlas.dataset_format import FAMILIES, MAX_VIEWS, OK, QUARANTINED, SPLATS
from gaussianverse.atlas.errors import AtlasError
from gaussianverse.atlas.store.errors import Altered, NotFound
from gaussianverse.atlas.store.storage import Storage, sha256_of
from gaussianverse.pipeline.dataset import layout
from gaussianverse.pipeline.dataset.provenance import code_digest, made_with
from gaussianverse.pipeline.dataset.run_file import Run
from gaussianverse.pipeline.dataset.schemas import (
    JOURNAL,
    MADE,
    Facts,
    extras_of,
    facts_from_json,
    facts_schema,
    from_json,
    known,
    row,
)
from gaussianverse.pipeline.errors import DamagedFragment, PipelineError, message
from gaussianverse.pipeline.policy import REASONS
from gaussianverse.pipeline.store.publish import Published, publish

_FROM_MANIFEST = (
    "index", "uid", "source_id", "shard", "category", "license", "caption", "caption_source", "captions",
    "caption_sources", "split", "attribution",
)  # fmt: skip

_MEMORY = re.compile(r"\b0x[0-9a-fA-F]{4,}\b")
# absolute paths, of which the last part is kept; in quotes they may hold spaces. s3://bucket/key is an address and no
# place of a machine.
_QUOTED = re.compile(r"(['\"])/(?:[^'\"]*/)?([^'\"/]*)\1")
_PLACE = re.compile(r"(?<![\w/.:-])/(?:[^\s/'\",;:()]+/)+([^\s/'\",;:()]*)")


@dataclass(frozen=True)
class Record:
    """Facts and members of one object in a family."""

    facts: Facts
    members: dict[str, bytes]

    @property
    def ok(self) -> bool:
        """Whether there is a sample; if not, the facts have the reason."""
        return bool(self.facts["status"] == OK)

    def main(self, family: str) -> bytes:
        """The main member, which holds the arrays."""
        return self.members[dataset_format.main_member(family, str(self.facts["uid"]))]


class Stopwatch:
    """Measures the work on a fragment, for its journal entry."""

    def __init__(self, attempts: int) -> None:
        self.attempts, self.started, self.clock = attempts, time.time(), time.perf_counter()

    def entry(self, family: str, facts: Mapping[str, Any], measured: Mapping[str, Any]) -> Facts:
        """The journal entry, without the fragment's hash."""
        return row(
            JOURNAL[family],
            {
                **measured,
                "index": facts["index"],
                "uid": facts["uid"],
                "stage": family,
                "status": facts["status"],
                "attempts": self.attempts,
                "started": round(self.started, 3),
                "seconds": time.perf_counter() - self.clock,
                "host": f"{socket.gethostname()}/{os.getpid()}",
            },
        )


def facts_of(family: str, manifest_row: Mapping[str, Any], run: Run, **values: Any) -> Facts:
    """The facts of one object, from its row of the manifest and the results of the stage.

    They name the code that made them: a fragment may come from a machine with other versions than the run's first.
    """
    made = dict(zip(MADE.get(family, ()), (code_digest(), made_with()), strict=False))
    return row(
        run.facts_schema(family),
        {
            **{name: manifest_row[name] for name in (*_FROM_MANIFEST, *(name for name, _ in run.extras))},
            "config_digest": run.digest,
            "schema_version": dataset_format.SCHEMA_VERSION,
            **({"fit_digest": run.fit_digest} if family == SPLATS else {}),
            **made,
            **values,
        },
    )


def publish_sample(
    storage: Storage,
    family: str,
    facts: Facts,
    data: bytes,
    watch: Stopwatch,
    measured: Mapping[str, Any],
    images: Mapping[str, bytes] | None = None,
) -> Published:
    """Publish the fragment of a successful object: arrays, facts, caption, and PNGs of views by their suffix."""
    members = members_of(family, facts, data, images or {})
    return _publish(storage, family, facts, tar.build(members), watch.entry(family, facts, measured))


def members_of(family: str, facts: Facts, data: bytes, images: Mapping[str, bytes]) -> dict[str, bytes]:
    """The members of a successful object: arrays, PNGs of views by their suffix, facts and caption."""
    uid = str(facts["uid"])
    return {
        dataset_format.main_member(family, uid): data,
        **{f"{uid}.{suffix}": image for suffix, image in images.items()},
        dataset_format.facts_member(uid): to_json(facts),
        dataset_format.caption_member(uid): str(facts["caption"]).encode(),
    }


def publish_fragment(storage: Storage, family: str, facts: Facts, data: bytes, watch: Stopwatch) -> Published:
    """Publish the fragment of an object that was made elsewhere, with these facts."""
    return _publish(storage, family, facts, data, watch.entry(family, facts, {}))


def publish_quarantine(
    storage: Storage, family: str, manifest_row: Mapping[str, Any], run: Run, why: Mapping[str, Any], watch: Stopwatch
) -> Published:
    """Publish the fragment of a quarantined object, under the key that its success would have had.

    Args:
        storage: store of the run.
        family: family that failed.
        manifest_row: row of the object, with its shard.
        run: the run.
        why: `reason` (one of `REASONS`), `error_class` and `error_message`.
        watch: started when the work began.
    """
    reason = why["reason"] if why["reason"] in REASONS else "unknown"
    facts = facts_of(
        family,
        manifest_row,
        run,
        status=QUARANTINED,
        reason=reason,
        error_class=why["error_class"],
        error_message=closed(str(why["error_message"])),
    )
    members = {dataset_format.facts_member(str(facts["uid"])): to_json(facts)}
    measured = {"error_text": message(str(why.get("error_text") or why["error_message"]))}
    return _publish(storage, family, facts, tar.build(members), watch.entry(family, facts, measured))


def closed(text: str) -> str:
    """The text of an error as it is published: without addresses in memory, and places of the machine.

    Published bytes are the same in two folders and on two days. The whole text is in the journal.
    """
    return message(_PLACE.sub(r"\1", _QUOTED.sub(r"\1\2\1", _MEMORY.sub("an address", text))))


def _publish(storage: Storage, family: str, facts: Facts, data: bytes, entry: Facts) -> Published:
    """Publish the journal entry first, under the fragment's hash: whichever fragment wins, its entry exists."""
    shard, uid = int(facts["shard"]), str(facts["uid"])
    sha256 = sha256_of(data)
    entry = {**entry, "fragment_sha256": sha256}
    publish(storage, layout.run_record(family, shard, uid, sha256), to_json(entry), durable=False)
    return publish(storage, layout.fragment(family, shard, uid), data)


def sample_members(family: str, facts: Mapping[str, Any]) -> list[str]:
    """Names of the members of a successful object, in the order of the tar."""
    # a damaged count must not allocate memory
    count = min(int(facts.get("n_reference_views", 0)), MAX_VIEWS)
    return dataset_format.member_names(family, str(facts["uid"]), count)


def given_up(family: str, facts: Mapping[str, Any]) -> bytes:
    """The fragment in this family of an object that another stage quarantined with these facts."""
    schema = facts_schema(family, extras_of(facts), int(facts["schema_version"]))
    own = row(schema, known(schema, facts))
    return tar.build({dataset_format.facts_member(str(own["uid"])): to_json(own)})


def parse(family: str, shard: int, uid: str, data: bytes) -> Record:
    """Parse the fragment of an object.

    Raises:
        DamagedFragment: it is damaged, or belongs to another object.
    """
    where = layout.fragment(family, shard, uid)
    try:
        members = tar.parse(data)
        facts = facts_from_json(family, members.get(dataset_format.facts_member(uid), b""))
    except (AtlasError, PipelineError) as error:
        raise DamagedFragment(f"{where}: {error}", family, shard, uid) from error
    expected = set(sample_members(family, facts)) if facts["status"] == OK else {dataset_format.facts_member(uid)}
    if set(members) != expected or (facts["uid"], facts["shard"]) != (uid, shard):
        held = f"holds {', '.join(sorted(members))}, expected {', '.join(sorted(expected))}"
        raise DamagedFragment(f"{where}: {held}", family, shard, uid)
    return Record(facts, members)


class Written:
    """The hashes of the fragments that were written for a shard, known apart from the fragments.

    Each is in the name of a journal entry, which was there before its fragment.
    """

    def __init__(self, storage: Storage, family: str, shard: int, uid: str = "") -> None:
        prefix = layout.run_records(family, shard)
        self._storage, self._family, self._shard = storage, family, shard
        self._keys = {entry.key for entry in storage.list(f"{prefix}{uid}." if uid else prefix)}
        self._uids = {key.removeprefix(prefix).partition(".")[0] for key in self._keys}

    def get(self, uid: str) -> bytes:
        """The fragment of an object.

        Raises:
            NotFound: there is none.
            DamagedFragment: its bytes are not those that were written.
        """
        where = layout.fragment(self._family, self._shard, uid)
        try:
            data = self._storage.get(where)
        except Altered as error:
            raise DamagedFragment(str(error), self._family, self._shard, uid) from error
        key = layout.run_record(self._family, self._shard, uid, sha256_of(data))
        if key not in self._keys and uid in self._uids:
            text = f"{where}: its sha256 is that of no fragment that was written; it changed in the store"
            raise DamagedFragment(text, self._family, self._shard, uid)
        return data


def discard(storage: Storage, damaged: DamagedFragment) -> None:
    """Delete a damaged fragment, and the atlas that was made of it, so that both are made again."""
    for family in FAMILIES if damaged.family == SPLATS else (damaged.family,):
        storage.delete(layout.fragment(family, damaged.shard, damaged.uid))


def read(storage: Storage, family: str, shard: int, uid: str) -> Record:
    """Fetch and parse a fragment.

    Raises:
        NotFound: there is none.
        DamagedFragment: it changed after it was written, or belongs to another object.
    """
    return parse(family, shard, uid, Written(storage, family, shard, uid).get(uid))


def read_entry(storage: Storage, family: str, facts: Mapping[str, Any], sha256: str) -> Facts:
    """The journal entry of the fragment with these facts and hash; defaults if it is lost or damaged."""
    shard, uid = int(facts["shard"]), str(facts["uid"])
    try:
        return from_json(JOURNAL[family], storage.get(layout.run_record(family, shard, uid, sha256)))
    except (PipelineError, NotFound):
        return unknown_entry(family, facts, sha256)


def unknown_entry(family: str, facts: Mapping[str, Any], sha256: str) -> Facts:
    """The journal entry of a fragment of which no times are known."""
    about = {name: facts[name] for name in ("index", "uid", "status")}
    return row(JOURNAL[family], {**about, "stage": family, "fragment_sha256": sha256})
