"""How good the classifier is: cross-validated and on turns that were held out, beside the rules on the same turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final  # Any: what scikit-learn types too narrowly

import numpy as np
import polars as pl

from tilth.schemas import BadInput, ConfigError
from tilth.transforms.feedback.classifier import (
    CLASSES,
    LABELS,
    Classifier,
    ClassifierConfig,
    Prepared,
    fit,
    folds_of,
    predicted,
    prepare,
)
from tilth.transforms.feedback.language import languages
from tilth.transforms.feedback.mining import mine, score_turns
from tilth.transforms.feedback.rules import FeedbackRules
from tilth.transforms.feedback.turns import user_turns

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS: Final = 10  # of the calibration error, of equal width
_KEYS: Final = ["conversation_id", "message_index"]
_POLARITY: Final = {"sat": "positive", "dsat": "negative"}


@dataclass(frozen=True, slots=True)
class ClassQuality:
    """Figures of one method on one class. Shares lie in [0, 1].

    `brier` is the mean squared distance of the probability from the truth; `ece` the expected calibration error, the
    mean distance of probability and frequency in ten bins. The rules' strengths are no probabilities; taken as if.
    """

    method: str  # classifier | rules
    label: str  # sat | dsat
    turns: int
    support: int
    precision: float
    recall: float
    f1: float
    auc: float
    brier: float
    ece: float


def cross_validated(
    conversations: pl.DataFrame, labels: pl.DataFrame, config: ClassifierConfig, rules: FeedbackRules
) -> list[ClassQuality]:
    """Both methods on all labelled turns, each turn judged by a classifier that saw nothing of its group.

    Weights, calibration and threshold are learned anew within each fold's training part.
    """
    data = prepare(conversations, labels, config, rules)
    said, chosen = np.zeros(data.truth.shape), np.zeros(data.truth.shape, bool)
    either = np.asarray(data.truth.any(axis=1))
    for learned, tested in folds_of(either, data.groups, config, "the classifier"):
        model = fit(data.take(learned), config, rules)
        said[tested] = predicted(data.take(tested).turns, model)
        chosen[tested] = said[tested] >= model.thresholds
    return [*_figures("classifier", data.truth, chosen, said), *_by_rules(conversations, data, rules)]


def on_held_out(conversations: pl.DataFrame, labels: pl.DataFrame, model: Classifier) -> list[ClassQuality]:
    """Both methods on labelled turns that the classifier was not trained on."""
    data = prepare(conversations, labels, model.config, model.rules)
    said = predicted(data.turns, model)
    figures = _figures("classifier", data.truth, said >= model.thresholds, said)
    return [*figures, *_by_rules(conversations, data, model.rules)]


def _by_rules(conversations: pl.DataFrame, data: Prepared, rules: FeedbackRules) -> list[ClassQuality]:
    keys = data.turns.keys
    scores = keys.join(score_turns(conversations, rules), on=_KEYS, how="left", maintain_order="left")
    feedback = mine(conversations, rules).feedback.select(*_KEYS, "polarity", said=pl.lit(value=True))
    chosen = [
        keys.join(
            feedback.filter(pl.col("polarity") == polarity), on=_KEYS, how="left", maintain_order="left"
        )
        .get_column("said")
        .is_not_null()
        .to_numpy()
        for polarity in _POLARITY.values()
    ]
    return _figures("rules", data.truth, np.stack(chosen, axis=1), scores.select(CLASSES).to_numpy())


def _figures(
    method: str, truth: NDArray[np.bool_], chosen: NDArray[np.bool_], said: NDArray[np.float64]
) -> list[ClassQuality]:
    from sklearn.metrics import brier_score_loss, precision_recall_fscore_support, roc_auc_score

    none: Any = 0  # typed as text alone
    figures: list[ClassQuality] = []
    for at, name in enumerate(CLASSES):
        shares: Any = precision_recall_fscore_support(
            truth[:, at], chosen[:, at], average="binary", zero_division=none
        )
        precision, recall, f1, _ = shares
        both = 0 < truth[:, at].sum() < len(truth)
        auc = float(roc_auc_score(truth[:, at], said[:, at])) if both else float("nan")
        brier = float(brier_score_loss(truth[:, at], said[:, at]))
        support, ece = int(truth[:, at].sum()), calibration_error(truth[:, at], said[:, at])
        figures.append(
            ClassQuality(
                method, name, len(truth), support, float(precision), float(recall), float(f1), auc, brier, ece
            )
        )
    return figures


def calibration_error(truth: NDArray[np.bool_], said: NDArray[np.float64]) -> float:
    """The expected calibration error over ten bins of equal width, in [0, 1] (Guo et al., arXiv 1706.04599)."""
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, truth - said, BINS)
    return float(np.abs(gaps).sum() / max(len(said), 1))


# Where labels come from


def labels_of_people(labelled: pl.DataFrame) -> pl.DataFrame:
    """`LABELS` from conversations whose last turn was labelled by a person (id, messages, polarity).

    Polarity is positive, negative or none, as in `samples/feedback_labelled.jsonl`.
    """
    return labelled.select(
        pl.col("id").alias("conversation_id"),
        (pl.col("messages").list.len() - 1).alias("message_index"),
        pl.col("id").alias("group"),
        *((pl.col("polarity") == polarity).alias(name) for name, polarity in _POLARITY.items()),
    ).cast(LABELS)


def labels_of_feedback(
    conversations: pl.DataFrame, feedback: pl.DataFrame, config: ClassifierConfig, rules: FeedbackRules
) -> pl.DataFrame:
    """`LABELS` from the table `feedback`: turns with feedback, and turns that were read and have none.

    Read by the rules: every user turn after a reply in an English conversation. Read by a model: those of conversations
    with some feedback by the model, because it is asked about a conversation as a whole; that a conversation without
    any was read is nowhere recorded, so its turns are left out. Reactions stand on replies and label no user turn.

    Raises `BadInput` where nothing labels user turns, and `ConfigError` where the only labels are the rules' own and
    the rules' scores are among the features: that would teach the classifier to copy one of its inputs.
    """
    said = feedback.filter(pl.col("method").is_in(["rules", "model"]))
    methods = set(said.get_column("method"))
    if not methods:
        raise BadInput("feedback without labels of user turns", wanted="rows with method rules or model")
    if methods == {"rules"} and config.rule_scores:
        raise ConfigError(
            "the labels are the rules' own, and the rules' scores are features",
            wanted="labels from people or from a model",
            do="or set classifier.rule_scores=false",
        )
    read = conversations.filter(_read(conversations, said))
    turns = user_turns(read, rules)
    of = read.select("record_id", "owned_from", conversation_id="id").select(
        pl.all().gather(turns.get_column("row"))
    )
    # A turn that paths of a tree share is labelled on the path that owns it, and has no row on the others.
    listed = of.hstack(turns.select("message_index")).filter(pl.col("message_index") >= pl.col("owned_from"))
    listed = listed.select("conversation_id", "message_index", pl.col("record_id").alias("group"))
    sides = said.group_by(_KEYS).agg(
        (pl.col("polarity") == polarity).any().alias(name) for name, polarity in _POLARITY.items()
    )
    joined = listed.join(sides, on=_KEYS, how="left", maintain_order="left")
    return joined.with_columns(pl.col(name).fill_null(value=False) for name in CLASSES).cast(LABELS)


def _read(conversations: pl.DataFrame, said: pl.DataFrame) -> pl.Series:
    by_model = said.filter(pl.col("method") == "model").get_column("conversation_id").unique()
    read = conversations.get_column("id").is_in(by_model.implode())
    by_rules = bool((said.get_column("method") == "rules").any())
    return read | (languages(conversations) == "en") if by_rules else read
