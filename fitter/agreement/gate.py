"""The pose gate: views whose cameras and silhouettes contradict each other are not fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gaussianverse.fitter.agreement.checks import check
from gaussianverse.fitter.agreement.suggestions import suggest
from gaussianverse.fitter.agreement.verdict import AGREES
from gaussianverse.fitter.errors import InconsistentViews
from gaussianverse.fitter.views import Views


@dataclass(frozen=True)
class Gated:
    """What the gate lets through.

    Attributes:
        views: the views to fit; those given, in their order, less `left_out`.
        agreement: 0..1, the share of rays from silhouettes' rims that all views explain; -1 where it cannot tell.
        doubtful: names of views that are contradicted, also of those left out.
        left_out: names of views that are wrong.
    """

    views: Views
    agreement: float = -1.0
    doubtful: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def gate(views: Views, mode: str, max_bad_views: float) -> Gated:
    """Ask whether cameras and silhouettes agree, and leave out single views that are wrong.

    Args:
        views: views that are not blank.
        mode: "refuse"; "warn" refuses nothing and leaves nothing out, but says what it found; "off".
        max_bad_views: largest share of the views that may be left out; where more are wrong, all are refused.

    Raises:
        InconsistentViews: no shape fits the silhouettes; the message says what would.
    """
    if mode == "off":
        return Gated(views)
    alpha = np.ascontiguousarray(views.images[..., 3])
    found = check(alpha, views.c2w, views.Ks, max_bad_views=max_bad_views)
    if found.outcome == "refused" and mode == "refuse":
        likely = found.likely or suggest(alpha, views.c2w, views.Ks)
        mend = "no usual mistake explains it, so check poses, intrinsics and which picture has which pose"
        if likely:
            # the principal points say it also where silhouettes cannot
            agree = f"they agree ({likely.agreement:.2f}) if " if likely.agreement >= AGREES else ""
            mend = agree + likely.text
        raise InconsistentViews(
            f"cameras and silhouettes of {len(views)} views contradict each other (pose_agreement "
            f"{found.agreement:.2f}, expected at least {AGREES}): {mend}; correct the "
            "views, or set pose_gate to 'warn'"
        )
    doubtful = tuple(views.names[v] for v in sorted(found.wrong + found.less))
    if mode == "warn" or not found.wrong:
        return Gated(views, found.agreement, doubtful)
    right = np.setdiff1d(np.arange(len(views)), found.wrong)
    return Gated(views[right], found.agreement, doubtful, tuple(views.names[v] for v in found.wrong))
