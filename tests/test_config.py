"""The project key: made whole, once, and never empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from covseg.errors import UsageError
from covseg.settings import environment as config


@pytest.fixture
def key_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("COVSEG_PROJECT_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "covseg" / "project.key"


def test_the_first_run_makes_a_key_of_its_owner_alone_and_later_runs_take_it(key_file: Path) -> None:
    first = config.project_key()
    assert (len(first), key_file.stat().st_mode & 0o777) == (64, 0o600)
    assert config.project_key() == first
    assert [path.name for path in key_file.parent.iterdir()] == ["project.key"]


def test_a_first_run_that_another_overtakes_takes_the_others_key(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[bytes] = []

    def overtaken(length: int) -> str:
        monkeypatch.undo()
        monkeypatch.delenv("COVSEG_PROJECT_KEY", raising=False)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(key_file.parents[1]))
        others.append(config.project_key())
        return "0" * 2 * length

    monkeypatch.setattr(config.secrets, "token_hex", overtaken)
    assert [config.project_key()] == others
    assert len(others[0]) == 64


def test_a_disk_that_fills_up_leaves_no_empty_key(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(config.secrets, "token_hex", full)
        config.project_key()
    assert list(key_file.parent.iterdir()) == []
    assert len(config.project_key()) == 64


def test_an_empty_or_short_key_is_refused(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file.parent.mkdir()
    key_file.touch(mode=0o600)
    with pytest.raises(UsageError, match=r"project.key has 0 bytes, wanted at least 16"):
        config.project_key()
    monkeypatch.setenv("COVSEG_PROJECT_KEY", "short")
    with pytest.raises(UsageError, match="COVSEG_PROJECT_KEY has 5 bytes"):
        config.project_key()
