"""Shared by the tests of the metrics."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(autouse=True)
def meteor_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what the suite's conftest says of METEOR."""
    monkeypatch.delenv("SOFTPROMPT_METEOR_JAR", raising=False)


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR is missing, whatever is installed here."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
