"""With a Prefect API configured, a run is a flow run with its stages, progress and audit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilth.schemas import NotFound

pytestmark = [pytest.mark.prefect, pytest.mark.xdist_group("prefect")]
LOGS = Path(__file__).resolve().parents[2] / "samples" / "logs"
STAGES = {
    "plan",
    "ingest",
    "assign",
    "mine",
    "pair",
    "settle",
    "rule_rationales",
    "rubrics",
    "audit",
    "commit",
}


@pytest.mark.filterwarnings(
    "default"
)  # the server is a third party: its deprecations are not ours to fail on
def test_a_run_is_a_flow_run(prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command makes a flow run with a task per stage, and artifacts for progress, audit, rows and versions.

    The run's last state says what was made, that nothing was new, or which error of Tilth's own it was.
    """
    from prefect.client.orchestration import get_client

    from tilth.flows.launch import launch

    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    options = {"sources": [str(LOGS / "support.openai.jsonl")], "workspace": str(tmp_path)}
    client = get_client(sync_client=True)
    before = {run.id for run in client.read_flow_runs()}
    result = launch("observed", None, options, (), quiet=True)
    assert result["status"] == "committed"
    (own,) = [run for run in client.read_flow_runs() if run.id not in before]
    assert (own.state_name, own.name) == ("Completed", "tilth observed")
    tasks = [task for task in client.read_task_runs() if task.flow_run_id == own.id]
    assert {task.name.partition("-")[0] for task in tasks} == STAGES
    assert {task.state_name for task in tasks} == {"Completed"}
    artifacts = [artifact for artifact in client.read_artifacts() if artifact.flow_run_id == own.id]
    keys = {artifact.key for artifact in artifacts}
    assert {
        "tilth-checks",
        "tilth-run",
        "tilth-rows",
        *(f"tilth-{stage.replace('_', '-')}" for stage in STAGES),
    } <= keys
    (checks,) = [artifact for artifact in artifacts if artifact.key == "tilth-checks"]
    assert "chosen_equals_rejected" in str(checks.data)
    assert {row["verdict"] for row in json.loads(str(checks.data))} <= {
        "passed",
        "failed",
        "nothing to observe",
    }
    (rows,) = [artifact for artifact in artifacts if artifact.key == "tilth-rows"]
    source, *tables = json.loads(str(rows.data))
    assert source["in"] == source["out"] + source["set aside"] == result["rows_in"] > 0
    assert {row["name"]: row["out"] for row in tables} == {
        f"{made['name']}@{made['version']}": made["rows"] for made in result["datasets"]
    }
    version = result["datasets"][0]["version"]
    (made,) = [str(artifact.data) for artifact in artifacts if artifact.key == "tilth-run"]
    assert f"tilth catalog show observed.pairs@{version} --workspace {tmp_path}" in made
    assert launch("observed", None, options, (), quiet=True)["status"] == "unchanged"
    with pytest.raises(NotFound):
        launch("observed", None, {**options, "sources": [str(tmp_path / "none.jsonl")]}, (), quiet=True)
    runs = [run for run in client.read_flow_runs() if run.id not in before]
    told = {run.state_name: str(run.state and run.state.message) for run in runs}
    messages = [str(run.state and run.state.message) for run in runs]
    assert sum(f"{version}: " in said and "rows in" in said for said in messages) == 1
    assert sum("nothing new" in said and version in said for said in messages) == 1
    assert "none.jsonl" in told["Failed"]


@pytest.mark.filterwarnings("default")
def test_only_what_may_pass_is_retried(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost disk or child is tried again and resumes; another error of Tilth's own is not tried twice."""
    from prefect import flow

    from tilth.flows.prefect_run import PrefectConductor
    from tilth.schemas import BadInput
    from tilth.transforms.child import WorkLost

    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    calls: list[str] = []

    def flaky() -> str:
        calls.append("flaky")
        if calls.count("flaky") == 1:
            raise OSError("no space left on device")
        if calls.count("flaky") == 2:
            raise WorkLost("a stage was lost")
        return "done"

    def hopeless() -> None:
        calls.append("hopeless")
        raise BadInput("a source")

    @flow
    def conduct() -> str:
        conductor = PrefectConductor(retry_delay_s=0.01)
        result = conductor.perform("flaky", flaky)
        with pytest.raises(BadInput):
            conductor.perform("hopeless", hopeless)
        return result

    assert conduct() == "done"
    assert calls == ["flaky", "flaky", "flaky", "hopeless"]


@pytest.mark.filterwarnings("default")
def test_a_recipe_with_models_is_a_flow_run(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every question to a model is a task with a progress artifact, whatever its judge is called."""
    from prefect.client.orchestration import get_client

    from loopback import serve
    from tilth.flows.launch import launch

    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    with serve(script="sensible") as server:
        options = {
            "sources": [str(LOGS / "support.openai.jsonl")],
            "workspace": str(tmp_path),
            "engine": {"model": "large", "base_urls": [server.url]},
            "wildfeedback": {"judging": {"judges": ["Org/Third-7B"]}},
        }
        result = launch("wildfeedback", None, options, (), quiet=True)
    assert result["status"] == "committed"
    keys = {str(artifact.key) for artifact in get_client(sync_client=True).read_artifacts()}
    assert {"tilth-ask-label", "tilth-ask-preferences", "tilth-ask-expert"} <= keys
    assert any(key.startswith("tilth-ask-judge-org-third-7b") for key in keys)
