"""One run from sources to committed datasets. Thin: plans, conducts the stages, audits, commits, sums up."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any  # Any: configurations of recipes, JSON values

import tilth
from tilth.catalog import AuditReport, Catalog, Release, Version, audit, open_catalog, releases_behind
from tilth.catalog.forgotten import forgotten
from tilth.flows.check import own_suites
from tilth.flows.conductor import Conductor
from tilth.flows.locks import held, run_lock, stream_lock
from tilth.flows.origin import Origin, origin_of, stream_id
from tilth.flows.recipes import RECIPES, Recipe
from tilth.flows.result import Dataset, RunResult, SourceCount
from tilth.flows.session import Session
from tilth.flows.settings import Settings
from tilth.pipelines.observed import Observation, Observed, quarantined
from tilth.schemas import NotFound, fingerprint
from tilth.transforms.inference.engines import identify
from tilth.transforms.ingest import leave_out
from tilth.transforms.parts import is_there, write_bytes
from tilth.transforms.stage import Manifest, numbered, total

_UNNAMED = ("user_salt", "forgotten_users", "forgotten_conversations")


@dataclass(frozen=True, slots=True)
class Job:
    """A run with its identity: the same recipe, configuration, models and source content give the same `run_id`."""

    name: str
    logs: Observed
    config: Any
    models: Mapping[str, str]  # role -> what its answers are known by
    witnesses: Mapping[str, str]  # digests of prompts and files
    origin: Origin
    workspace: str
    user_salt: str

    @property
    def recipe(self) -> Recipe:
        """What is run."""
        return RECIPES[self.name]

    @property
    def public_config(self) -> Mapping[str, Any]:
        """The configuration as it is recorded: the salt, and who is to be forgotten, by fingerprints alone."""
        own = {} if self.config is None else {self.name: asdict(self.config)}
        asked = {"models": dict(self.models), "witnesses": dict(self.witnesses)} if own else {}
        if self.recipe.tables:  # how logs are read and mined was decided when its parent was made
            return {**own, **asked}
        named = asdict(self.logs.ingest)
        ingest = {**named, **{name: fingerprint(named[name]) for name in _UNNAMED}}
        return {**asdict(self.logs), "ingest": ingest, **own, **asked}

    @property
    def run_id(self) -> str:
        """128 bits of everything that decides the outcome: code version, tables, configuration, what sources hold."""
        made = [tilth.__version__, self.name, list(self.recipe.lineage)]
        return fingerprint([*made, self.public_config, list(self.origin.known_by)])


def run(recipe: str, settings: Settings, conductor: Conductor) -> RunResult:
    """Runs a recipe to committed datasets, or returns what an equal run has committed before.

    Raises `QuarantineOverflow` when too many rows are broken, `ChecksFailed` when a critical check fails; the
    catalog is then as it was, and the staged files are kept for looking at.
    """
    workspace, stream = settings.workspace.rstrip("/"), stream_id(recipe, RECIPES[recipe], settings)
    with contextlib.ExitStack() as locks:
        if stream is not None:  # before it looks at what earlier runs have read
            locks.enter_context(held(stream_lock(workspace, stream), conductor.waiting))
        job = conductor.perform("plan", lambda: job_of(recipe, settings))
        locks.enter_context(held(run_lock(workspace, job.run_id), conductor.waiting))
        return _run(job, settings, conductor)


def _run(job: Job, settings: Settings, conductor: Conductor) -> RunResult:
    catalog = open_catalog(job.workspace)
    committed = catalog.find_run(job.name, job.run_id)
    if committed:
        return _result(job, committed, {}, json.loads(committed[0].properties["tilth.summary"]), "unchanged")
    with session_of(job, settings, conductor, catalog) as session:
        _ready_stream(job, session)
        observation = job.recipe.run(
            job.origin.given, job.logs, job.config, session.means, settings.max_quarantine_share
        )
        used = session.accounting()
    report = conductor.perform("audit", lambda: _audit(session, observation, job, catalog))
    conductor.audited(report)
    report.refuse()
    summary = {**_summary(job, observation), **({"usage": used} if job.models else {})}
    versions = conductor.perform(
        "commit", lambda: _commit(job, session, catalog, observation, report, summary)
    )
    session.clear()
    return _result(job, versions, conductor.seconds, summary, "committed")


def session_of(job: Job, settings: Settings, conductor: Conductor, catalog: Catalog) -> Session:
    """A sitting of the run: what it makes final is staged in the catalog, where nothing is visible before a commit."""
    places = {table: catalog.staging(job.name, table, job.run_id) for table in job.recipe.lineage}
    return Session(settings, job.run_id, conductor, places, job.recipe.passing, job.origin.stream)


def _ready_stream(job: Job, session: Session) -> None:
    """Leaves out of what a stream has read whom the workspace is to forget, and demands what cannot be read again.

    Raises `NotFound` when rows of a source file that is gone are to be kept, and are not there.
    """
    if job.origin.stream is None:
        return
    ingest = job.logs.ingest
    stage = session.stage(ingest)
    leave_out(stage, ingest.forgotten_users, ingest.forgotten_conversations)
    if not (job.origin.counts or {}).get("gone"):
        return
    reads: Sequence[Mapping[str, Any]] = job.origin.given  # pyright: ignore[reportAssignmentType]  (logs: no parent)
    for task in numbered(reads, [{}] * len(reads)):
        files = [file["uri"] for file in task.options["files"]]
        lost = next((uri for uri in files if not is_there(uri)), None)
        if lost is not None and stage.done(task) is None:
            raise NotFound(
                "a source file is gone, and its rows were read with other settings or have been purged",
                found=lost,
                do="put the file back, or let its rows go: --set on_deleted=drop",
            )


def job_of(recipe: str, settings: Settings) -> Job:
    """The run that settings stand for. Raises `ConfigError` when a source or a model that it needs is not named."""
    workspace = settings.workspace.rstrip("/")
    logs, config = without_forgotten(settings.logs(), workspace), settings.section(recipe)
    known = RECIPES[recipe]
    origin = origin_of(recipe, known, settings)
    if known.without_model and not settings.names_a_model:
        config = known.without_model(config)
    models = {role: identify(settings.role(role)) for role in known.roles(config)}
    witnesses = known.witnesses(config)
    return Job(recipe, logs, config, models, witnesses, origin, workspace, logs.ingest.user_salt)


def without_forgotten(logs: Observed, workspace: str) -> Observed:
    """How logs are read where somebody is to be forgotten; see `tilth catalog forget`."""
    gone = forgotten(workspace)
    ingest = replace(logs.ingest, forgotten_users=gone.users, forgotten_conversations=gone.conversations)
    return replace(logs, ingest=ingest)


def _files(observation: Observation) -> dict[str, list[str]]:
    return {table: [shard.uri for shard in shards] for table, shards in observation.tables.items()}


def _audit(session: Session, observation: Observation, job: Job, catalog: Catalog) -> AuditReport:
    parents = [
        files for name in job.origin.parents for files in releases_behind(catalog, catalog.resolve(name))
    ]
    report = audit(_files(observation), parents=parents, suites=own_suites(job.workspace))
    write_bytes(report.to_json().encode(), f"{session.directory}/audit.json")
    return report


def _commit(
    job: Job,
    session: Session,
    catalog: Catalog,
    observation: Observation,
    report: AuditReport,
    summary: Mapping[str, Any],
) -> list[Version]:
    properties = {
        "tilth.summary": json.dumps(summary, sort_keys=True),
        "tilth.config": json.dumps(job.public_config, sort_keys=True),
        "tilth.config_sha": fingerprint(job.public_config),
        "tilth.parents": json.dumps(job.origin.parents),
        "tilth.lineage": json.dumps(job.recipe.lineage, sort_keys=True),
        "tilth.code_version": tilth.__version__,
        **job.origin.properties(f"{catalog.warehouse}/{job.name}", job.run_id),
        **observation.properties,
    }
    versions = catalog.publish(Release(job.name, job.run_id, _files(observation), properties, report))
    write_bytes(json.dumps(summary, indent=2).encode(), f"{session.directory}/summary.json")
    return versions


def _warnings(job: Job, manifests: Sequence[Manifest]) -> list[str]:
    found: list[str] = []
    if not job.user_salt and total(manifests, "with_user"):
        found.append("user ids are hashed without a secret; set TILTH_USER_SALT if they can be guessed")
    if job.recipe.without_model and not job.models:
        found.append("no model is named, so rules alone were used; --model names one")
    own = {job.models[role] for role in job.recipe.writers(job.config)}
    if own & {job.models[role] for role in job.recipe.judges(job.config)}:
        found.append(
            "a judge is a model that wrote what it judges, and may prefer its own; name another with --judge"
        )
    return found


def _summary(job: Job, observation: Observation) -> dict[str, Any]:
    manifests = [manifest for stage in observation.manifests.values() for manifest in stage]
    sources = [asdict(count) for count in _per_source(manifests, job.origin)]
    return {
        "rows_in": sum(source["rows_in"] for source in sources),
        "rows_quarantined": sum(source["rows_quarantined"] for source in sources),
        "sources": sources,
        "quarantined": quarantined(manifests),
        "dropped": quarantined(manifests, "dropped."),
        "passed_over": quarantined(manifests, "passed_over."),
        "warnings": _warnings(job, manifests),
        "notes": {name: quarantined(manifests, f"{name}.") for name in _NOTED},
    }


# Prefixes of what steps count beside rows: the only trace of what was merged, since stages are removed.
_NOTED = (
    "cascade",
    "labels",
    "preferences",
    "verdict",
    "rationales",
    "complaints",
    "grades",
    "rubrics",
    "orbit",
    "rollouts",
)


def _per_source(manifests: Sequence[Manifest], origin: Origin) -> list[SourceCount]:
    """Counts by source as the user named it; what was set aside is counted by file."""
    names = dict.fromkeys(
        name.removeprefix("rows_in@") for m in manifests for name in m.counts if "rows_in@" in name
    )
    files: dict[str, set[str]] = {name: {name} for name in names}
    for read in origin.known_by if origin.counts is not None else ():
        files.setdefault(read["source"], {read["source"]}).update(file["uri"] for file in read["files"])
    rows = [
        (
            name,
            total(manifests, f"rows_in@{name}"),
            sum(total(manifests, f"set_aside@{uri}") for uri in files[name]),
        )
        for name in names
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
    files = dict(job.origin.counts or {})
    options: dict[str, Any] = {**facts, "datasets": datasets, "seconds": dict(seconds), "files": files}
    return RunResult(job.run_id, status, **options)
