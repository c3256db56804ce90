"""The gate in front of a fit: what is refused, left out, recorded, suggested; right views come through untouched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from made_silhouettes import CREATURE, Posed, draw, spiral, swapped, transposed, turned_aside
from test_fitter_fit import config

from gaussianverse.atlas.configuration import ConfigError
from gaussianverse.fitter.agreement.gate import gate
from gaussianverse.fitter.agreement.suggestions import suggest
from gaussianverse.fitter.errors import InconsistentViews, MissingViews
from gaussianverse.fitter.fit import fit_object
from gaussianverse.fitter.views import Views

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


@cache
def creature() -> Posed:
    return draw(CREATURE, spiral(24), 64, 48)


def views_of(posed: Posed) -> Views:
    grey = np.full((*posed.alpha.shape, 3), 90, np.uint8)
    images = np.concatenate([grey, posed.alpha[..., None]], -1)
    return Views(images, posed.c2w, posed.K, tuple(f"{v:05d}" for v in range(len(images))))


def with_wrong(*bad: int) -> Views:
    """The creature's views, of which some show what the next of them should."""
    posed = creature()
    alpha = posed.alpha.copy()
    alpha[list(bad)] = posed.alpha[np.roll(bad, 1)]
    return views_of(posed._replace(alpha=alpha))


def test_right_views_come_through_untouched() -> None:
    views = views_of(creature())
    found = gate(views, "refuse", 0.25)
    assert found.views is views
    assert found.agreement > 0.97
    assert found.doubtful == found.left_out == ()


def test_the_bytes_of_a_right_fit_do_not_depend_on_the_gate() -> None:
    views = views_of(creature())
    fits = [fit_object(views, config(steps=8, pose_gate=mode)) for mode in ("refuse", "warn", "off")]
    assert len({fit.gaussians.to_bytes() for fit in fits}) == 1
    assert [fit.stats["pose_agreement"] == -1 for fit in fits] == [False, False, True]
    assert [fit.stats["views_doubtful"] for fit in fits] == ["", "", ""]


def test_wrong_views_are_left_out_of_the_fit_and_named() -> None:
    fit = fit_object(with_wrong(3, 9, 20), config(steps=8, heldout_every=0))
    assert fit.stats["n_views"] == 21
    assert fit.stats["views_doubtful"] == "00003, 00009, 00020"
    for name in ("00003", "00009", "00020"):
        assert f"{name}: contradicts the other views" in str(fit.stats["views_skipped"])
    assert 0 < float(fit.stats["pose_agreement"]) < 0.97


def test_left_out_views_are_missing_views() -> None:
    with pytest.raises(MissingViews, match="21 distinct training views"):
        fit_object(with_wrong(3, 9, 20), config(steps=8, heldout_every=0, min_views=22))


def test_warn_refuses_nothing_and_leaves_nothing_out_but_records_it() -> None:
    found = gate(with_wrong(3, 9, 20), "warn", 0.25)
    assert len(found.views) == 24
    assert found.left_out == ()
    assert set(found.doubtful) >= {"00003", "00009", "00020"}
    inverse = replace(views_of(creature()), c2w=np.linalg.inv(creature().c2w))
    assert gate(inverse, "warn", 0.25).agreement < 0.1
    assert gate(inverse, "off", 0.25).agreement == -1


def test_more_wrong_views_than_allowed_are_refused() -> None:
    bad = with_wrong(1, 3, 9, 20)
    assert len(gate(bad, "refuse", 0.25).left_out) == 4
    with pytest.raises(InconsistentViews, match="contradict each other"):
        gate(bad, "refuse", 0.1)


AS_TEXT = np.array(sorted(range(24), key=str))
MISTAKES: dict[str, Callable[[Posed], Posed]] = {
    "matrices are inverted: they": lambda p: p._replace(c2w=np.linalg.inv(p.c2w)),
    "y and z axes of the cameras are negated": lambda p: p._replace(c2w=p.c2w @ FLIP),
    "inverted and then y and z": lambda p: p._replace(c2w=np.linalg.inv(p.c2w @ FLIP)),
    "rotations are transposed": lambda p: p._replace(c2w=transposed(p.c2w)),
    "width and height are swapped": lambda p: p._replace(K=swapped(p.K)),
    "mirrored left to right": lambda p: p._replace(alpha=p.alpha[:, :, ::-1]),
    "mirrored top to bottom": lambda p: p._replace(alpha=p.alpha[:, ::-1]),
    "by half a turn": lambda p: p._replace(alpha=p.alpha[:, ::-1, ::-1]),
    "in reverse order": lambda p: p._replace(alpha=p.alpha[::-1]),
    "takes the pose after its own": lambda p: p._replace(alpha=np.roll(p.alpha, -1, 0)),
    "takes the pose before its own": lambda p: p._replace(alpha=np.roll(p.alpha, 1, 0)),
    "the pictures are ordered by number": lambda p: p._replace(alpha=p.alpha[AS_TEXT]),
    "the poses are ordered by number": lambda p: p._replace(c2w=p.c2w[AS_TEXT]),
    "alpha is inverted": lambda p: p._replace(alpha=255 - p.alpha),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_mistake_is_named(mistake: str) -> None:
    found = suggest(*MISTAKES[mistake](creature()))
    assert found is not None
    assert mistake in found.text
    assert found.agreement >= 0.97


@pytest.mark.parametrize(("k", "way"), [(1, "right"), (-1, "left")])
def test_a_quarter_turn_is_named(k: int, way: str) -> None:
    posed = draw(CREATURE, spiral(24))
    found = suggest(np.rot90(posed.alpha, k, (1, 2)), posed.c2w, posed.K)
    assert found is not None
    assert f"turned {way} by a quarter turn" in found.text


def test_a_wrong_field_of_view_is_named_with_its_factor() -> None:
    posed = draw(CREATURE, turned_aside(spiral(24, 2.0)))
    found = suggest(posed.alpha, posed.c2w, posed.K * np.array([[1.35, 1, 1], [1, 1.35, 1], [1, 1, 1]]))
    assert found is not None
    assert "focal lengths" in found.text
    assert float(found.text.split()[6].rstrip(":")) == pytest.approx(1 / 1.35, rel=0.08)


def test_nothing_is_suggested_where_nothing_fits() -> None:
    posed = creature()
    shuffled = posed.alpha[np.random.default_rng(1).permutation(24)]
    assert suggest(shuffled, posed.c2w, posed.K) is None


def test_a_refusal_names_numbers_and_the_mend_and_is_the_same_each_time() -> None:
    inverse = replace(views_of(creature()), c2w=np.linalg.inv(creature().c2w))
    texts = set()
    for _ in range(2):
        with pytest.raises(InconsistentViews) as caught:
            fit_object(inverse, config(steps=8))
        texts.add(str(caught.value))
    (text,) = texts
    assert caught.value.reason == "inconsistent_views"
    assert "24 views" in text
    assert "world-to-camera" in text
    assert "pose_gate" in text


def test_the_configuration_is_checked() -> None:
    with pytest.raises(ConfigError, match="pose_gate"):
        config(pose_gate="perhaps")
    with pytest.raises(ConfigError, match="max_bad_views"):
        config(max_bad_views=1.5)


def test_the_message_names_the_mistake_that_the_refusal_rests_on() -> None:
    """Principal points say it even where silhouettes cannot, and no agreement is claimed then."""
    posed = draw(CREATURE, turned_aside(spiral(24, 1.0)), 64, 48)
    with pytest.raises(InconsistentViews, match=r"they agree \(1\.00\) if width and height are swapped"):
        gate(views_of(posed._replace(K=swapped(posed.K))), "refuse", 0.25)
    full = posed._replace(alpha=np.full_like(posed.alpha, 255), K=swapped(posed.K))
    with pytest.raises(InconsistentViews, match=r"0\.97\): the principal points are the middles"):
        gate(views_of(full), "refuse", 0.25)
    found = gate(views_of(full), "warn", 0.25)
    assert len(found.doubtful) == len(found.views) == 24
