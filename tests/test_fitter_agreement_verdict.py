"""The rules of the pose gate's verdict on evidence that is made by hand: which rays which views deny."""

from __future__ import annotations

import numpy as np

from gaussianverse.fitter.agreement import kernels
from gaussianverse.fitter.agreement.rays import Evidence
from gaussianverse.fitter.agreement.verdict import judge, search

EACH = 10


def evidence(
    views: int, denied: np.ndarray, *, area: np.ndarray | None = None, lost: bool = False, thin: bool = True
) -> Evidence:
    """`EACH` rays of every view, of one sample each, that view v denies where `denied` [V, R] says so."""
    seen = np.where(denied, kernels.FAR, 0).astype(np.uint8)[:, :, None]
    whole = np.full(views, 100) if area is None else area
    return Evidence(seen, np.repeat(np.arange(views), EACH), whole, lost, lost and thin)


def none(views: int) -> np.ndarray:
    return np.zeros((views, views * EACH), bool)


def test_a_view_whose_own_rays_are_denied_is_found_though_97_of_100_rays_agree() -> None:
    denied = none(60)
    denied[:, 9 * EACH : 9 * EACH + 6] = True
    denied[9] = False
    found = judge(evidence(60, denied), 0.25)
    assert found.agreement > 0.97
    assert (found.outcome, found.wrong) == ("doubtful", (9,))
    denied[:, 9 * EACH + 3 : 10 * EACH] = False
    assert judge(evidence(60, denied), 0.25).outcome == "agrees"


def test_a_view_that_denies_what_others_show_but_is_explained_itself_shows_less() -> None:
    denied = none(20)
    denied[4, ::2] = True
    denied[4, 4 * EACH : 5 * EACH] = False
    found = judge(evidence(20, denied), 0.25)
    assert (found.outcome, found.wrong, found.less) == ("doubtful", (), (4,))


def half_denied(views: int, deniers: int, share: float = 0.9) -> np.ndarray:
    """The first `deniers` views deny most rays of the others, and theirs are explained."""
    denied = none(views)
    denied[:deniers, deniers * EACH :] = np.arange((views - deniers) * EACH) % EACH < share * EACH
    return denied


def test_many_deniers_are_refused_unless_they_show_much_less_than_the_others() -> None:
    denied = half_denied(20, 8)
    assert search(evidence(20, denied), 1).rest >= 0.97
    assert judge(evidence(20, denied), 0.25).outcome == "refused"
    small = np.where(np.arange(20) < 8, 40, 100)
    found = judge(evidence(20, denied, area=small), 0.25)
    assert (found.outcome, found.wrong, found.less) == ("doubtful", (), tuple(range(8)))


def test_many_deniers_are_not_refused_where_masks_were_cut_and_may_have_lost_parts() -> None:
    assert judge(evidence(20, half_denied(20, 8), lost=True, thin=False), 0.25).outcome == "doubtful"


def test_of_thin_masks_that_were_cut_half_of_the_views_may_deny_each_ray() -> None:
    views = 20
    denied = none(views)
    for ray in range(views * EACH):
        denied[(ray // EACH + 1 + np.arange(9)) % views, ray] = True
    assert judge(evidence(views, denied), 0.25).outcome == "refused"
    assert judge(evidence(views, denied, lost=True), 0.25).outcome == "doubtful"
    denied |= np.roll(denied, 4, 0)
    denied[np.repeat(np.arange(views), EACH), np.arange(views * EACH)] = False
    assert judge(evidence(views, denied, lost=True), 0.25).outcome == "refused"


def test_of_few_views_two_may_deny_each_ray() -> None:
    for views, outcome in ((6, "doubtful"), (12, "refused")):
        denied = none(views)
        for ray in range(views * EACH):
            denied[(ray // EACH + 1 + np.arange(2)) % views, ray] = True
        assert judge(evidence(views, denied), 0.25).outcome == outcome
    everybody = none(4)
    everybody[:] = True
    assert judge(evidence(4, everybody), 0.25).outcome == "refused"


def test_where_hardly_a_ray_is_told_it_cannot_tell_unless_enough_are_denied() -> None:
    """Each ray is judged by its own view and the next: two of ten, fewer than a quarter, though none denies it."""
    views = 10
    found = evidence(views, none(views))
    found.seen[:] = kernels.UNSEEN
    for v in range(views):
        found.seen[[v, (v + 1) % views], v * EACH : (v + 1) * EACH] = 0
    assert (judge(found, 0.25).outcome, judge(found, 0.25).agreement) == ("cannot tell", -1.0)
    wide = evidence(50, none(50))
    wide.seen[:] = kernels.UNSEEN
    wide.seen[:, : 3 * EACH] = kernels.FAR
    assert judge(wide, 0.25).outcome == "refused"
    # views that share nothing: many should overlap, and few need not
    alone = evidence(50, none(50))
    alone.seen[:] = kernels.UNSEEN
    assert judge(alone, 0.25).outcome == "refused"
    pair = evidence(2, none(2))
    pair.seen[:] = kernels.UNSEEN
    assert judge(pair, 0.25).outcome == "cannot tell"
