"""Errors of the pipeline, each with its exit code."""

from __future__ import annotations


class PipelineError(Exception):
    """Base class; the message says what is wrong, where, and how to fix it."""

    exit_code = 1


class UsageError(PipelineError):
    """An argument has a wrong form, or names something that does not exist."""

    exit_code = 2


class NoObject(PipelineError):
    """The manifest has no object of this uid."""


class BreakerOpen(PipelineError):
    """Too many failures for the objects to be their cause; the run stops before it quarantines more."""

    exit_code = 3


class Stalled(PipelineError):
    """No task has ended for longer than any task may take."""

    exit_code = 4


class RunConflict(PipelineError):
    """The output holds a run of another manifest or configuration."""

    exit_code = 5


class ShardConflict(PipelineError):
    """A key already holds other bytes than those to be published. Nothing is overwritten."""

    exit_code = 5


class FragmentError(PipelineError):
    """The bytes are not a valid fragment."""


class DamagedFragment(FragmentError):
    """A fragment of scratch was damaged after it was written; it can be made again."""

    def __init__(self, text: str, family: str, shard: int, uid: str) -> None:
        super().__init__(text)
        self.family, self.shard, self.uid = family, shard, uid

    def __reduce__(self) -> tuple[type[DamagedFragment], tuple[str, str, int, str]]:
        return type(self), (str(self), self.family, self.shard, self.uid)


MESSAGE_LIMIT = 500


def message(error: BaseException | str) -> str:
    """The error's text on one line, cut to `MESSAGE_LIMIT` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 3] + "..."
