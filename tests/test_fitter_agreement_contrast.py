"""Refusal by contrast: what little else speaks against, but one correction of all views makes agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from made_silhouettes import (
    BALL,
    CREATURE,
    HAIR,
    SHEET,
    SIGN,
    Ellipsoid,
    Made,
    Posed,
    draw,
    spiral,
    swapped,
    transposed,
    turned_aside,
)

from gaussianverse.fitter.agreement import check
from gaussianverse.fitter.agreement.contrast import CENTRED, mistaken, sides_swapped
from gaussianverse.fitter.agreement.rays import look
from gaussianverse.fitter.agreement.silhouettes import silhouettes
from gaussianverse.fitter.agreement.verdict import judge


def by_themselves(posed: Posed) -> str:
    """The verdict on the views without any correction."""
    views = silhouettes(posed.alpha)
    return judge(look(views, posed.c2w, posed.K), 0.25).outcome if views.tell else "cannot tell"


def close(made: Made, distance: float, aside: float) -> Posed:
    """Pictures of 64 x 48 that crop the object."""
    return draw(made, turned_aside(spiral(24, distance), aside), 64, 48)


CASES: dict[str, tuple[Posed, Callable[[Posed], Posed]]] = {
    "they are world-to-camera": (close(SHEET, 0.8, 0.15), lambda p: p._replace(c2w=np.linalg.inv(p.c2w))),
    "rotations are transposed": (close(BALL, 1.0, 0.15), lambda p: p._replace(c2w=transposed(p.c2w))),
    "width and height are swapped": (close(CREATURE, 1.0, 0.15), lambda p: p._replace(K=swapped(p.K))),
    "mirrored left to right": (
        draw(CREATURE, spiral(24, 1.2), 64, 48),
        lambda p: p._replace(alpha=np.ascontiguousarray(p.alpha[:, :, ::-1])),
    ),
    "takes the pose before its own": (draw(CREATURE, spiral(24)), lambda p: p._replace(alpha=np.roll(p.alpha, 1, 0))),
}


@pytest.mark.parametrize("mistake", CASES)
def test_what_is_only_doubtful_by_itself_is_refused_where_one_correction_fits(mistake: str) -> None:
    right, fault = CASES[mistake]
    wrong = fault(right)
    assert check(*right).outcome == "agrees"
    assert by_themselves(wrong) == "doubtful"
    found = check(*wrong)
    assert found.outcome == "refused"
    assert found.likely is not None
    assert mistake in found.likely.text
    assert found.likely.agreement >= 0.97


def test_cameras_that_look_past_each_other_are_refused_where_a_correction_makes_them_agree() -> None:
    """By themselves they share nothing, so that nothing is said."""
    right = draw((Ellipsoid((0.0, 0.0, 0.0), (0.36, 0.36, 0.36)),), turned_aside(spiral(40, 1.15), 0.6))
    assert check(*right).outcome == "agrees"
    wrong = right._replace(c2w=right.c2w @ np.diag([1.0, -1.0, -1.0, 1.0]))
    assert by_themselves(wrong) == "cannot tell"
    found = check(*wrong)
    assert (found.outcome, found.agreement) == ("refused", 0.0)
    assert found.likely is not None
    assert "y and z axes" in found.likely.text


@pytest.mark.parametrize("made", [SIGN, HAIR, BALL], ids=["sign", "hair", "ball"])
@pytest.mark.parametrize("count", [9, 24])
def test_right_views_are_doubtful_but_no_correction_fits_them_better(made: Made, count: int) -> None:
    posed = draw(made, spiral(count), 64, 48)
    rng = np.random.default_rng(0)
    for _ in range(3):
        alpha = posed.alpha.copy()
        for picture in alpha:
            y, x = rng.integers(16, 32, 2)
            picture[y - 2 : y + 2, x : x + 4] = 0
        assert mistaken(alpha, posed.c2w, posed.K) is None
        assert check(alpha, posed.c2w, posed.K).outcome != "refused"


@pytest.mark.parametrize(("count", "asked"), [(8, False), (9, True)])
def test_few_views_are_not_asked(count: int, asked: bool) -> None:
    right = draw(CREATURE, spiral(count))
    found = mistaken(np.roll(right.alpha, 1, 0), right.c2w, right.K)
    assert (found is not None) == asked


def test_principal_points_tell_swapped_sides_where_silhouettes_fill_the_frame() -> None:
    posed = draw(CREATURE, spiral(24, 0.4), 64, 48)
    full = posed._replace(alpha=np.full_like(posed.alpha, 255))
    assert check(*full).outcome == "cannot tell"
    found = check(full.alpha, full.c2w, swapped(full.K))
    assert found.outcome == "refused"
    assert found.likely == (0.0, CENTRED)


def test_principal_points_that_look_swapped_are_right_where_silhouettes_say_so() -> None:
    """Pictures of 48 x 64 that were cut from larger ones so that their principal point lies at 32, 24."""
    large = draw(CREATURE, spiral(24), 128, 128)
    alpha = np.ascontiguousarray(large.alpha[:, 40:104, 32:80])
    K = large.K.copy()
    K[:, :2, 2] -= 32, 40
    assert K[0, :2, 2].tolist() == [32, 24]
    assert sides_swapped(alpha, large.c2w, K) is None
    assert check(alpha, large.c2w, K).outcome == "agrees"
    square = draw(CREATURE, spiral(24))
    assert sides_swapped(*square) is None


def test_one_picture_under_most_poses_is_doubted_where_silhouettes_cannot_tell_or_hardly_agree() -> None:
    near = draw(BALL, turned_aside(spiral(24, 0.8), 0.15), 64, 48)
    assert check(*near).outcome == "cannot tell"
    alpha = near.alpha.copy()
    alpha[:13] = alpha[20]
    found = check(alpha, near.c2w, near.K)
    assert (found.outcome, found.agreement, found.less) == ("doubtful", -1.0, (*range(13), 20))
    alpha[:2] = near.alpha[:2]
    assert check(alpha, near.c2w, near.K).outcome == "cannot tell"
    # the same pose again shows the same picture
    still = near.c2w.copy()
    still[:] = still[20]
    assert check(np.repeat(near.alpha[20:21], 24, 0), still, near.K).outcome == "cannot tell"


def test_a_round_object_that_looks_the_same_from_around_is_not_doubted() -> None:
    posed = draw(BALL, spiral(24))
    assert check(np.repeat(posed.alpha[:1], 24, 0), posed.c2w, posed.K).outcome == "agrees"
    hardly = draw(BALL, turned_aside(spiral(24, 1.0), 0.15), 64, 48)
    same = np.repeat(hardly.alpha[:1], 24, 0)
    assert by_themselves(hardly._replace(alpha=same)) == "agrees"
    found = check(same, hardly.c2w, hardly.K)
    assert (found.outcome, len(found.less)) == ("doubtful", 24)
