"""Keys of objects: the names by which other people's files call an object of a manifest."""

import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from gaussianverse.manifests.errors import ManifestError

UID, SOURCE, INDEX, OBJAVERSE, SHA256 = "uid", "source_id", "index", "objaverse", "sha256"
FORMS = {
    INDEX: r"^(?:gobjaverse/)?(?P<key>[0-9]+/[0-9]+)$",
    OBJAVERSE: r"^(?:.*[^0-9a-f])?(?P<key>[0-9a-f]{32})(?:\.[a-z]+)?$",
    SHA256: r"^(?:.*[^0-9a-f])?(?P<key>[0-9a-f]{64})$",
}
"""Forms of keys that are known by sight: GObjaverse's index; Objaverse's uid, also as a file's name or at the end of
an address; a sha256."""

Names = dict[str, pa.Array]
"""Texts [N] by `UID`, `SOURCE` and the names of `FORMS`; null where an object has no such name."""


def looks_like_key(text: str) -> bool:
    """Whether a text has one of `FORMS`."""
    return any(re.match(form, text) for form in FORMS.values())


def canonical(keys: pa.Array) -> pa.Array:
    """Keys in one spelling: what their form extracts, or else themselves."""
    return pc.coalesce(*(_extracted(keys, form) for form in FORMS.values()), keys)


def _extracted(values: pa.Array, form: str) -> pa.Array:
    return pc.struct_field(pc.extract_regex(values, form), "key")


def names_of(uids: pa.Array, source_ids: pa.Array, maps: Mapping[str, pa.Table]) -> Names:
    """All names of the objects of a manifest.

    Args:
        uids, source_ids: texts [N].
        maps: tables by the names of their files, whose rows have two or more names of one object.

    Raises:
        ManifestError: a map gives an object two names of one form.
    """
    names: Names = {UID: uids, SOURCE: source_ids}
    for name, form in FORMS.items():
        names[name] = pc.coalesce(_extracted(source_ids, form), _extracted(uids, form))
    # manifests of GObjaverse call 148/753974 148_753974
    spelled = pc.struct_field(pc.extract_regex(uids, "^(?P<key>[0-9]+_[0-9]+)$"), "key")
    names[INDEX] = pc.coalesce(names[INDEX], pc.replace_substring(spelled, "_", "/"))
    for _ in FORMS:  # a chain of maps is as long as there are forms
        for file, table in maps.items():
            known = _forms_in(table)
            for one in FORMS:
                for other in FORMS:
                    if one != other:
                        names[other] = _extended(names[one], names[other], known[one], known[other], file, other)
    return names


def _forms_in(table: pa.Table) -> Names:
    """The keys of each form in the rows of a map."""
    nothing = pa.nulls(len(table), pa.string())
    columns = [
        table[name].combine_chunks().cast(pa.string())
        for name in table.column_names
        if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type)
    ]
    return {
        name: pc.coalesce(*(_extracted(values, form) for values in columns), nothing) for name, form in FORMS.items()
    }


def _extended(have: pa.Array, lack: pa.Array, known: pa.Array, told: pa.Array, file: str, what: str) -> pa.Array:
    """`lack`, with what a map tells of objects that have the other name."""
    pairs = pa.table({"known": known, "told": told}).drop_null()
    if not len(pairs) or not lack.null_count:
        return lack
    pairs = pairs.group_by(["known", "told"]).aggregate([])
    known, told = (pairs[name].combine_chunks() for name in ("known", "told"))
    found = told.take(pc.index_in(pc.if_else(pc.is_null(lack), have, None), known, skip_nulls=True))
    if len(pairs) > pc.count_distinct(known).as_py():
        several = pc.value_counts(known)
        twice = several.field("values").filter(pc.greater(several.field("counts"), 1))
        used = pc.and_(pc.is_in(have, twice, skip_nulls=True), pc.is_null(lack))
        if pc.any(used).as_py():
            raise ManifestError(f"{file}: gives {have.filter(used)[0].as_py()!r} two names of the form {what}")
    return pc.coalesce(lack, found)
