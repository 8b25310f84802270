"""Conversations that people labelled, from a file: for the classifier by their last turn, for a rubric as a whole."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final

import fsspec
import polars as pl

from tilth.schemas import PL_MESSAGES, BadInput, NotFound

LABELLED: Final = pl.Schema(
    {
        "id": pl.String,
        "messages": PL_MESSAGES,
        "polarity": pl.String,  # positive | negative | none
        "fold": pl.String,  # `held_out` is kept for testing; anything else is learned from
    }
)
LABELS: Final[Mapping[str, str]] = {"positive": "SAT", "negative": "DSAT", "none": "neutral"}


def read_labelled(uri: str) -> pl.DataFrame:
    """The labelled conversations of a JSONL file, as `LABELLED`.

    A line has `id`, `messages` (role, content), and `polarity` (positive, negative, none) or `label` (SAT, DSAT,
    neutral); `fold` may say `held_out`. Raises `NotFound`, and `BadInput` counting lines that lack one or repeat an id.
    """
    rows = _parsed(uri).with_columns(pl.coalesce("polarity", _polarity()).alias("polarity"))
    unfit = rows.filter(
        pl.col("id").is_null()
        | (pl.col("messages").list.len().fill_null(0) == 0)
        | ~_known().fill_null(value=False)
    ).height
    twice = rows.height - rows.get_column("id").n_unique()
    if unfit or twice or rows.is_empty():
        raise BadInput(
            f"{uri.rpartition('/')[2]} holds no labelled conversations",
            found=f"{rows.height} lines, {unfit} without what is needed, {twice} with an id that was there",
            wanted="id, messages, and polarity (positive, negative, none) or label (SAT, DSAT, neutral)",
        )
    return rows.select(LABELLED.names())


def _parsed(uri: str) -> pl.DataFrame:
    fs, path = fsspec.core.url_to_fs(uri)
    if not fs.isfile(path):
        raise NotFound("no such file of labels", found=uri, wanted="JSONL")
    try:
        return pl.read_ndjson(io.BytesIO(fs.cat_file(path)), schema={**LABELLED, "label": pl.String})
    except pl.exceptions.PolarsError as error:  # whose text may quote a line
        raise BadInput(
            f"{uri.rpartition('/')[2]} cannot be read", found=type(error).__name__, wanted="JSONL"
        ) from None


def _polarity() -> pl.Expr:
    meant = {label: polarity for polarity, label in LABELS.items()}
    return pl.col("label").replace_strict(meant, default=None, return_dtype=pl.String)


def _known() -> pl.Expr:
    return pl.col("polarity").is_in(list(LABELS))


def as_conversations(labelled: pl.DataFrame) -> pl.DataFrame:
    """The rows with the columns of `conversations` that mining reads."""
    return labelled.with_columns(
        pl.col("id").alias("record_id"),
        pl.lit(0, pl.Int32).alias("owned_from"),
        pl.lit(None, pl.String).alias("language"),
        pl.lit(None, pl.String).alias("split"),
    )
