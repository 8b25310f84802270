"""Tests that share a server or a run are given to one worker of pytest-xdist: else each worker makes its own."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def made_once() -> str:
    return "made"


@pytest.mark.xdist_group("named")
def test_a_named_group_is_seen(request: pytest.FixtureRequest) -> None:
    """pytest 9.2 hides the name from pytest-xdist 3.8, which then says nothing."""
    assert _is_seen(request, "named")


def test_a_file_that_makes_something_once_is_a_group(request: pytest.FixtureRequest, made_once: str) -> None:
    """The group is named after the file."""
    assert made_once
    assert _is_seen(request, request.path.name)


def _is_seen(request: pytest.FixtureRequest, group: str) -> bool:
    """Whether the worker sees a group; always, where there are no workers that deal in groups."""
    return not getattr(request.config.option, "loadgroup", False) or request.node.nodeid.endswith(f"@{group}")
