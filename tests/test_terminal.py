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
from gaussianverse.terminal import Printed, printing

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


def test_only_the_end_of_all_colours_passes_and_only_alone() -> None:
    assert printed("\x1b[0m") == "\x1b[0m"
    assert printed("\x1b[0m\x1b[2J", "a\x1b[0m", "\x1b[1m") == r"\x1b[0m\x1b[2Ja\x1b[0m\x1b[1m"


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
