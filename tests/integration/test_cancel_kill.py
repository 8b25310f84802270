"""A deployment's run, cancelled and killed in the middle of a stage: no process, no version, and then the same data."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import psutil
import pytest

from integration.wild_world import calls, complaints, options, run_wild, table, write_log
from loopback import Loopback, serve
from tilth.catalog import open_catalog

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.xdist_group("prefect"),
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "default"
    ),  # the server is a third party: its deprecations are not ours to fail on
]

T = TypeVar("T")
GONE_S: Final = 10.0
PATIENCE_S: Final = 120.0
TABLES: Final = ("feedback", "preferences", "pairs", "unpaired", "quarantine")
_MARK: Final = "RUNNER_OF_THIS_TEST"  # a name that is no setting
_RUNNER: Final = """
from prefect import serve
from prefect.flows import EntrypointType
from tilth.flows.prefect_run import recipe_flow
serve(recipe_flow.to_deployment("nightly", entrypoint_type=EntrypointType.MODULE_PATH), pause_on_shutdown=False)
"""


def _until(look: Callable[[], T | None], within_s: float = PATIENCE_S) -> T:
    """What `look` sees, as soon as it sees anything."""
    deadline = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"still waiting for {look.__qualname__} after {within_s} s"
        time.sleep(0.1)
    return seen


def _family(mark: str) -> list[psutil.Process]:
    """Every process that the marked runner started, and what these started, wherever they are."""
    found: list[psutil.Process] = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.environ().get(_MARK) == mark and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


@contextlib.contextmanager
def _runner(api: str, mark: Path) -> Generator[subprocess.Popen[bytes]]:
    """A runner that serves the deployment, as a process that can be killed."""
    env = {**os.environ, "PREFECT_API_URL": api, "PREFECT_RUNNER_POLL_FREQUENCY": "1", _MARK: str(mark)}
    with mark.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUNNER],
            env=env,
            cwd=mark.parent,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for one in _family(str(mark)):
            one.kill()
        process.wait()


def _started(parameters: dict[str, Any]) -> UUID:
    """A run of the deployment, once there is a deployment."""
    from prefect.client.orchestration import get_client

    client = get_client(sync_client=True)
    (deployment,) = _until(client.read_deployments)
    return client.create_flow_run_from_deployment(deployment.id, parameters=parameters).id


def _state(run: UUID) -> Any:  # Any: Prefect's state
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True).read_flow_run(run).state


def _ended(run: UUID) -> Any:  # Any: Prefect's state
    return _until(lambda: (state := _state(run)) and state.is_final() and state)


def _stuck(server: Loopback, run: UUID) -> bool:
    """Whether a request of the run waits for an answer that does not come."""
    state, seen = _state(run), server.stats()
    assert not state.is_final(), state.message
    return bool(seen["received"] > seen["finished"] + seen["dropped"])


def _versions(workspace: Path) -> list[str]:
    with open_catalog(str(workspace)) as catalog:
        return [version.version for name in catalog.datasets() for version in catalog.versions(name)]


@pytest.mark.timeout(600)
def test_cancelled_and_killed_runs_leave_nothing_and_the_next_one_goes_on(
    prefect_api: str, tmp_path: Path
) -> None:
    """Within 10 s of a cancel, and of `kill -9` of the runner, no process of the run is left and no version is there;
    the same run, started again, goes on where it stopped and has the rows of an undisturbed run."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelling

    source = write_log(tmp_path / "own.jsonl", *complaints(6))
    with serve(script="sensible", never_share=1.0) as server:
        settings = options(tmp_path / "disturbed", server, [source])
        parameters = {"recipe": "wildfeedback", "options": settings}
        with _runner(prefect_api, tmp_path / "one") as runner:
            run = _started(parameters)
            _until(lambda: _stuck(server, run))
            assert len(_family(str(tmp_path / "one"))) >= 3  # the runner, the flow run, its child
            get_client(sync_client=True).set_flow_run_state(run, Cancelling())
            _until(lambda: [one.pid for one in _family(str(tmp_path / "one"))] == [runner.pid], GONE_S)
            assert _ended(run).name == "Cancelled"
            assert _versions(tmp_path / "disturbed") == []

            server.control(never_share=0.0)
            run = _started(parameters)
            _until(lambda: server.stats()["finished"] >= 6)
            server.control(never_share=1.0)
            _until(lambda: _stuck(server, run))
            runner.kill()
            _until(lambda: _family(str(tmp_path / "one")) == [], GONE_S)
            assert not _state(run).is_completed()
            assert _versions(tmp_path / "disturbed") == []
        server.control(never_share=0.0)
        resumed = run_wild(settings)
        whole = run_wild(options(tmp_path / "undisturbed", server, [source]))
    assert resumed.run_id == whole.run_id
    assert sum(calls(resumed).values()) < sum(calls(whole).values())
    for name in TABLES:
        one, two = (table(tmp_path / place, name) for place in ("disturbed", "undisturbed"))
        assert one.equals(two), name
    assert table(tmp_path / "disturbed", "pairs").height > 0
