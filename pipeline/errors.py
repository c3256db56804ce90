"""Errors of the pipeline, each with the exit code that it ends a command with."""


class PipelineError(Exception):
    """Something is wrong with a run; the message says what, where, and what mends it."""

    exit_code = 1


class UsageError(PipelineError):
    """What was asked for does not exist or cannot be read."""

    exit_code = 2


class BreakerOpen(PipelineError):
    """Too much went wrong at once to be the objects' fault: the run stops before it condemns them."""

    exit_code = 3


class Stalled(PipelineError):
    """Nothing has finished for longer than any task may take."""

    exit_code = 4


class RunConflict(PipelineError):
    """The output holds a run of another manifest or configuration."""

    exit_code = 5


class ShardConflict(PipelineError):
    """A key that must hold these bytes holds others. Nothing is overwritten."""

    exit_code = 5


class FragmentError(PipelineError):
    """Bytes that should be a fragment are none."""


MESSAGE_LIMIT = 500


def message(error: BaseException | str) -> str:
    """One line of at most `MESSAGE_LIMIT` characters about what went wrong."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 3] + "..."
