"""Rows of a manifest: keys, types, and every kind of bad value."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.schema import (
    ARROW_SCHEMA,
    CATEGORIES,
    DEFAULT_CATEGORIES,
    FIELDS,
    MAX_UID,
    IndexedRow,
    Row,
    faults_of,
    is_uid,
    row_from,
)

GOOD = Row(uid="148_753974", views="148/753974", category="Food", caption="A pear.\nRipe.")


def test_good_row_has_no_faults_and_only_uid_and_views_are_required() -> None:
    assert faults_of(GOOD) == []
    assert faults_of(row_from({"uid": "a", "views": "b"})) == []


def test_ten_categories_nine_by_default() -> None:
    assert len(CATEGORIES) == 10
    assert set(CATEGORIES) - set(DEFAULT_CATEGORIES) == {"Poor-quality"}
    assert all(faults_of(dataclasses.replace(GOOD, category=c)) == [] for c in (*CATEGORIES, ""))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uid": "a/b"}, "uid 'a/b'"),
        ({"uid": "a.b"}, "uid 'a.b'"),
        ({"uid": ".."}, "uid '..'"),
        ({"uid": ""}, "uid ''"),
        ({"uid": "a\n"}, "uid"),
        ({"uid": "é"}, "uid"),
        ({"uid": "a" * 129}, "129 characters"),
        ({"views": ""}, "'views' is empty"),
        ({"views": "a\0b"}, "not printable"),
        ({"format": "colmap"}, "unknown format 'colmap'"),
        ({"category": "a\nb"}, "not printable"),
        ({"split": "training"}, "unknown split 'training'"),
        ({"captions": ("A pear.", "x")}, "'caption' is not the first"),
        ({"captions": ("A pear.\nRipe.", "x"), "caption_sources": ("a",)}, "1 caption_sources for 2 captions"),
        ({"attribution": "x" * 5000}, "5000 characters"),
        ({"extras": {"score": float("nan")}}, "'score' is nan"),
        ({"extras": {"count": 2**63}}, "an integer of 64 bits"),
        ({"extras": {"note": "\x1b[31m"}}, "not printable"),
        ({"caption": "\ud800"}, "not printable"),
        ({"caption": "bell \a"}, "not printable"),
        ({"license": "CC\n"}, "not printable"),
    ],
)
def test_bad_values_are_named(change: dict[str, str], message: str) -> None:
    faults = faults_of(dataclasses.replace(GOOD, **change))
    assert any(message in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"uid": "a"}, "no 'views'"),
        ({"views": "a"}, "no 'uid'"),
        ({"uid": "a", "views": "b", "captions": "c"}, "'captions' is 'c', expected a list"),
        ({"uid": "a", "views": "b", "score": [1]}, r"'score' is \[1\]"),
        ({"uid": "a", "views": "b", "my score": 1}, "cannot be called 'my score'"),
        ({"uid": "a", "views": "b", "psnr": 1}, "cannot be called 'psnr'"),
        ({"uid": 7, "views": "b"}, "'uid' is 7"),
        ({"uid": "a", "views": "b", "caption": None}, "'caption' is None"),
        ({"uid": "a", "views": "b", "index": 3}, "cannot be called 'index'"),
    ],
)
def test_keys_and_types_are_checked(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        row_from(entries)


def test_all_faults_of_a_row_are_reported_at_once() -> None:
    with pytest.raises(ManifestError) as caught:
        row_from({"caption": None, "x": [1]})
    assert len(caught.value.faults) == 4


def test_arrow_schema_names_the_fields_and_allows_no_null() -> None:
    assert ARROW_SCHEMA.names == ["index", *FIELDS, "fault"]
    assert not any(field.nullable for field in ARROW_SCHEMA)
    assert {f.name for f in dataclasses.fields(IndexedRow)} == {*ARROW_SCHEMA.names, "extras"}


@given(st.text() | st.text("aZ09_-/\n", min_size=1) | st.text("a", min_size=MAX_UID - 1, max_size=MAX_UID + 1))
def test_no_accepted_uid_can_leave_its_folder_or_split_a_key(uid: str) -> None:
    assert is_uid(uid) == (not faults_of(dataclasses.replace(GOOD, uid=uid)))
    if is_uid(uid):
        assert uid
        assert not set(uid) & set("/\\.: \n")


@pytest.mark.parametrize("views", ["o", "/abs/o.tar", "../o", "a:b", "s3://bucket/key", "s3://b/a/c.tar"])
def test_paths_and_s3_are_views(views: str) -> None:
    assert faults_of(Row("a", views)) == []


@pytest.mark.parametrize(
    "views",
    [
        "https://host/o.tar",
        "gs://bucket/o",
        "file:///o",
        "s3://",
        "s3://bucket",
        "s3://bucket/",
        "s3:///key",
        "S3://b/k",
    ],
)
def test_other_urls_are_faults(views: str) -> None:
    (fault,) = faults_of(Row("a", views))
    assert fault == f"views {views!r}: only paths and s3://bucket/key can be read"
