import inspect

from gaussianverse.pipeline import errors


def test_every_error_ends_a_command_with_a_code_of_the_command_line() -> None:
    kinds = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    assert all(issubclass(kind, errors.PipelineError) for kind in kinds)
    codes = {kind.__name__: kind.exit_code for kind in kinds}
    assert {n: c for n, c in codes.items() if c != 1} == {
        "UsageError": 2, "BreakerOpen": 3, "Stalled": 4, "RunConflict": 5, "ShardConflict": 5,
    }  # fmt: skip


def test_messages_are_one_short_line() -> None:
    assert errors.message(ValueError("a\n  b")) == "a b"
    assert errors.message(ValueError()) == "ValueError"
    assert len(errors.message("x" * 10_000)) == errors.MESSAGE_LIMIT
