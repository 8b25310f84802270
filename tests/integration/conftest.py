"""The main job on the sample logs, run once for all tests that look at what it made."""

from __future__ import annotations

import json

import pytest

from integration.sample_world import FILES, LOGS, World, run_on
from tilth.catalog import open_catalog


@pytest.fixture(scope="session")
def sample_sources() -> list[str]:
    return [str(LOGS / name) for name in FILES]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, sample_sources: list[str]) -> World:
    workspace = tmp_path_factory.mktemp("samples")
    result = run_on(workspace, sample_sources)
    return World(result, open_catalog(str(workspace)), json.loads((LOGS / "EXPECTED.json").read_text()))
