"""What all tests share: one Prefect server, and how tests are dealt out to workers."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from integration.quickly import quickly

# Where a property says no number of its own. All of them together take a third of `make test`.
settings.register_profile("house", max_examples=40)
settings.load_profile("house")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """The URL of a real Prefect server with an empty database, one a session: it takes 20 s to start."""
    os.environ.update(DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false")
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=90):
        yield str(PREFECT_API_URL.value())


@pytest.fixture
def prefect_api(prefect_server: str) -> Iterator[str]:
    """The URL of that server for one test, whose events are all sent when it ends."""
    yield prefect_server
    from prefect.events.worker import EventsWorker

    # Its thread would go on pinging the server with random numbers, and Hypothesis blames the test that then draws.
    EventsWorker.drain_all(at_exit=False)


@pytest.fixture(scope="module")
def without_beam_or_gx() -> Iterator[None]:
    """For modules of many runs that are about neither: see `integration.quickly`."""
    with quickly():
        yield


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file that share what is made once a file stay on one worker, or every worker would make it."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("xdist_group") is None:
            made = (found[-1] for found in item._fixtureinfo.name2fixturedefs.values())  # pyright: ignore[reportPrivateUsage]
            if any(one.scope == "module" for one in made):
                item.add_marker(pytest.mark.xdist_group(item.path.name))
