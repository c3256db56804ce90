import logging

import pytest

from gaussianverse.pipeline.policy import History
from gaussianverse.pipeline.run.executor import FIT, Task
from gaussianverse.pipeline.run.progress import ProgressBar


def test_it_counts_old_new_and_quarantined_objects(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(10) as bar:
        bar.opened(4)
        bar.finished("a", False)
        bar.finished("b", True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "6/10 objects" in last
    assert "1 quarantined" in last
    assert "left" in last
    assert " 60%" in last


def test_what_was_there_already_is_not_counted_as_speed(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(10) as bar:
        bar.opened(9)
    assert "0/h" in capsys.readouterr().err.split("\r")[-1]


def test_a_retry_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    task = Task(FIT, "splats", 0, {"uid": "a"}, History({"cuda_error": 1}))
    with ProgressBar(1) as bar, caplog.at_level(logging.WARNING):
        bar.retried(task, "cuda_error", "it broke")
    assert "fit of a failed (cuda_error: it broke), attempt 2 follows" in caplog.text
