"""How good the rules are on labelled turns, beside a keyword list: ``python -m tilth.transforms.feedback.evaluate``.

Precision, recall, F1 and AUC per class with 95 % percentile bootstrap intervals over conversations (seeded).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from tilth.schemas import PL_MESSAGES
from tilth.transforms.feedback.mining import mine, score_turns
from tilth.transforms.feedback.taxonomy import DSAT, SAT

DEFAULT: Final = "samples/feedback_labelled.jsonl"
POLARITIES: Final = ("positive", "negative")
_DRAWS: Final = 1000
_SEED: Final = 20_261_121
_MIN_SUPPORT: Final = 10

# What a developer would write in five minutes; matched anywhere, any case.
NEGATIVE_KEYWORDS: Final = (
    r"\bwrong\b",
    r"\bincorrect\b",
    r"\bnot (?:right|correct|true)\b",
    r"not what i",
    r"doesn'?t work",
    r"\bno,",
    r"\bbad\b",
    r"\bterrible\b",
    r"\buseless\b",
    r"\btry again\b",
    r"\bi (?:said|meant|asked)\b",
    r"don'?t understand",
    r"\bstupid\b",
    r"makes no sense",
    r"\bagain\b",
)
POSITIVE_KEYWORDS: Final = (
    r"\bthank",
    r"\bthx\b",
    r"\bperfect\b",
    r"\bgreat\b",
    r"\bawesome\b",
    r"\bexcellent\b",
    r"\bgood (?:job|answer)\b",
)


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of one method on one class; each with its interval. AUC is None where a method gives no scores."""

    method: str
    label: str
    support: int
    precision: tuple[float, float, float]
    recall: tuple[float, float, float]
    f1: tuple[float, float, float]
    auc: tuple[float, float, float] | None


class Judged(NamedTuple):
    """One class: truth, prediction and score per turn."""

    truth: np.ndarray
    predicted: np.ndarray
    score: np.ndarray | None


def read_labelled(path: Path, fold: str) -> pl.DataFrame:
    """The labelled turns of `fold` ("dev", "held_out" or "all") as conversations with polarity and labels."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    kept = [row for row in rows if fold in ("all", row["fold"])]
    return pl.DataFrame(
        {
            "id": [row["id"] for row in kept],
            "record_id": [row["id"] for row in kept],
            "messages": [
                [{key: turn[key] for key in ("role", "content")} for turn in row["messages"]] for row in kept
            ],
            "polarity": [row["polarity"] for row in kept],
            "gold": [row["labels"] for row in kept],
        },
        schema={
            "id": pl.String,
            "record_id": pl.String,
            "messages": PL_MESSAGES,
            "polarity": pl.String,
            "gold": pl.List(pl.String),
        },
    ).with_columns(owned_from=pl.lit(0), language=pl.lit("en"), split=pl.lit(None, dtype=pl.String))


def evaluate(labelled: pl.DataFrame) -> list[Quality]:
    """The rules and the keyword list on the last turn of each conversation of `labelled`."""
    found = _found(labelled)
    sides = [(polarity, method) for polarity in POLARITIES for method in ("rules", "keywords")]
    labels = {label: _label(found, label) for label in (*SAT, *DSAT)}
    return [
        *(_quality(method, polarity, _polarity(found, polarity, method)) for polarity, method in sides),
        *(
            _quality("rules", label, judged)
            for label, judged in labels.items()
            if judged.truth.sum() >= _MIN_SUPPORT
        ),
    ]


def _found(labelled: pl.DataFrame) -> pl.DataFrame:
    """`labelled` with what the rules said about the last turn: emitted labels per polarity and both scores."""
    at = labelled.select(
        conversation_id="id", message_index=(pl.col("messages").list.len() - 1).cast(pl.Int32)
    )
    keys = ["conversation_id", "message_index"]
    feedback = at.join(mine(labelled).feedback, on=keys, how="left", maintain_order="left")
    said = [
        feedback.filter(pl.col("polarity") == polarity).select(
            "conversation_id", pl.col("labels").alias(polarity)
        )
        for polarity in POLARITIES
    ]
    scores = at.join(score_turns(labelled), on=keys, how="left", maintain_order="left")
    found = labelled.rename({"polarity": "truth"}).with_columns(
        scores.get_column("sat").fill_null(0.0), scores.get_column("dsat").fill_null(0.0)
    )
    for frame in said:
        found = found.join(frame, left_on="id", right_on="conversation_id", how="left", maintain_order="left")
    return found


def _polarity(found: pl.DataFrame, polarity: str, method: str) -> Judged:
    truth = (found.get_column("truth") == polarity).to_numpy()
    if method == "rules":
        score = found.get_column("sat" if polarity == "positive" else "dsat").to_numpy()
        return Judged(truth, found.get_column(polarity).is_not_null().to_numpy(), score)
    words = POSITIVE_KEYWORDS if polarity == "positive" else NEGATIVE_KEYWORDS
    text = found.select(pl.col("messages").list.last().struct.field("content").str.to_lowercase()).to_series()
    hits = text.to_frame("text").select(
        pl.sum_horizontal(pl.col("text").str.contains(word) for word in words)
    )
    return Judged(truth, hits.to_series().to_numpy() > 0, hits.to_series().to_numpy())


def _label(found: pl.DataFrame, label: str) -> Judged:
    said = pl.concat_list(pl.col(name).fill_null([]) for name in POLARITIES)
    flags = found.select(truth=pl.col("gold").list.contains(label), predicted=said.list.contains(label))
    return Judged(flags.get_column("truth").to_numpy(), flags.get_column("predicted").to_numpy(), None)


def _quality(method: str, label: str, judged: Judged) -> Quality:
    measures: dict[str, Callable[[Judged], float]] = {"precision": _precision, "recall": _recall, "f1": _f1}
    if judged.score is not None:
        measures["auc"] = _auc
    draws = np.random.default_rng(_SEED).integers(0, len(judged.truth), (_DRAWS, len(judged.truth)))
    intervals = {name: _interval(measure, judged, draws) for name, measure in measures.items()}
    return Quality(method, label, int(judged.truth.sum()), **{"auc": None, **intervals})  # pyright: ignore[reportArgumentType]


def _interval(
    measure: Callable[[Judged], float], judged: Judged, draws: np.ndarray
) -> tuple[float, float, float]:
    values = [measure(_drawn(judged, draw)) for draw in draws]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return measure(judged), float(low), float(high)


def _drawn(judged: Judged, draw: np.ndarray) -> Judged:
    return Judged(*(None if part is None else part[draw] for part in judged))  # pyright: ignore[reportArgumentType]


def _precision(judged: Judged) -> float:
    return _share(judged.truth & judged.predicted, judged.predicted)


def _recall(judged: Judged) -> float:
    return _share(judged.truth & judged.predicted, judged.truth)


def _f1(judged: Judged) -> float:
    both = 2.0 * (judged.truth & judged.predicted).sum()
    total = judged.truth.sum() + judged.predicted.sum()
    return float(both / total) if total else 0.0


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else 0.0


def _auc(judged: Judged) -> float:
    """Area under the ROC curve from mid-ranks (Mann-Whitney)."""
    from scipy.stats import rankdata

    positives, total = int(judged.truth.sum()), len(judged.truth)
    if positives in (0, total):
        return float("nan")
    ranks = rankdata(judged.score)[judged.truth].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * (total - positives)))


def _line(quality: Quality) -> str:
    figures = (quality.precision, quality.recall, quality.f1, quality.auc)
    shown = [
        "" if figure is None else f"{figure[0]:.2f} [{figure[1]:.2f}, {figure[2]:.2f}]" for figure in figures
    ]
    return "  ".join([f"{quality.label:<24}{quality.method:<10}{quality.support:>5}", *shown])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures as a table or, with --json, as a JSON list; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tilth.transforms.feedback.evaluate", description=__doc__)
    parser.add_argument(
        "file", nargs="?", type=Path, default=Path(DEFAULT), help=f"labelled turns ({DEFAULT})"
    )
    parser.add_argument("--fold", choices=("dev", "held_out", "all"), default="all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    figures = evaluate(read_labelled(options.file, options.fold))
    if options.json:
        text = json.dumps([asdict(figure) for figure in figures])
    else:
        head = f"{'class':<24}{'method':<10}{'n':>5}  {'precision':<18}{'recall':<19}{'F1':<19}{'AUC'}"
        text = "\n".join([head, *map(_line, figures)])
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
