"""`tilth ask`: a table in, a table with a model's answers out. Thin: plans, conducts the recipe, keeps the books."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any  # Any: JSON values

import fsspec

import tilth
from tilth.flows.conductor import Conductor
from tilth.flows.settings import Settings
from tilth.pipelines import ask as recipe
from tilth.pipelines.ask import AskConfig, Rendered, Written
from tilth.schemas import BadInput, ConfigError, NotFound, fingerprint
from tilth.transforms.inference import tables
from tilth.transforms.inference.accounting import Accounting, account, measured_rate, remember_rate
from tilth.transforms.inference.ask import Ask
from tilth.transforms.inference.cache import if_there
from tilth.transforms.inference.engines import identify
from tilth.transforms.inference.forecast import Forecast, forecast, known_of
from tilth.transforms.inference.prompts import Prompt, load_prompt
from tilth.transforms.inference.render import ROW
from tilth.transforms.inference.requests import Request, to_requests
from tilth.transforms.inference.structured import parse_schema
from tilth.transforms.inference.usage import Usage
from tilth.transforms.inference.worker import Account
from tilth.transforms.parts import read_part, write_bytes
from tilth.transforms.stage import Execute, Manifest, Stage, Step, Task, notes, run_stage, total

_FRONT = "---\n"  # how a template file with sections begins


@dataclass(frozen=True, slots=True)
class Errand:
    """What one command asks for: which table, where to, and how far to go."""

    input: str
    output: str = ""  # beside the input when empty
    prompt_file: str = ""
    schema_file: str = ""
    dry_run: bool = False
    retry_failed: bool = False


@dataclass(frozen=True, slots=True)
class AskResult:
    """The result of `tilth ask`. rows_in * samples == rows_out + rows_quarantined."""

    run_id: str
    status: str  # written | unchanged
    output: str
    quarantine: str | None  # the table of rows without an answer, where there are any
    rows_in: int
    samples: int
    rows_out: int
    rows_quarantined: int
    quarantined: dict[str, int]  # by reason
    seconds: dict[str, float]  # wall time by stage; empty when nothing had to be done
    usage: Accounting

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Forecasted:
    """The result of `tilth ask --dry-run`."""

    run_id: str
    status: str  # forecast
    rows_in: int
    rows_unfit: int  # rows over which the prompt cannot be rendered
    finished: int  # requests that earlier sittings of the run have finished
    forecast: Forecast

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        own = {
            name: getattr(self, name) for name in ("run_id", "status", "rows_in", "rows_unfit", "finished")
        }
        return {**own, **self.forecast.to_dict()}


@dataclass(frozen=True, slots=True)
class _Job:
    """A run with its identity: equal input, prompt, parameters and model give the same `run_id`."""

    settings: Settings = field(repr=False)
    errand: Errand
    config: AskConfig
    prompt: Prompt
    identity: str
    digest: str  # of the input

    @property
    def run_id(self) -> str:
        """128 bits of everything that decides what is answered; nothing of how hard to push, or where to."""
        deciding = [tilth.__version__, recipe.NAME, self.digest, self.prompt, self.config, self.identity]
        return fingerprint(deciding)

    @property
    def workspace(self) -> str:
        return self.settings.workspace.rstrip("/")

    @property
    def directory(self) -> str:
        return f"{self.workspace}/runs/{self.run_id}"

    @property
    def output(self) -> str:
        return self.errand.output or f"{_stem(self.errand.input)}.answers.parquet"

    @property
    def quarantine(self) -> str:
        return f"{_stem(self.output)}.quarantine.parquet"

    def stage(self, step: Step) -> Stage:
        return Stage(step, f"{self.directory}/stages/{step.name}")

    def ask(self) -> Ask:
        """The step that asks."""
        settings = self.settings
        spending = Account(self.run_id, settings.price_list(), settings.limits())
        return Ask(self.identity, settings.model(), settings.answers_url(), spending, settings.push())


def ask(settings: Settings, errand: Errand, conductor: Conductor) -> AskResult | Forecasted:
    """Asks a model about each row of a table, or says what that would take.

    Whatever can be wrong with input, prompt, schema and columns is an error before anything is asked. Raises
    `CapReached`, `EngineFailed` and `QuarantineOverflow`; what is finished is kept, and the same command goes on there.
    """
    job = _job(settings, errand)
    if (known := _unchanged(job)) is not None:
        return known
    with settings.beam().session(conductor.progress) as execute:
        rendered = _render(job, conductor, execute)
        recipe.check_rendered(rendered, settings.max_quarantine_share)
        if errand.dry_run:
            return _forecast(job, rendered)
        return _answer(job, rendered, conductor, execute)


def _render(job: _Job, conductor: Conductor, execute: Execute) -> Rendered:
    def conduct(step: Step, tasks: Sequence[Task]) -> list[Manifest]:
        return conductor.perform(step.name, lambda: run_stage(job.stage(step), tasks, execute))

    return recipe.render(job.errand.input, job.digest, job.config, job.prompt, conduct)


def _answer(job: _Job, rendered: Rendered, conductor: Conductor, execute: Execute) -> AskResult:
    step = job.ask()
    if job.errand.retry_failed:
        _forget_failures(job.stage(step))

    def conduct(step: Step, tasks: Sequence[Task]) -> list[Manifest]:
        return conductor.perform(step.name, lambda: run_stage(job.stage(step), tasks, execute))

    answered = recipe.answer(rendered, step, conduct)
    used = _accounting(job, notes(job.stage(step)))
    remember_rate(job.workspace, used)
    allowed = job.settings.max_quarantine_share
    written = conductor.perform(
        "write",
        lambda: recipe.write(rendered, answered, job.config.answers, job.output, job.quarantine, allowed),
    )
    _remember(job, written, used)
    if not job.settings.keep_stages:
        _remove(f"{job.directory}/stages")
    return _result(job, "written", written, conductor.seconds, used)


def _result(
    job: _Job, status: str, written: Written, seconds: Mapping[str, float], used: Accounting
) -> AskResult:
    failed = sum(written.quarantined.values())
    return AskResult(
        job.run_id,
        status,
        job.output,
        job.quarantine if failed else None,
        written.rows_in,
        job.config.samples,
        written.rows_out,
        failed,
        written.quarantined,
        dict(seconds),
        used,
    )


# What is asked: all that can be wrong is found here


def _job(settings: Settings, errand: Errand) -> _Job:
    _check_places(errand)
    digest = tables.digest(errand.input)
    config = _config(settings.asking(), errand)
    prompt = _prompt(config, errand)
    columns = tables.columns(errand.input)
    config.answers.check(columns)
    _check_columns(prompt, config, columns)
    # The prompt is part of the identity by its templates, wherever they came from.
    config = replace(config, prompt="", system="")
    return _Job(settings, errand, config, prompt, identify(settings.model()), digest)


def _check_places(errand: Errand) -> None:
    tables.form(errand.input)
    if errand.output:
        tables.form(errand.output, tables.WRITES)
    if errand.output and _place(errand.output) == _place(errand.input):
        raise ConfigError(
            "the output would replace the input", found=errand.output, do="name another --output"
        )


def _config(config: AskConfig, errand: Errand) -> AskConfig:
    if errand.schema_file:
        config = replace(config, answer_schema=_text(errand.schema_file, "--schema"))
    if config.answer_schema:
        parse_schema(config.answer_schema)
    return config


def _prompt(config: AskConfig, errand: Errand) -> Prompt:
    if bool(errand.prompt_file) == bool(config.prompt):
        found = "both" if config.prompt else "none"
        raise ConfigError("one prompt is needed", found=found, wanted="--prompt or --prompt-file")
    text = config.prompt or _text(errand.prompt_file, "--prompt-file")
    if config.prompt or not text.startswith(_FRONT):
        return Prompt.of(recipe.PROMPT_ID, "1", user=text, system=config.system or None)
    if config.system:
        raise ConfigError("--system and a file with sections", do="put the system message into the file")
    return load_prompt(errand.prompt_file)


def _check_columns(prompt: Prompt, config: AskConfig, columns: Sequence[str]) -> None:
    used = {*prompt.names, *([config.key] if config.key else [])}
    if unknown := sorted(used - set(columns)):
        raise ConfigError(
            "the input has no such column",
            found=", ".join(unknown),
            wanted=f"one of {', '.join(columns)}",
            do="check the prompt and --key",
        )
    import polars as pl

    # Requests of no rows: what is wrong with the sampling is said now, and not by a worker.
    config.render(prompt).requests(pl.DataFrame(schema=dict.fromkeys([*columns, ROW], pl.String)))


def _text(path: str, option: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound("no such file", found=path, wanted="a text file", do=f"check {option}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read", found=type(error).__name__, do=f"check {option}") from None


def _place(uri: str) -> str:
    fs, path = fsspec.core.url_to_fs(uri)
    return f"{type(fs).__name__}:{Path(path).resolve() if Path(path).exists() else path}"


def _stem(uri: str) -> str:
    return uri[: -len(tables.form(uri))]


# What was done before


def _unchanged(job: _Job) -> AskResult | None:
    """The result of an equal run whose files are still as it wrote them; null when something is to be done."""
    fs, path = fsspec.core.url_to_fs(f"{job.directory}/summary.json")
    if not fs.exists(path):
        return None
    kept = json.loads(fs.cat_file(path))
    written = Written(**kept["written"])
    if kept["files"] != _files(job, written) or (job.errand.retry_failed and written.quarantined):
        return None
    return _result(job, "unchanged", written, {}, _accounting(job, []))


def _remember(job: _Job, written: Written, used: Accounting) -> None:
    asked = {
        "input": job.errand.input,
        "input_digest": job.digest,
        "prompt_digest": job.prompt.digest,
        "config": asdict(job.config),
        "code_version": tilth.__version__,
    }
    facts = {"written": asdict(written), "files": _files(job, written), "usage": used.to_dict()}
    kept = {"asked": asked, **facts}
    write_bytes(json.dumps(kept, indent=2, sort_keys=True).encode(), f"{job.directory}/summary.json")


def _files(job: _Job, written: Written) -> dict[str, str | None]:
    """Digests of the output and, where there is one, the quarantine; null for a file that is not there."""
    files = [job.output, *([job.quarantine] if written.quarantined else [])]
    found: dict[str, str | None] = {}
    for uri in files:
        with contextlib.suppress(NotFound):
            found[_place(uri)] = tables.digest(uri)
    return found if len(found) == len(files) else {}


def _forget_failures(stage: Stage) -> None:
    """Parts in which rows were set aside are asked again; their answered rows come from the cache."""
    fs, folder = fsspec.core.url_to_fs(f"{stage.directory}/done")
    for path in fs.glob(f"{folder}/*.json"):
        if "quarantine" in Manifest.from_json(fs.cat_file(path)).outputs:
            fs.rm(path)


def _remove(uri: str) -> None:
    fs, path = fsspec.core.url_to_fs(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


# The books


def _accounting(job: _Job, told: Sequence[Mapping[str, Any]]) -> Accounting:
    with if_there(job.settings.answers_url()) as cache:
        spent = cache.spent(job.run_id) if cache else Usage()
    return account(job.identity, told, spent, job.settings.price_list())


def _forecast(job: _Job, rendered: Rendered) -> Forecasted:
    from tilth.transforms.inference.tokens import counter  # loads tokenizers

    settings, step = job.settings, job.ask()
    counts = counter(settings.model().model, settings.model().revision)
    waiting, finished = _waiting(job, rendered, step)
    with if_there(job.settings.answers_url()) as cache:
        rate = measured_rate(job.workspace, job.identity)
        known = known_of(cache, job.run_id, job.identity, settings.price_list(), settings.limits(), rate)
        hits = cache.get_many if cache else lambda _: ()
        seen = forecast(map(_requests, waiting), known, counts, hits)
    unfit = total(rendered.rendered, "rows_unfit")
    return Forecasted(job.run_id, "forecast", rendered.row_count, unfit, finished, seen)


def _waiting(job: _Job, rendered: Rendered, step: Ask) -> tuple[list[Task], int]:
    """The tasks that are not done, and how many requests the others have."""
    stage, again = job.stage(step), job.errand.retry_failed
    waiting: list[Task] = []
    finished = 0
    for task in recipe.tasks(rendered):
        done = stage.done(task)
        if done is None or (again and "quarantine" in done.outputs):
            waiting.append(task)
        else:
            finished += done.counts["requests"]
    return waiting, finished


def _requests(task: Task) -> list[Request]:
    return [request for shard in task.inputs["requests"] for request in to_requests(read_part(shard))]
