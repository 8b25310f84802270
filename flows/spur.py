"""`tilth feedback learn` and `score`: a rubric from labelled conversations, scores by a rubric. A model is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple  # Any: JSON values

import polars as pl

import tilth
from tilth.flows.classifier import conversations_of, witness_of
from tilth.flows.conductor import Conductor
from tilth.flows.session import Session
from tilth.flows.settings import Settings
from tilth.pipelines import spur as recipe
from tilth.schemas import BadInput, ConfigError, QuarantineOverflow, fingerprint
from tilth.transforms.feedback.labelled import LABELS, read_labelled
from tilth.transforms.feedback.spur import SCORES, SET_ASIDE, apart, prompts
from tilth.transforms.feedback.spur_rubric import Rubric, SpurConfig, load_rubric, save_rubric
from tilth.transforms.inference import tables
from tilth.transforms.inference.engines import identify
from tilth.transforms.inference.tables import TableWriter
from tilth.transforms.parts import Shard, read_part, write_part

_PART_ROWS: Final = (
    1_000  # conversations per part: what is asked again when a run was killed in the middle of one
)


class Counted(NamedTuple):
    """Conversations in parts, and rows of the sources that are none or were there before."""

    parts: dict[str, dict[str, tuple[Shard, ...]]]
    conversations: int
    passed_over: dict[str, int]


def learn_rubric(
    settings: Settings, labelled: str, output: str, conductor: Conductor, *, dry_run: bool = False
) -> dict[str, Any]:
    """Learns a rubric from a JSONL file of labelled conversations and writes it as JSON.

    With `dry_run` only says how many calls it would take at most. Raises `QuarantineOverflow` when too many of the
    conversations could not be used; answers are kept, and the same command goes on there.
    """
    if not output.endswith(".json"):
        raise ConfigError(
            "the file of a rubric", found=output.rpartition("/")[2], wanted="a name that ends in .json"
        )
    config, rows = _config(settings), _labelled(labelled)
    examples, trials = apart(rows, config)
    calls = _calls(examples, trials, config)
    if dry_run:
        return {
            "status": "forecast",
            "conversations": rows.height,
            **calls,
            "model": identify(settings.role(recipe.ROLE)),
        }
    with Session(
        settings, _run_id(settings, "learn", [rows.to_dict(as_series=False), config]), conductor
    ) as session:
        shard = write_part(rows, f"{session.directory}/stages/labelled/000000.parquet")
        rubric, set_aside = recipe.learn((shard,), config, session.means)
        _check(set_aside.height, rows.height, settings, set_aside)
        save_rubric(rubric, output)
        used = session.accounting()
        session.clear()
    return {
        "status": "written",
        "output": output,
        "rubric_version": rubric.version,
        "conversations": rows.height,
        "learned_from": dict(rubric.learned_from),
        "satisfaction": [item.name for item in rubric.satisfaction],
        "dissatisfaction": [item.name for item in rubric.dissatisfaction],
        "thresholds": {"sat_from": rubric.thresholds.sat_from, "dsat_to": rubric.thresholds.dsat_to},
        "quarantined": _reasons(set_aside),
        "usage": used,
    }


def score_conversations(
    settings: Settings,
    rubric_file: str,
    sources: Sequence[str],
    output: str,
    conductor: Conductor,
    *,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Scores conversations of logs or of a dataset by a rubric, one call each, and writes a table.

    Conversations without a score stand beside it, in OUTPUT's .quarantine.parquet, with their reason. A conversation
    that the sources hold several times is scored once.
    """
    form = tables.form(output, tables.WRITES)
    rubric, config = load_rubric(rubric_file), _config(settings)
    if dry_run:
        return _forecast(settings, sources, conductor)
    deciding = [rubric.version, config, witness_of(settings, sources)]
    with Session(settings, _run_id(settings, "score", deciding), conductor) as session:
        counted = _parts(settings, sources, f"{session.directory}/stages/conversations", conductor)
        _refuse_none(counted)
        made = recipe.score(counted.parts, rubric, config, session.means).values()
        scores = [shard for one in made for shard in one.outputs.get("scores", [])]
        aside = [shard for one in made for shard in one.outputs.get("set_aside", [])]
        set_aside = pl.concat([pl.DataFrame(schema=SET_ASIDE), *map(read_part, aside)])
        _check(set_aside.height, counted.conversations, settings, set_aside)
        labels = _write(scores, set_aside, output, f"{output[: -len(form)]}.quarantine.parquet")
        used = session.accounting()
        session.clear()
    return {
        "status": "written",
        "output": output,
        "rubric_version": rubric.version,
        "conversations": counted.conversations,
        "passed_over": counted.passed_over,
        "labels": labels,
        "quarantined": _reasons(set_aside),
        "warnings": _warnings(settings, rubric),
        "usage": used,
    }


def _forecast(settings: Settings, sources: Sequence[str], conductor: Conductor) -> dict[str, Any]:
    seen: set[str] = set()
    passed_over: dict[str, int] = {}
    for _ in _fresh(settings, sources, seen, passed_over, conductor):
        pass
    counted = Counted({}, len(seen), passed_over)
    _refuse_none(counted)
    about = {"conversations": len(seen), "passed_over": passed_over, "calls": len(seen)}
    return {"status": "forecast", **about, "model": identify(settings.role(recipe.ROLE))}


def _refuse_none(counted: Counted) -> None:
    if not counted.conversations:
        found = f"{sum(counted.passed_over.values())} rows passed over"
        raise BadInput("no conversations to score", found=found, wanted="at least one", do="check --source")


def _config(settings: Settings) -> SpurConfig:
    return settings.section("spur")


def _run_id(settings: Settings, what: str, deciding: Any) -> str:
    identity = identify(settings.role(recipe.ROLE))
    return fingerprint([tilth.__version__, recipe.NAME, what, deciding, prompts(), identity])


def _labelled(uri: str) -> pl.DataFrame:
    """id, messages and label (SAT, DSAT, neutral); without what the file holds out for testing."""
    rows = read_labelled(uri)
    learned_from = (pl.col("fold") != "held_out").fill_null(value=True)
    return rows.filter(learned_from).select(
        "id", "messages", pl.col("polarity").replace_strict(LABELS).alias("label")
    )


def _calls(examples: pl.DataFrame, trials: pl.DataFrame, config: SpurConfig) -> dict[str, int]:
    """Calls of each kind; those that merge at most, because a conversation may give fewer reasons."""
    sides = [examples.filter(pl.col("label") == side).height for side in ("SAT", "DSAT")]
    merges = sum(-(-side * config.reasons // config.batch) for side in sides)
    calls = {"extract_calls": sum(sides), "merge_calls": merges, "score_calls": trials.height}
    return {**calls, "calls": sum(calls.values())}


def _parts(settings: Settings, sources: Sequence[str], folder: str, conductor: Conductor) -> Counted:
    seen: set[str] = set()
    passed_over: dict[str, int] = {}
    parts: dict[str, dict[str, tuple[Shard, ...]]] = {}
    for frame in _fresh(settings, sources, seen, passed_over, conductor):
        name = f"{len(parts):06d}"
        parts[name] = {"conversations": (write_part(frame, f"{folder}/{name}.parquet"),)}
    return Counted(parts, len(seen), passed_over)


def _fresh(
    settings: Settings,
    sources: Sequence[str],
    seen: set[str],
    passed_over: dict[str, int],
    conductor: Conductor,
) -> Iterator[pl.DataFrame]:
    """Conversations that were not seen before, in parts; counts the rows that are passed over by reason."""
    for batch in conversations_of(settings, sources, conductor.progress, "read"):
        for reason, count in batch.quarantine.group_by("reason").len().iter_rows():
            passed_over[reason] = passed_over.get(reason, 0) + count
        rows = batch.conversations.select("id", "messages")
        fresh = rows.filter(~pl.col("id").is_in(list(seen))).unique("id", keep="first", maintain_order=True)
        if repeated := rows.height - fresh.height:
            passed_over["duplicate"] = passed_over.get("duplicate", 0) + repeated
        seen.update(fresh.get_column("id"))
        yield from (fresh.slice(at, _PART_ROWS) for at in range(0, fresh.height, _PART_ROWS))


def _check(failed: int, asked: int, settings: Settings, set_aside: pl.DataFrame) -> None:
    if failed > settings.max_quarantine_share * asked:
        raise QuarantineOverflow(
            f"{failed} of {asked} conversations could not be used",
            found=", ".join(f"{reason}: {count}" for reason, count in _reasons(set_aside).items()),
            wanted=f"at most {settings.max_quarantine_share:.1%}",
            do="answers are kept; ask another model, or raise max_quarantine_share",
        )


def _reasons(set_aside: pl.DataFrame) -> dict[str, int]:
    counts = set_aside.group_by("reason").len().iter_rows()
    return dict(sorted(counts, key=lambda pair: (-pair[1], pair[0])))


def _write(scores: Sequence[Shard], set_aside: pl.DataFrame, output: str, beside: str) -> dict[str, int]:
    labels: dict[str, int] = {}
    with TableWriter(output) as out, TableWriter(beside, keep_empty=False) as aside:
        out.write(pl.DataFrame(schema=SCORES))
        for shard in scores:
            frame = read_part(shard)
            out.write(frame)
            for label, count in frame.group_by("label").len().iter_rows():
                labels[label] = labels.get(label, 0) + count
        aside.write(set_aside)
    return dict(sorted(labels.items()))


def _warnings(settings: Settings, rubric: Rubric) -> list[str]:
    found: list[str] = []
    if rubric.model and rubric.model != identify(settings.role(recipe.ROLE)):
        found.append(
            "the thresholds were chosen with another model, and impacts of two models are not comparable"
        )
    if rubric.prompts and dict(rubric.prompts) != prompts():
        found.append("the thresholds were chosen with other prompts")
    return found
