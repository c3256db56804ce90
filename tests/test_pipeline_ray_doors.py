"""`doctor` names tokens and sockets that Ray left open."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaussianverse.pipeline.node import ray_doors


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    # pytest's own folders are closed to others
    monkeypatch.setattr(ray_doors, "_mode", lambda path, of=ray_doors._mode: of(path) | 0o011 * path.is_dir())
    return tmp_path


def test_a_machine_without_a_trace_of_ray() -> None:
    found = ray_doors.examine()
    assert (found.ok, found.text) == (True, "a run starts it in a folder and with a token of its own")


@pytest.mark.parametrize(("mode", "said"), [(0o644, True), (0o640, True), (0o600, False)])
def test_a_token_that_others_can_read_is_named(mode: int, said: bool, home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(mode)
    found = ray_doors.examine()
    assert found.ok
    assert (f"others can read the token {token} (mode {mode:04o})" in found.text) == said
    assert "secret" not in found.text


def test_a_token_that_the_environment_names_is_looked_at(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "mine").write_text("secret")
    (home / "mine").chmod(0o604)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(home / "mine"))
    assert f"the token {home / 'mine'} (mode 0604)" in ray_doors.examine().text


def test_sockets_of_sessions_are_counted(home: Path) -> None:
    for name in ("session_2026-01-01_1", "session_2026-01-02_1", "other"):
        (home / "ray" / name / "sockets").mkdir(parents=True)
    assert f"the sockets of 2 sessions of other programs in {home / 'ray'}" in ray_doors.examine().text


def test_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    text = ray_doors.examine().text
    assert "runs join head:6379 (RAY_ADDRESS)" in text
    assert "RAY_AUTH_MODE is `disabled`" in text
