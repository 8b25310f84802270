"""One run from sources to committed datasets. Thin: plans, conducts the stages, audits, commits, sums up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import fsspec

import tilth
from tilth.catalog import AuditReport, Catalog, Release, Version, audit, open_catalog
from tilth.flows.result import Dataset, RunResult, SourceCount
from tilth.flows.settings import Settings
from tilth.pipelines import observed
from tilth.pipelines.observed import Observation, Observed, quarantined
from tilth.schemas import ConfigError, fingerprint
from tilth.transforms.ingest import expand, plan
from tilth.transforms.parts import write_bytes
from tilth.transforms.stage import Manifest, Progress, Stage, Step, Task, run_stage, total

T = TypeVar("T")


@dataclass(slots=True)
class Conductor:
    """Runs named pieces of work here and now, and notes their wall time. A Prefect flow has its own kind."""

    progress: Progress | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def perform(self, name: str, work: Callable[[], T]) -> T:
        """Runs `work` as the step `name` and returns what it returns."""
        started = time.perf_counter()
        try:
            return self.do(name, work)
        finally:
            self.seconds[name] = round(time.perf_counter() - started, 3)

    def do(self, name: str, work: Callable[[], T]) -> T:  # noqa: ARG002  (an orchestrator uses the name)
        """How a step is run; an orchestrator's conductor makes a task of it."""
        return work()

    def audited(self, report: AuditReport) -> None:
        """Told of the audit's result, before it decides."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run with its identity: the same recipe, configuration and source content give the same `run_id`."""

    recipe: str
    config: Observed
    reads: Sequence[Mapping[str, Any]]
    workspace: str
    user_salt: str

    @property
    def public_config(self) -> Mapping[str, Any]:
        """The configuration as it is recorded: the salt by its fingerprint alone."""
        ingest = {**asdict(self.config.ingest), "user_salt": fingerprint(self.config.ingest.user_salt)}
        return {**asdict(self.config), "ingest": ingest}

    @property
    def run_id(self) -> str:
        """128 bits of everything that decides the outcome: code version, configuration, what the sources hold."""
        return fingerprint([tilth.__version__, self.recipe, self.public_config, list(self.reads)])

    @property
    def directory(self) -> str:
        """Where the run keeps manifests and intermediates until it is committed."""
        return f"{self.workspace}/runs/{self.run_id}"


def preview(recipe: str, settings: Settings) -> dict[str, Any]:
    """What a run would read: sources with shape and size. Reads no more than is needed to know a source's shape."""
    reads = _plan(settings)
    files = {
        file["uri"]: {"source": file["uri"], "shape": read["shape"], "bytes": file["size_bytes"]}
        for read in reads
        for file in read["files"]
    }
    return {
        "recipe": recipe,
        "status": "forecast",
        "sources": list(files.values()),
        "calls": 0,
        "model": None,
    }


def _plan(settings: Settings) -> list[dict[str, Any]]:
    if not settings.sources:
        raise ConfigError(
            "no source given", wanted="at least one URI", do="add --source, or `sources:` to tilth.yaml"
        )
    return plan(expand(settings.sources), settings.format, settings.map)


def run(recipe: str, settings: Settings, conductor: Conductor) -> RunResult:
    """Runs a recipe to committed datasets, or returns what an equal run has committed before.

    Raises `QuarantineOverflow` when too many rows are broken, `ChecksFailed` when a critical check fails; the
    catalog is then as it was, and the staged files are kept for looking at.
    """
    config = settings.recipe()
    reads = conductor.perform("plan", lambda: _plan(settings))
    job = Job(recipe, config, reads, settings.workspace.rstrip("/"), config.ingest.user_salt)
    catalog = open_catalog(job.workspace)
    committed = catalog.find_run(recipe, job.run_id)
    if committed:
        return _result(job, committed, {}, json.loads(committed[0].properties["tilth.summary"]), "unchanged")
    places = {table: catalog.staging(recipe, table, job.run_id) for table in observed.TABLES}
    observation = _observe(job, settings, conductor, places)
    report = conductor.perform("audit", lambda: _audit(job, observation))
    conductor.audited(report)
    report.refuse()
    summary = _summary(job, observation)
    versions = conductor.perform("commit", lambda: _commit(job, catalog, observation, report, summary))
    if not settings.keep_stages:
        _remove(f"{job.directory}/stages")
    return _result(job, versions, conductor.seconds, summary, "committed")


def _observe(job: Job, settings: Settings, conductor: Conductor, places: Mapping[str, str]) -> Observation:
    with settings.beam().session(conductor.progress) as execute:

        def conduct(step: Step, tasks: Sequence[Task]) -> list[Manifest]:
            stage = Stage(step, f"{job.directory}/stages/{step.name}", _own_places(step, places))
            return conductor.perform(step.name, lambda: run_stage(stage, tasks, execute))

        return observed.observe(job.reads, job.config, conduct, settings.max_quarantine_share)


def _own_places(step: Step, places: Mapping[str, str]) -> Mapping[str, str]:
    # Ingest's conversations are not final: `mine` sets duplicates aside and gives splits.
    return {table: uri for table, uri in places.items() if (step.name, table) != ("ingest", "conversations")}


def _files(observation: Observation) -> dict[str, list[str]]:
    return {table: [shard.uri for shard in shards] for table, shards in observation.tables.items()}


def _audit(job: Job, observation: Observation) -> AuditReport:
    report = audit(_files(observation))
    write_bytes(report.to_json().encode(), f"{job.directory}/audit.json")
    return report


def _commit(
    job: Job, catalog: Catalog, observation: Observation, report: AuditReport, summary: Mapping[str, Any]
) -> list[Version]:
    properties = {
        "tilth.summary": json.dumps(summary, sort_keys=True),
        "tilth.config": json.dumps(job.public_config, sort_keys=True),
        "tilth.config_sha": fingerprint(job.public_config),
        "tilth.parents": json.dumps([]),
        "tilth.code_version": tilth.__version__,
    }
    versions = catalog.publish(Release(job.recipe, job.run_id, _files(observation), properties, report))
    write_bytes(json.dumps(summary, indent=2).encode(), f"{job.directory}/summary.json")
    return versions


def _remove(uri: str) -> None:
    fs, path = fsspec.core.url_to_fs(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def _warnings(job: Job, manifests: Sequence[Manifest]) -> list[str]:
    if job.user_salt or not total(manifests, "with_user"):
        return []
    return ["user ids are hashed without a secret; set TILTH_USER_SALT if they can be guessed"]


def _summary(job: Job, observation: Observation) -> dict[str, Any]:
    manifests = [manifest for stage in observation.manifests.values() for manifest in stage]
    sources = [asdict(count) for count in _per_source(manifests)]
    return {
        "rows_in": sum(source["rows_in"] for source in sources),
        "rows_quarantined": sum(source["rows_quarantined"] for source in sources),
        "sources": sources,
        "quarantined": quarantined(manifests),
        "dropped": quarantined(manifests, "dropped."),
        "passed_over": quarantined(manifests, "passed_over."),
        "warnings": _warnings(job, manifests),
    }


def _per_source(manifests: Sequence[Manifest]) -> list[SourceCount]:
    names = dict.fromkeys(
        name.removeprefix("rows_in@") for m in manifests for name in m.counts if "rows_in@" in name
    )
    rows = [
        (name, total(manifests, f"rows_in@{name}"), total(manifests, f"set_aside@{name}")) for name in names
    ]
    return [SourceCount(name, came, came - set_aside, set_aside) for name, came, set_aside in rows]


def _result(
    job: Job,
    versions: Sequence[Version],
    seconds: Mapping[str, float],
    summary: Mapping[str, Any],
    status: str,
) -> RunResult:
    datasets = [Dataset(v.name, v.version, v.rows, v.snapshot_id) for v in versions]
    facts = {**summary, "sources": [SourceCount(**source) for source in summary["sources"]]}
    options: dict[str, Any] = {**facts, "datasets": datasets, "seconds": dict(seconds)}
    return RunResult(job.run_id, status, **options)
