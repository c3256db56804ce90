"""The pose gate's judgement: right views agree whatever their object and world; each kind of mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from made_silhouettes import (
    BALL,
    CREATURE,
    HAIR,
    NEEDLE,
    RING,
    SHEET,
    SIGN,
    Made,
    Posed,
    draw,
    ring,
    spiral,
    swapped,
    transposed,
    turned_aside,
)

from gaussianverse.fitter.agreement import check
from gaussianverse.fitter.agreement.verdict import AGREES

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


@cache
def creature() -> Posed:
    return draw(CREATURE, spiral(24))


def wide() -> Posed:
    return draw(CREATURE, spiral(24), 64, 48)


@pytest.mark.parametrize("made", [CREATURE, NEEDLE, RING, BALL], ids=["creature", "needle", "ring", "ball"])
@pytest.mark.parametrize(
    "poses", [spiral(24), ring(24), spiral(5), spiral(3), spiral(2)], ids=["24", "ring", "5", "3", "2"]
)
def test_right_views_agree(made: Made, poses: np.ndarray) -> None:
    found = check(*draw(made, poses))
    assert found.outcome == "agrees"
    assert found.wrong == found.less == ()


@pytest.mark.parametrize("made", [SHEET, SIGN], ids=["sheet", "sign"])
@pytest.mark.parametrize("poses", [spiral(24), ring(24), ring(6), ring(8)[:4]], ids=["24", "ring", "6", "4"])
def test_planes_that_vanish_edge_on_are_not_wrong(made: Made, poses: np.ndarray) -> None:
    found = check(*draw(made, poses))
    assert found.outcome in ("agrees", "doubtful")
    assert found.wrong == ()


@pytest.mark.parametrize("poses", [spiral(24), ring(24), spiral(5), spiral(2)], ids=["24", "ring", "5", "2"])
def test_an_object_thinner_than_a_pixel_is_not_refused(poses: np.ndarray) -> None:
    assert check(*draw(HAIR, poses)).outcome != "refused"


@pytest.mark.parametrize("size", [1e-10, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("origin", [(0.0, 0.0, 0.0), (500_000.0, 5_600_000.0, 300.0)])
def test_neither_unit_nor_origin_of_the_world_matters(size: float, origin: tuple[float, float, float]) -> None:
    posed = creature()
    for alpha in (posed.alpha, np.roll(posed.alpha, 1, 0)):
        here = check(alpha, posed.c2w, posed.K)
        c2w = posed.c2w.copy()
        # float64 keeps the poses' digits only where the origin is not too far for the unit
        c2w[:, :3, 3] = c2w[:, :3, 3] * size + np.multiply(origin, min(1.0, 1e3 * size))
        there = check(alpha, c2w, posed.K)
        assert there.outcome == here.outcome
        # rounding may move a sample into the next pixel
        assert there.agreement == pytest.approx(here.agreement, abs=0.01)


@pytest.mark.parametrize(
    "fault",
    [
        lambda p: p._replace(c2w=np.linalg.inv(p.c2w)),
        lambda p: p._replace(c2w=p.c2w @ FLIP),
        lambda p: p._replace(c2w=np.linalg.inv(p.c2w) @ FLIP),
        lambda p: p._replace(c2w=transposed(p.c2w)),
        lambda p: p._replace(K=swapped(p.K)),
        lambda p: p._replace(alpha=p.alpha[:, :, ::-1]),
        lambda p: p._replace(alpha=p.alpha[:, ::-1]),
        lambda p: p._replace(alpha=p.alpha[:, ::-1, ::-1]),
        lambda p: p._replace(alpha=p.alpha[np.random.default_rng(0).permutation(len(p.alpha))]),
    ],
    ids=[
        "inverse",
        "flip",
        "inverse and flip",
        "transpose",
        "swapped",
        "mirrored",
        "upside down",
        "half turn",
        "shuffled",
    ],
)
def test_gross_mistakes_are_refused(fault: Callable[[Posed], Posed]) -> None:
    found = check(*fault(wide()))
    assert found.outcome == "refused"
    assert found.agreement < 0.7
    cut = wide()._replace(alpha=np.where(wide().alpha >= 128, 255, 0).astype(np.uint8))
    assert check(*fault(cut)).outcome == "refused"


@pytest.mark.parametrize(
    "fault",
    [
        lambda p: p._replace(alpha=np.repeat(p.alpha[:1], len(p.alpha), 0)),
        lambda p: p._replace(alpha=np.roll(p.alpha, 1, 0)),
        lambda p: p._replace(K=p.K + np.array([[0, 0, 4.0], [0, 0, 0], [0, 0, 0]])),
    ],
    ids=["one picture", "one pose late", "principal point"],
)
def test_other_mistakes_are_at_least_doubted(fault: Callable[[Posed], Posed]) -> None:
    found = check(*fault(creature()))
    assert found.outcome in ("doubtful", "refused")
    assert found.agreement < AGREES


def test_a_wrong_field_of_view_is_doubted_where_cameras_look_past_the_object() -> None:
    """If all look at one point, a smaller object explains it, but for perspective."""
    posed = draw(CREATURE, turned_aside(spiral(24, 2.0)))
    assert check(*posed).outcome == "agrees"
    found = check(posed.alpha, posed.c2w, posed.K * np.array([[1.3, 1, 1], [1, 1.3, 1], [1, 1, 1]]))
    assert found.outcome in ("doubtful", "refused")


@pytest.mark.parametrize("view", [0, 7, 23])
def test_a_single_wrong_view_is_named(view: int) -> None:
    posed = creature()
    alpha = posed.alpha.copy()
    alpha[view] = alpha[view - 5]
    found = check(alpha, posed.c2w, posed.K)
    assert (found.outcome, found.wrong) == ("doubtful", (view,))


def test_several_wrong_views_are_named_up_to_the_limit_and_refused_beyond() -> None:
    posed = creature()
    bad = np.array([2, 5, 11, 17])
    alpha = posed.alpha.copy()
    alpha[bad] = posed.alpha[np.roll(bad, 1)]
    found = check(alpha, posed.c2w, posed.K)
    assert (found.outcome, found.wrong) == ("doubtful", tuple(bad))
    assert check(alpha, posed.c2w, posed.K, max_bad_views=0.15).outcome == "refused"


def test_it_cannot_tell_where_silhouettes_fill_the_frame_or_are_missing() -> None:
    posed = creature()
    for alpha in (np.full_like(posed.alpha, 255), 255 - posed.alpha, np.zeros_like(posed.alpha)):
        found = check(alpha, posed.c2w, posed.K)
        assert (found.outcome, found.agreement) == ("cannot tell", -1.0)
    assert check(posed.alpha[:1], posed.c2w[:1], posed.K[:1]).outcome == "cannot tell"
    filled = posed.alpha[:5].copy()
    filled[:3] = 255
    assert check(filled, posed.c2w[:5], posed.K[:5]).outcome == "cannot tell"
    close = spiral(24, distance=0.45)
    assert check(*draw(BALL, close)).outcome == "cannot tell"


def test_blank_and_full_views_neither_speak_nor_judge() -> None:
    posed = creature()
    alpha = posed.alpha.copy()
    alpha[3], alpha[4] = 0, 255
    assert check(alpha, posed.c2w, posed.K).outcome == "agrees"


def test_faint_objects_count_like_solid_ones() -> None:
    posed = creature()
    assert check(posed.alpha // 4, posed.c2w, posed.K).outcome == "agrees"
    assert check(np.roll(posed.alpha // 4, 1, 0), posed.c2w, posed.K).outcome != "agrees"


def test_pictures_that_were_cropped_around_the_object_agree() -> None:
    """Their optical axes do not meet in the object, or anywhere."""
    posed = draw(CREATURE, spiral(24), 160, 160, fine=1)
    alpha, K = [], posed.K.copy()
    for v, picture in enumerate(posed.alpha):
        y, x = (int(a.mean()) for a in np.nonzero(picture))
        shift = np.random.default_rng(v).integers(-8, 9, 2)
        top, left = np.clip(np.array([y, x]) + shift - 48, 0, 64)
        alpha.append(picture[top : top + 96, left : left + 96])
        K[v, :2, 2] -= left, top
    found = check(np.stack(alpha), posed.c2w, K)
    assert found.outcome == "agrees"


def test_close_ups_agree_or_say_nothing_and_looking_away_is_refused() -> None:
    """Most of the object is out of every frame."""
    posed = draw(CREATURE, spiral(24), 128, 128)
    K = posed.K.copy()
    K[:, :2, 2] -= 40
    alpha = posed.alpha[:, 40:-40, 40:-40]
    assert check(alpha, posed.c2w, K).outcome in ("agrees", "cannot tell")
    partly = posed.alpha[:, 24:-24, 24:-24]
    K[:, :2, 2] += 16
    assert check(partly, posed.c2w, K).outcome == "agrees"
    for c2w in (np.linalg.inv(posed.c2w), posed.c2w @ FLIP):
        assert check(partly, c2w, K).outcome == "refused"


def test_thin_parts_that_cut_masks_lost_are_no_reason_to_refuse() -> None:
    posed = draw(RING, spiral(24), fine=1)
    alpha = np.where(posed.alpha > 0, 255, 0).astype(np.uint8)
    rng = np.random.default_rng(0)
    for picture in alpha:
        for _ in range(3):
            y, x = rng.integers(16, 48, 2)
            picture[y - 4 : y + 4, x - 4 : x + 4] = 0
    found = check(alpha, posed.c2w, posed.K)
    assert found.outcome == "doubtful"
    assert found.wrong == ()


def test_the_same_views_give_the_same_verdict() -> None:
    posed = creature()
    alpha = np.roll(posed.alpha, 1, 0)
    first = check(alpha, posed.c2w, posed.K)
    assert first == check(alpha.copy(), posed.c2w.copy(), posed.K.copy())
