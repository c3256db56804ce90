"""Licences of objects: their spellings, and a filter of rows by licence."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import Row

_CREATIVE_COMMONS = (
    f"CC-{terms}-{version}"
    for terms in ("BY", "BY-SA", "BY-ND", "BY-NC", "BY-NC-SA", "BY-NC-ND")
    for version in ("1.0", "2.0", "2.5", "3.0", "4.0")
)
SPDX = (
    *("CC0-1.0", "CC-PDDC", "CC-PDM-1.0", *_CREATIVE_COMMONS),
    *("ODbL-1.0", "ODC-By-1.0", "PDDL-1.0", "CDLA-Permissive-2.0", "OGL-UK-3.0", "etalab-2.0"),
    *("MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "ISC", "Zlib", "Unlicense", "WTFPL"),
    *("MPL-2.0", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "GFDL-1.3-only"),
)
"""SPDX identifiers in use for 3D objects; any other licence is "LicenseRef-<name>", as SPDX defines it."""

_OWN = "LicenseRef-"
# the abbreviations of Objaverse's annotations; Sketchfab's objects are under version 4.0
_OBJAVERSE = {
    "cc0": "CC0-1.0",
    **{terms.lower(): f"CC-{terms}-4.0" for terms in ("BY", "BY-SA", "BY-ND", "BY-NC", "BY-NC-SA", "BY-NC-ND")},
}


class Kept(NamedTuple):
    """Rows under a wanted licence.

    Attributes:
        rows: in their order.
        left_out: {licence of other rows: count}; "" where none is stated.
    """

    rows: list[Row]
    left_out: dict[str, int]


def is_spdx(license: str) -> bool:
    """Whether a licence is one of `SPDX` or a LicenseRef-<name>."""
    return license in SPDX or (license.startswith(_OWN) and license != _OWN)


def described(license: str) -> str:
    """Describe a licence for messages; suggests an identifier for an unknown spelling."""
    if not license:
        return "no license stated"
    if is_spdx(license):
        return f"license {license}"
    plain = license.strip().lower().replace("_", "-").replace(" ", "-")
    spelled = {known.lower(): known for known in SPDX}
    meant = spelled.get(plain) or _OBJAVERSE.get(plain.removeprefix("cc-"))
    if meant is None:
        close = get_close_matches(plain, spelled, n=1, cutoff=0.7)
        meant = spelled[close[0]] if close else None
    return f"license {license!r}, an unknown spelling{f'; did you mean {meant}?' if meant else ''}"


def keep(rows: Sequence[Row], wanted: Collection[str]) -> Kept:
    """Keep the rows whose `license` is exactly one of `wanted`.

    Raises:
        ManifestError: as `check_wanted` raises, or no row is left.
    """
    check_wanted(wanted, {row.license for row in rows})
    kept = [row for row in rows if row.license in wanted]
    left_out = Counter(row.license for row in rows if row.license not in wanted)
    if not kept:
        there = "; ".join(f"{described(name)} ({count})" for name, count in left_out.most_common())
        raise ManifestError(f"no object is under {', '.join(wanted)}; the manifest has: {there}")
    return Kept(kept, dict(left_out))


def check_wanted(wanted: Iterable[str], there: Collection[str]) -> None:
    """Refuse misspelled licences, which would silently leave out the rows they should keep.

    Args:
        wanted: the licences to check.
        there: the licences of the rows, accepted in any spelling.

    Raises:
        ManifestError: a licence is empty, or has an unknown spelling that no row has; one fault each.
    """
    faults = [
        described(name) + "; give SPDX identifiers, LicenseRef-<name>, or the spelling of the manifest's rows"
        for name in wanted
        if not name or not (is_spdx(name) or name in there)
    ]
    if faults:
        raise ManifestError(faults)
