"""Licences of objects: how they are spelled, and keeping only the rows whose licence is wanted."""

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
    *(
        "MIT",
        "MIT-0",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "0BSD",
        "ISC",
        "Zlib",
        "Unlicense",
        "WTFPL",
    ),
    *("MPL-2.0", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "GFDL-1.3-only"),
)
"""Those of SPDX's identifiers that 3D objects come under; others are "LicenseRef-<name>", as SPDX has it."""

_OWN = "LicenseRef-"
# as Objaverse's annotations abbreviate them; Sketchfab's objects are under version 4.0
_OBJAVERSE = {
    "cc0": "CC0-1.0",
    **{
        terms.lower(): f"CC-{terms}-4.0"
        for terms in ("BY", "BY-SA", "BY-ND", "BY-NC", "BY-NC-SA", "BY-NC-ND")
    },
}


class Kept(NamedTuple):
    """Rows under a wanted licence.

    Attributes:
        rows: in their order.
        left_out: {licence of other rows: how many}; "" where none is stated.
    """

    rows: list[Row]
    left_out: dict[str, int]


def is_spdx(license: str) -> bool:
    """Whether this is one of `SPDX`, or a LicenseRef of its own."""
    return license in SPDX or (license.startswith(_OWN) and license != _OWN)


def described(license: str) -> str:
    """A licence for messages; of an unknown spelling, what was perhaps meant."""
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
    return f"license {license!r}, an unknown spelling{f'; is {meant} meant?' if meant else ''}"


def keep(rows: Sequence[Row], wanted: Collection[str]) -> Kept:
    """The rows whose `license` is one of `wanted`, to the letter.

    Raises:
        ManifestError: `wanted` is at fault, as `check_wanted` says, or no row is left.
    """
    check_wanted(wanted, {row.license for row in rows})
    kept = [row for row in rows if row.license in wanted]
    left_out = Counter(row.license for row in rows if row.license not in wanted)
    if not kept:
        there = "; ".join(f"{described(name)} ({count})" for name, count in left_out.most_common())
        raise ManifestError(f"no object is under {', '.join(wanted)}; the manifest has: {there}")
    return Kept(kept, dict(left_out))


def check_wanted(wanted: Iterable[str], there: Collection[str]) -> None:
    """Whether a list of wanted licences can be meant as it is written.

    A misspelled one would leave out, without a word, what it was to keep.

    Args:
        wanted: as given.
        there: licences that rows have, which may be spelled as they like.

    Raises:
        ManifestError: an empty one, or an unknown spelling that no row has either; one fault each.
    """
    faults = [
        described(name) + "; give SPDX identifiers, LicenseRef-<name>, or the spelling of the manifest's rows"
        for name in wanted
        if not name or not (is_spdx(name) or name in there)
    ]
    if faults:
        raise ManifestError(faults)
