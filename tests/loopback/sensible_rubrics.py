"""Answers of a sensible model that writes criteria, and judges by one criterion; see `loopback.sensible`."""

from __future__ import annotations

from typing import Any

from loopback.sensible import Habits, Question


def rubric_answer(question: Question, habits: Habits) -> dict[str, Any] | None:
    """The answer, where this is asked; else null."""
    return None
