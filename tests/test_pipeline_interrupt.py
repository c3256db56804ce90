"""SIGTERM ends a command as Ctrl-C does, with exit codes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from gaussianverse.pipeline import cli
from gaussianverse.pipeline.interrupt import sigterm_interrupts, sigterm_kept


def test_the_first_sigterm_interrupts_and_those_after_it_leave_the_clean_up_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_interrupts() as termination:
        assert termination.exit_code == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert termination.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("leave", [lambda: signal.raise_signal(signal.SIGTERM), lambda: None])
def test_a_handler_that_a_library_sets_does_not_stay(leave: Callable[[], None]) -> None:
    """Ray's own handler leaves with SystemExit, in the middle of its start and for ever after."""
    with sigterm_interrupts() as termination:
        ours = signal.getsignal(signal.SIGTERM)
        try:
            with sigterm_kept():
                signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
                leave()
        except KeyboardInterrupt:
            assert termination.came
        else:
            assert not termination.came
        assert signal.getsignal(signal.SIGTERM) is ours


STUCK = """
import ctypes, signal, sys, threading, time
from gaussianverse.pipeline.interrupt import last_words, sigterm_interrupts
lock = ctypes.create_string_buffer(64)
def tell():
    while lock.raw[0] != 2:  # glibc's word for a lock that is taken and waited for
        time.sleep(0.01)
    print("at work", flush=True)
with sigterm_interrupts(clean_up_s=0.5), last_words(lambda: 1 / 0), last_words(lambda: print("told", flush=True)):
    threading.Thread(target=tell, daemon=True).start()
    for _ in range(2):  # whoever takes this lock twice waits for ever, and no signal ends that
        ctypes.CDLL(None).pthread_mutex_lock(lock)
"""


def test_sigterm_ends_a_command_whose_call_into_a_library_never_comes_back() -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", STUCK], **pipes) as command:
        assert command.stdout.readline() == "at work\n"
        command.send_signal(signal.SIGTERM)
        out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (143, "told\n")
    assert err == "\nterminated; run the same command again to continue\n"


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler of SIGINT, which a process that a shell starts in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_exit_codes(
    number: signal.Signals, code: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = cli.Verb("look", "", (), lambda args: signal.raise_signal(number) or 0)
    monkeypatch.setitem(cli._VERBS, "wait", verb)
    assert cli.main(["wait"]) == code
    assert capsys.readouterr().err == f"{word}; run the same command again to continue\n"
