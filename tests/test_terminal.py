"""Printed text cannot steer a terminal, and a reader that leaves ends nothing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_runs import planned

from gaussianverse.atlas.store.local import LocalStorage
from gaussianverse.escape import one_line
from gaussianverse.terminal import Printed, columns, cut, folded, leave_out_notes, note, padded, printing, width_of

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "a\x1b]0;title\x07\x1b[2J\x9b31mb\u202etxt.exe\u2028c\x00"


def printed(*texts: str) -> str:
    sink = io.StringIO()
    stream = Printed(sink)
    for text in texts:
        stream.write(text)
    return sink.getvalue()


def test_control_characters_are_shown_as_escapes() -> None:
    shown = r"a\x1b]0;title\x07\x1b[2J\x9b31mb\u202etxt.exe\u2028c\x00"
    assert one_line(HOSTILE) == printed(HOSTILE) == shown
    assert one_line("two\nlines\rover\tit") == r"two\nlines\rover\tit"
    assert printed("two\nlines\tit\n") == "two\nlines\tit\n"


def test_only_a_leading_carriage_return_moves_the_cursor() -> None:
    assert printed("\r50%|", "fault: \rall is well") == "\r50%|fault: \\rall is well"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, *texts: str, **environment: str) -> str:
    """What a terminal is sent."""
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sink = Screen()
    stream = Printed(sink)
    for text in texts:
        stream.write(text)
    return sink.getvalue()


def test_only_the_end_of_all_colours_passes_and_only_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, "\x1b[0m") == "\x1b[0m"
    texts = ["\x1b[0m\x1b[2J", "a\x1b[0m", "\x1b[1m"]
    assert printed(*texts) == shown(monkeypatch, *texts) == r"\x1b[0m\x1b[2Ja\x1b[0m\x1b[1m"


def test_what_has_no_colours_gets_no_end_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed("a", "\x1b[0m") == "a"
    assert shown(monkeypatch, "a", "\x1b[0m", NO_COLOR="1") == "a"
    assert shown(monkeypatch, "a", "\x1b[0m", TERM="dumb") == "a"
    assert shown(monkeypatch, "a", "\x1b[0m", NO_COLOR="", TERM="xterm") == "a\x1b[0m"


@given(st.text(), st.integers(0, 30))
def test_a_cut_text_fits_and_begins_as_it_did(text: str, most: int) -> None:
    found = cut(text, most)
    assert width_of(found) <= most
    assert found == text or text.startswith(found[:-1])
    assert cut(text, None) == text
    assert width_of(padded(text, most)) == most


@given(st.lists(st.text("ab 日", max_size=40), max_size=4).map("\n".join), st.integers(8, 40))
def test_a_folded_text_keeps_its_words(text: str, most: int) -> None:
    assert "".join(folded(text, most).split()) == "".join(text.split())
    assert folded(text, None) == text
    assert all(width_of(line) <= most for line in folded(text.replace("日", "b"), most).splitlines())


def test_wide_characters_take_two_columns_and_marks_none() -> None:
    assert (width_of("ab"), width_of("日本"), width_of("e\u0301"), width_of("\U0001f600")) == (2, 4, 1, 2)
    assert cut("日本語", 5) == "日本\u2026"


def test_the_ellipsis_is_one_that_stdout_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert cut("abcdef", 4) == "abc~"


@pytest.mark.parametrize(
    ("given_columns", "expected"), [("20", 20), ("0", None), ("-3", None), ("many", None), ("", None)]
)
def test_columns_are_those_of_the_environment_and_none_in_a_pipe(
    given_columns: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("COLUMNS", given_columns)
    assert columns() == expected


def test_notes_are_left_out_until_the_end_of_printing(capsys: pytest.CaptureFixture[str]) -> None:
    with printing():
        note("one")
        leave_out_notes()
        note("two")
        print("error: three", file=sys.stderr)
    with printing():
        note("four")
    assert capsys.readouterr().err == "one\nerror: three\nfour\n"


@given(st.text())
def test_whatever_is_printed_has_nothing_but_line_ends_and_tabs_among_its_controls(text: str) -> None:
    left = [c for c in printed(f"x{text}") if not c.isprintable() and c not in "\n\t"]
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in left)
    assert one_line(text).isprintable() or not any(c in one_line(text) for c in "\n\r\t\x1b")


def test_a_reader_that_leaves_is_not_an_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        stream = Printed(pipe)
        for _ in range(3):
            stream.write("x" * (1 << 17))
            stream.flush()


def test_characters_that_the_encoding_lacks_are_shown_as_escapes() -> None:
    raw = io.BytesIO()
    stream = Printed(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("café \U0001f600")
    stream.flush()
    assert raw.getvalue() == rb"caf\xe9 \U0001f600"


def test_streams_are_given_back_also_after_an_error() -> None:
    before = sys.stdout, sys.stderr
    with printing():
        assert isinstance(sys.stdout, Printed)
    with pytest.raises(ZeroDivisionError), printing():
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["status", "--help"], 0),
        (["status", "--out", "{out}"], 0),
        (["inspect", "no", "--out", "{out}"], 1),
    ],
)
def test_a_verb_whose_reader_has_left_is_quiet_and_keeps_its_exit_code(
    arguments: list[str], code: int, tmp_path: Path
) -> None:
    planned(LocalStorage(tmp_path), ["a"])
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "gaussianverse.pipeline.cli", *(a.format(out=tmp_path) for a in arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert done.returncode == code
    assert done.stderr == "" if code == 0 else done.stderr.startswith("error: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gaussianverse.pipeline.cli", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the output cannot be written")
    assert done.stderr.count("\n") == 1
