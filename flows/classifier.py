"""`tilth feedback train` and `label`: a classifier from labels, and labels from a classifier. No model is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple  # Any: JSON values

import polars as pl

from tilth.catalog import Catalog, Version, open_catalog
from tilth.catalog.parts import dataset
from tilth.flows.settings import Settings
from tilth.schemas import BadInput, ConfigError
from tilth.transforms.feedback.classifier import (
    PROBABILITIES,
    Classifier,
    ClassifierConfig,
    load_classifier,
    probabilities,
    save_classifier,
    train,
    uncertain,
)
from tilth.transforms.feedback.classifier_quality import (
    cross_validated,
    labels_of_feedback,
    labels_of_people,
    on_held_out,
)
from tilth.transforms.feedback.labelled import as_conversations, read_labelled
from tilth.transforms.inference.tables import TableWriter
from tilth.transforms.ingest import expand, plan, read
from tilth.transforms.stage import Headway, Progress

LABELLED: Final = pl.Schema({**PROBABILITIES, "uncertain": pl.Boolean, "classifier": pl.String})
_DATASET: Final = re.compile(r"[a-z][a-z0-9_]*\.(?:conversations|feedback)(?:@[0-9.]+)?")
_BATCH: Final = 20_000  # conversations that are held at once


class Material(NamedTuple):
    """Labelled turns to learn from, and those that were kept for testing; a part may have no rows."""

    conversations: pl.DataFrame
    labels: pl.DataFrame
    held_out: pl.DataFrame  # labels


def train_classifier(settings: Settings, labels: str, output: str) -> dict[str, Any]:
    """Trains on a file or a dataset, writes the model, and says how good it is on turns that it had not seen.

    Raises `ConfigError` for an output that is no .npz, and what `train` raises.
    """
    if not output.endswith(".npz"):
        raise ConfigError(
            "the file of a classifier", found=output.rpartition("/")[2], wanted="a name that ends in .npz"
        )
    config, rules = _config(settings), settings.logs().feedback
    material = _material(settings, labels, config)
    model = train(material.conversations, material.labels, config, rules)
    figures = cross_validated(material.conversations, material.labels, config, rules)
    unseen = on_held_out(material.conversations, material.held_out, model) if material.held_out.height else []
    save_classifier(model, output)
    return {
        "output": output,
        "classifier": model.version,
        "trained_on": dict(model.trained_on),
        "cross_validated": [asdict(figure) for figure in figures],
        "held_out": [asdict(figure) for figure in unseen],
    }


def _config(settings: Settings) -> ClassifierConfig:
    return settings.section("classifier")


def _material(settings: Settings, labels: str, config: ClassifierConfig) -> Material:
    if _DATASET.fullmatch(labels):
        return _from_dataset(settings, labels, config)
    people = read_labelled(labels)
    rows = labels_of_people(people)
    held_out = (people.get_column("fold") == "held_out").fill_null(value=False)
    return Material(as_conversations(people), rows.filter(~held_out), rows.filter(held_out))


def _from_dataset(settings: Settings, name: str, config: ClassifierConfig) -> Material:
    """Of one release: its `feedback` beside its `conversations`; what is in split `test` is held out."""
    with open_catalog(settings.workspace, create=False) as catalog:
        conversations, feedback = _of_release(catalog, name)
    rows = labels_of_feedback(conversations, feedback, config, settings.logs().feedback)
    test = conversations.filter(pl.col("split") == "test").get_column("id").implode()
    held_out = rows.get_column("conversation_id").is_in(test)
    return Material(conversations, rows.filter(~held_out), rows.filter(held_out))


def _of_release(catalog: Catalog, name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    tables = {version.table: version for version in catalog.release(catalog.resolve(name))}
    missing = [table for table in ("conversations", "feedback") if table not in tables]
    if missing:
        raise BadInput(
            "a release to learn from", found=f"no {' and no '.join(missing)}", wanted="both tables"
        )
    conversations, feedback = (_frame(tables[table]) for table in ("conversations", "feedback"))
    return conversations, feedback


def _frame(version: Version) -> pl.DataFrame:
    frame = pl.from_arrow(dataset(version.table, version.files).to_table())
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  (narrowing)
    return frame


def label_conversations(
    settings: Settings, sources: Sequence[str], model_file: str, output: str, progress: Progress | None = None
) -> dict[str, Any]:
    """Writes the probabilities of every user turn of logs, or of a dataset `….conversations`.

    Rows of the sources that are no conversations are counted by reason; the result says how many turns are uncertain.
    """
    model, band = load_classifier(model_file), _config(settings)
    counts = {"conversations": 0, "turns": 0, "uncertain": 0, "sat": 0, "dsat": 0}
    set_aside: dict[str, int] = {}
    with TableWriter(output) as out:
        out.write(pl.DataFrame(schema=LABELLED))
        for batch in conversations_of(settings, sources, progress, "label"):
            rows = _labelled(batch.conversations, model, band)
            out.write(rows)
            _count(counts, batch.conversations.height, rows, model)
            for reason, count in batch.quarantine.group_by("reason").len().iter_rows():
                set_aside[reason] = set_aside.get(reason, 0) + count
    if not counts["conversations"]:
        raise BadInput("no conversations to label", found=f"{sum(set_aside.values())} rows set aside")
    return {"output": output, "classifier": model.version, **counts, "quarantined": set_aside}


def _labelled(conversations: pl.DataFrame, model: Classifier, band: ClassifierConfig) -> pl.DataFrame:
    rows = _owned(probabilities(conversations, model), conversations)
    added = uncertain(rows, band.low, band.high), pl.lit(model.version).alias("classifier")
    return rows.with_columns(added).select(LABELLED.names())


def _owned(rows: pl.DataFrame, conversations: pl.DataFrame) -> pl.DataFrame:
    """Without the turns that an earlier path of the same tree has already."""
    first = conversations.select("owned_from", conversation_id="id").unique("conversation_id")
    placed = rows.join(first, on="conversation_id", maintain_order="left")
    return placed.filter(pl.col("message_index") >= pl.col("owned_from")).drop("owned_from")


def _count(counts: dict[str, int], conversations: int, rows: pl.DataFrame, model: Classifier) -> None:
    counts["conversations"] += conversations
    counts["turns"] += rows.height
    counts["uncertain"] += int(rows.get_column("uncertain").sum())
    for at, name in enumerate(("sat", "dsat")):
        counts[name] += int((rows.get_column(f"p_{name}") >= model.thresholds[at]).sum())


# Conversations from anywhere


class Read(NamedTuple):
    """Some conversations, and rows of their source that are none."""

    conversations: pl.DataFrame
    quarantine: pl.DataFrame


def conversations_of(
    settings: Settings, sources: Sequence[str], progress: Progress | None, stage: str
) -> Iterator[Read]:
    """The conversations of logs in any shape, or of one dataset `….conversations`, a batch at a time."""
    if len(sources) == 1 and _DATASET.fullmatch(sources[0]):
        yield from _of_dataset(settings, sources[0], progress, stage)
        return
    config = settings.logs().ingest.reading()
    tasks = planned(settings, sources)
    for done, task in enumerate(tasks, 1):
        for batch in read(task, config):
            yield Read(batch.conversations, batch.quarantine)
        if progress:
            progress(Headway(stage, done, len(tasks)))


def planned(settings: Settings, sources: Sequence[str]) -> list[dict[str, Any]]:
    """What is to be read of logs, with a witness of their content. Raises `ConfigError` without any."""
    if not sources:
        raise ConfigError("no source given", wanted="logs, or a dataset of conversations", do="add --source")
    return plan(expand(sources), settings.format, settings.map)


def witness_of(settings: Settings, sources: Sequence[str]) -> Any:
    """What decides which conversations `conversations_of` yields, as plain values."""
    if len(sources) == 1 and _DATASET.fullmatch(sources[0]):
        with open_catalog(settings.workspace, create=False) as catalog:
            version = catalog.resolve(sources[0])
        return [version.name, version.version, version.snapshot_id]
    return planned(settings, sources)


def _of_dataset(settings: Settings, name: str, progress: Progress | None, stage: str) -> Iterator[Read]:
    with open_catalog(settings.workspace, create=False) as catalog:
        version = catalog.resolve(name)
    if version.table != "conversations":
        raise ConfigError("a dataset to read conversations from", found=name, wanted="….conversations")
    none = pl.DataFrame(schema={"reason": pl.String})
    done = 0
    for batch in dataset(version.table, version.files).to_batches(batch_size=_BATCH):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)  # noqa: S101  (narrowing)
        yield Read(frame, none)
        done += frame.height
        if progress:
            progress(Headway(stage, done, version.rows))
