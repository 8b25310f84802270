"""What `tilth schedule` and `tilth flow` do: edit the schedules of a settings file, ask the server about their runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final  # Any: YAML and JSON values

from pydantic import ValidationError

from tilth.flows.prefect_api import Api
from tilth.flows.schedules import (
    Schedule,
    block_of,
    check_name,
    edited,
    found_in,
    schedules_of,
)
from tilth.flows.settings import DEFAULT_FILE, load, put
from tilth.flows.up import api_of, settings_file
from tilth.schemas import BadInput, ConfigError, NotFound, TilthError

_OVER: Final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
_LOOK_S: Final = 0.5


def add_schedule(
    config: str | None,
    name: str,
    recipe: str,
    when: Mapping[str, Any],
    options: Mapping[str, Any],
    sets: Sequence[str],
    dry_run: bool,
) -> dict[str, Any]:
    """Adds a schedule to the settings file, which is made when it is missing, and says what was written.

    Raises `ConfigError` or `BadInput`, and writes nothing, when a run with these settings could not begin.
    """
    file, settings = Path(config or DEFAULT_FILE), dict(options)
    for pair in sets:
        put(settings, pair)
    values = {"recipe": recipe, **when, **({"settings": settings} if settings else {})}
    schedule = _schedule(values)
    schedule.check(file)
    with edited(file, dry_run=dry_run) as schedules:
        if check_name(name) in schedules:
            do = "choose another --name, or remove that one first"
            raise BadInput("a schedule is called so already", found=name, do=do)
        schedules[name] = values
    times = [f"{time:%Y-%m-%d %H:%M:%S %Z}" for time in schedule.after(datetime.now(UTC), 3)]
    said = f"next: {', '.join(times)}" if times else "paused"
    return {"name": name, "next": times, **_told(f"added {name} to {file}; {said}", name, values, dry_run)}


def _schedule(values: Mapping[str, Any]) -> Schedule:
    try:
        return Schedule.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"a schedule: {said}", found=key and values.get(key)) from None


def set_paused(config: str | None, name: str, paused: bool, dry_run: bool) -> dict[str, Any]:
    """Pauses or resumes a schedule. Raises `NotFound`."""
    file = settings_file(config)
    with edited(file, dry_run=dry_run) as schedules:
        values = found_in(schedules, name)
        if paused:
            values["paused"] = True
        else:
            values.pop("paused", None)
    said = f"{'paused' if paused else 'resumed'} {name}"
    return {"name": name, "paused": paused, **_told(said, name, values, dry_run)}


def remove_schedule(config: str | None, name: str, dry_run: bool) -> dict[str, Any]:
    """Takes a schedule out of the file, and says what stood there. Raises `NotFound`."""
    file = settings_file(config)
    with edited(file, dry_run=dry_run) as schedules:
        values = found_in(schedules, name)
        del schedules[name]
    return {"name": name, **_told(f"removed {name}; this stood in {file}:", name, values, dry_run)}


def _told(said: str, name: str, values: Mapping[str, Any], dry_run: bool) -> dict[str, Any]:
    return {
        "said": f"nothing changed (--dry-run); would be: {said}" if dry_run else said,
        "yaml": block_of(name, values),
    }


def schedule_rows(config: str | None) -> list[dict[str, Any]]:
    """Schedules with their next times, and the state of the last run where a server answers."""
    file = settings_file(config)
    schedules = schedules_of(file)
    last = _last_runs(_api(file), list(schedules))
    now = datetime.now(UTC)
    return [
        {
            "schedule": name,
            "recipe": schedule.recipe,
            "when": schedule.when,
            "next": "paused" if schedule.paused else f"{schedule.after(now)[0]:%Y-%m-%d %H:%M:%S %Z}",
            "last run": last.get(name, {}).get("end_time") or last.get(name, {}).get("start_time"),
            "state": last.get(name, {}).get("state_name"),
        }
        for name, schedule in schedules.items()
    ]


def _api(file: Path) -> Api | None:
    workspace = load(str(file) if file.exists() else None).workspace
    # As for `up`, which works in the folder of the file.
    return api_of(workspace if "://" in workspace else str(file.parent / workspace))


def _demanded(file: Path) -> Api:
    api = _api(file)
    if api is None:
        raise TilthError("no tilth up is at work", wanted="a server and a runner", do="start tilth up")
    return api


def _deployments(api: Api, names: Sequence[str]) -> dict[str, str]:
    """Deployment id -> schedule, of those that the server knows."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[api.deployment(name)["id"]] = name
        except NotFound:
            continue
    return found


def _last_runs(api: Api | None, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    if api is None or not api.healthy():
        return {}
    return {name: runs[0] for id, name in _deployments(api, names).items() if (runs := api.runs([id], 1))}


def run_rows(config: str | None, count: int) -> list[dict[str, Any]]:
    """The last runs of the schedules of a file, the latest first."""
    file = settings_file(config)
    api = _demanded(file)
    names = _deployments(api, list(schedules_of(file)))
    return [
        {
            "run": run["id"],
            "schedule": names[run["deployment_id"]],
            "started": run["start_time"],
            "seconds": round(run["total_run_time"], 1),
            "state": run["state_name"],
        }
        for run in api.runs(list(names), count)
    ]


def run_schedule(config: str | None, name: str, *, wait: bool) -> dict[str, Any]:
    """Runs a schedule's flow now, through the server. Raises `NotFound` for one that nobody serves."""
    file = settings_file(config)
    api = _demanded(file)
    try:
        deployment = api.deployment(name)
    except NotFound:
        served = ", ".join(schedules_of(file)) or "no schedule"
        do = "tilth up serves a schedule a second after it was added"
        raise NotFound("no such schedule on the server", found=name, wanted=served, do=do) from None
    run = api.post(f"deployments/{deployment['id']}/create_flow_run", {})
    while wait and run["state_type"] not in _OVER:
        time.sleep(_LOOK_S)
        run = api.get(f"flow_runs/{run['id']}")
    return {"run": run["id"], "state": run["state_name"], "url": api.page_of(run["id"])}


def cancel_run(config: str | None, run_id: str) -> dict[str, Any]:
    """Asks the server to cancel a run; the runner ends its processes. Raises `NotFound`."""
    api = _demanded(settings_file(config))
    api.post(f"flow_runs/{run_id}/set_state", {"state": {"type": "CANCELLING"}})
    return {"run": run_id, "state": api.get(f"flow_runs/{run_id}")["state_name"]}
