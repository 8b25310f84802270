"""`tilth evaluate`: a model's answers on the held-out set, judged and scored. Thin: plans, conducts, sums up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final  # Any: JSON values

import fsspec
import polars as pl

import tilth
from tilth.catalog import Version, open_catalog
from tilth.flows.conductor import Conductor
from tilth.flows.session import Session
from tilth.flows.settings import Settings
from tilth.pipelines import evaluate as recipe
from tilth.pipelines.evaluate import Evaluation
from tilth.pipelines.means import Inputs
from tilth.schemas import BadInput, ConfigError, NotFound, QuarantineOverflow, fingerprint
from tilth.transforms.inference import tables
from tilth.transforms.inference.engines import identify
from tilth.transforms.judging.evaluation import read_answers, score
from tilth.transforms.judging.protocol import Judge
from tilth.transforms.parts import write_part
from tilth.transforms.responses.candidates import Replying

_PART_ROWS: Final = 1_000
_REFERENCE: Final = "the logged replies"
_MEANING: Final = {
    True: "a win: judges prefer the answer to the reply that its user was dissatisfied with; 0.5 is no better",
    False: "a win: judges prefer the answer to the one that it is compared with",
}


@dataclass(frozen=True, slots=True)
class Errand:
    """What one evaluation asks for.

    Args:
        dataset: an evaluation set in the catalog.
        answers: a table of answers; or
        policy: the model that answers.
        against: a table of answers to compare with; or
        against_model: the model that gives them; else each item's reference, the logged reply.
        judges: the panel; else that of the settings (`wildfeedback.judging`).
        checklist: whether judges see what the user wants.
        allow_missing: whether items may lack an answer.
        temperature: at which models answer.
        output: a table with each item's verdict, if one is wanted.
        dry_run: only count the calls.
    """

    dataset: str = "wildfeedback.evaluation"
    answers: str = ""
    policy: str = ""
    against: str = ""
    against_model: str = ""
    judges: tuple[str, ...] = ()
    checklist: bool = True
    allow_missing: bool = False
    temperature: float = 0.0
    output: str = ""
    dry_run: bool = False


def evaluate(settings: Settings, errand: Errand, conductor: Conductor) -> dict[str, Any]:
    """Scores answers on an evaluation set, or says how many calls that would take.

    Whatever can be wrong with files and settings is an error before anything is asked. Raises `BadInput` for answers
    that do not fit the set, `QuarantineOverflow` when a model has no answer to too many items.
    """
    _check(errand)
    config = _config(settings, errand)
    version, evaluation = _evaluation(settings, errand.dataset)
    given = {
        side: read_answers(_table(uri), evaluation, errand.allow_missing)
        for side, uri in (("answers", errand.answers), ("against", errand.against))
        if uri
    }
    told = _about(errand, version, evaluation.height)
    if errand.dry_run:
        return {"status": "forecast", **told, "calls": recipe.calls(evaluation.height, config)}
    models = _models(settings, config)
    with Session(settings, _run_id(version, given, config, models), conductor) as session:
        parts = _parts(session, {"evaluation": evaluation, **given})
        results = recipe.evaluate(parts, config, session.means)
        used = session.accounting()
    _check_share(results, config, settings.max_quarantine_share)
    _write(results, errand.output)
    session.clear()
    found = {"score": score(results, config.scoring), "warnings": _warnings(config, models)}
    return {"status": "scored", "run_id": session.run_id, **told, "models": models, **found, "usage": used}


def _check(errand: Errand) -> None:
    if bool(errand.answers) == bool(errand.policy):
        found = "both" if errand.policy else "neither"
        raise ConfigError("whose answers are scored", found=found, wanted="--answers FILE or --policy NAME")
    if errand.against and errand.against_model:
        raise ConfigError(
            "what answers are compared with", found="both", wanted="--against or --against-model"
        )
    if errand.output:
        tables.form(errand.output, tables.WRITES)


def _config(settings: Settings, errand: Errand) -> Evaluation:
    judging = settings.section("wildfeedback").judging
    panel = errand.judges or judging.judges
    return Evaluation(
        policy=errand.policy,
        against=errand.against_model,
        checklist=errand.checklist,
        replying=Replying(temperature=errand.temperature),
        judging=replace(judging, judges=panel),
    )


def _evaluation(settings: Settings, dataset: str) -> tuple[Version, pl.DataFrame]:
    with open_catalog(settings.workspace, create=False) as catalog:
        version = catalog.resolve(dataset)
        if version.table != "evaluation":
            wanted = f"an evaluation set, as {version.family}.evaluation"
            raise BadInput("the dataset to evaluate on", found=version.name, wanted=wanted)
        rows = catalog.frame(f"{version.name}@{version.version}").sort("id").collect()
    if rows.is_empty():
        do = "run the recipe over more conversations: its test split has none with a complaint"
        raise NotFound(f"{version.name}@{version.version} has no items", do=do)
    return version, rows


def _table(uri: str) -> pl.DataFrame:
    tables.form(uri)
    fs, path = fsspec.core.url_to_fs(uri)
    if not fs.isfile(path):
        raise NotFound("no such table of answers", found=uri, wanted="a file with id and completion")
    return pl.concat(list(tables.batches(uri, _PART_ROWS)))


def _about(errand: Errand, version: Version, items: int) -> dict[str, Any]:
    against = errand.against_model or errand.against
    return {
        "dataset": f"{version.name}@{version.version}",
        "items": items,
        "answers": errand.policy or errand.answers,
        "against": against or _REFERENCE,
        "checklist": errand.checklist,
        "meaning": _MEANING[not against],
        "output": errand.output or None,
    }


def _models(settings: Settings, config: Evaluation) -> dict[str, str]:
    """What each role's answers are known by."""
    judges = [Judge.of(text).name for text in config.judging.judges]
    roles = dict.fromkeys(role for role in (config.policy, config.against, *judges) if role)
    return {role: identify(settings.role(role)) for role in roles}


def _run_id(
    version: Version, given: Mapping[str, pl.DataFrame], config: Evaluation, models: Mapping[str, str]
) -> str:
    """128 bits of everything that decides the verdicts."""
    answers = {side: fingerprint(frame.to_dicts()) for side, frame in given.items()}
    protocol = config.judging.pairwise(config.seed).digest
    asked = [config.policy, config.against, config.checklist, asdict(config.replying), config.seed]
    held = [version.name, version.version, version.snapshot_id]
    return fingerprint([tilth.__version__, recipe.NAME, held, answers, protocol, asked, dict(models)])


def _parts(session: Session, frames: Mapping[str, pl.DataFrame]) -> dict[str, Inputs]:
    """The set and given answers in parts of equal rows: answers stand in the order of the set."""
    home, rows = f"{session.directory}/stages/given", frames["evaluation"].height
    return {
        f"{n:06d}": {
            name: (write_part(frame.slice(offset, _PART_ROWS), f"{home}/{name}-{n:06d}.parquet"),)
            for name, frame in frames.items()
        }
        for n, offset in enumerate(range(0, rows, _PART_ROWS))
    }


def _check_share(results: pl.DataFrame, config: Evaluation, allowed: float) -> None:
    missing = results.filter(pl.col("verdict") == "missing").height
    if (config.policy or config.against) and missing > allowed * results.height:
        raise QuarantineOverflow(
            f"{missing} of {results.height} items have no answer",
            wanted=f"at most {allowed:.1%}",
            do="look at the server; answers are kept: run again, or raise max_quarantine_share",
        )


def _write(results: pl.DataFrame, output: str) -> None:
    if output:
        with tables.TableWriter(output) as writer:
            writer.write(results)


def _warnings(config: Evaluation, models: Mapping[str, str]) -> list[str]:
    judges = [Judge.of(text).name for text in config.judging.judges]
    own = {models[role] for role in (config.policy, config.against) if role}
    if any(models[name] in own for name in judges):
        return [
            "a judge is a model whose answers it judges, and may prefer its own; name another with --judge"
        ]
    return []


def print_evaluation(told: Mapping[str, Any]) -> None:
    """The score for people, or the forecast."""
    from tilth.flows.show import print_rows

    about = [
        {"": name, " ": str(told[name])} for name in ("dataset", "items", "answers", "against", "checklist")
    ]
    print_rows(about, "")
    if told["status"] == "forecast":
        rows = [{"who is asked": name, "calls at most": count} for name, count in told["calls"].items()]
        print_rows(rows, "", "what it would take")
        return
    found = told["score"]
    counts = ("wins", "losses", "ties", "inconsistent", "failed", "missing", "identical")
    print_rows([{name: found[name] for name in counts}], "")
    rates = [
        {"": word, "rate": found[name], "interval": "{:.3f} to {:.3f}".format(*edges) if edges else ""}
        for name, word in (("win_rate", "win rate"), ("win_rate_strict", "win rate, inconsistent as half"))
        for edges in (found[f"{name}_interval"],)
    ]
    print_rows(rates, "")
    print_rows([found["length"]], "", "length, in characters")
    print_rows([], told["meaning"])
    for warning in told["warnings"]:
        print_rows([], f"note: {warning}")
