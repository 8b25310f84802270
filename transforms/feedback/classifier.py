"""A classifier of user turns that is trained on labels and then labels millions without a model.

Per turn two probabilities, satisfied and dissatisfied: logistic regression on hashed n-grams and facts about the
exchange (`features`), Platt-calibrated on folds that keep a conversation together. The plan is SPUR's cheap variant
(arXiv 2403.12388, section 5) with n-grams where the paper has an embedding. Between a low and a high probability the
model that labels should be asked (`uncertain`).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple  # Any: JSON values

import fsspec
import numpy as np
import polars as pl

from tilth.schemas import BadInput, ConfigError, NotFound, fingerprint
from tilth.transforms.feedback.features import Turns, fact_names, ngram_matrix, ngram_scores, turns_of
from tilth.transforms.feedback.rules import VERSION as RULES_VERSION
from tilth.transforms.feedback.rules import FeedbackRules
from tilth.transforms.parts import write_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

FORM: Final = 1  # of the file; bumped when features or file mean something else
CLASSES: Final = ("sat", "dsat")
LABELS: Final = pl.Schema(
    {
        "conversation_id": pl.String,
        "message_index": pl.Int32,  # the user turn
        "group": pl.String,  # turns of one group are never split between training and testing
        "sat": pl.Boolean,
        "dsat": pl.Boolean,
    }
)
PROBABILITIES: Final = pl.Schema(
    {
        "conversation_id": pl.String,
        "message_index": pl.Int32,
        "p_sat": pl.Float64,
        "p_dsat": pl.Float64,
    }
)
_FARTHEST: Final = 3.0  # standard deviations
_ARRAYS: Final = ("words", "facts", "bias", "mean", "scale", "platt", "thresholds")


def check_band(low: float, high: float) -> None:
    """Raises `ConfigError` unless 0 <= low <= high <= 1."""
    if not 0 <= low <= high <= 1:
        raise ConfigError("the uncertain band", found=f"{low} to {high}", wanted="0 <= low <= high <= 1")


@dataclass(frozen=True, slots=True)
class ClassifierConfig:
    """How the classifier is trained; the fields are the keys of section `classifier` in `tilth.yaml`.

    Args:
        bits: 2^bits buckets for n-grams.
        strength: inverse of the regularisation (scikit-learn's C).
        rule_scores: whether the rules' own scores are among the facts. They help where labels are few, and cost most
            of the time of labelling.
        folds: of the calibration and of the report.
        low: a probability from here to `high` is uncertain: a model should look at the turn.
        high: see `low`.
        seed: shuffles the folds.
    """

    bits: int = 18
    strength: float = 1.0
    rule_scores: bool = True
    folds: int = 5
    low: float = 0.2
    high: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        if not (10 <= self.bits <= 24 and self.strength > 0 and self.folds >= 2):
            found = f"bits={self.bits}, strength={self.strength}, folds={self.folds}"
            raise ConfigError(
                "the classifier", found=found, wanted="bits 10 to 24, strength above 0, folds >= 2"
            )
        check_band(self.low, self.high)


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Weights of both classes and what is known of their making. Made by `train` or `load_classifier`."""

    config: ClassifierConfig
    rules: FeedbackRules
    words: NDArray[np.float32]  # 2^bits x 2
    facts: NDArray[np.float64]  # facts x 2
    bias: NDArray[np.float64]  # 2
    mean: NDArray[np.float64]  # of the facts
    scale: NDArray[np.float64]
    platt: NDArray[np.float64]  # 2 x 2: p = 1 / (1 + exp(a * score + b)) per class
    thresholds: NDArray[np.float64]  # the probability from which a class is said, best F1 on unseen folds
    trained_on: Mapping[str, int] = field(default_factory=dict)  # turns, conversations, sat, dsat

    @property
    def version(self) -> str:
        """128 bits of all weights and settings, in hex: what rows that it labels can be traced to."""
        hashed = hashlib.blake2b(fingerprint(_header(self)).encode(), digest_size=16)
        for name in _ARRAYS:
            hashed.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return hashed.hexdigest()


class Fitted(NamedTuple):
    """One class: weights of all columns, bias, Platt's a and b, and the probability that is best for F1."""

    weights: NDArray[np.float64]
    bias: float
    platt: tuple[float, float]
    threshold: float


# Training


def train(
    conversations: pl.DataFrame,
    labels: pl.DataFrame,
    config: ClassifierConfig = ClassifierConfig(),
    rules: FeedbackRules = FeedbackRules(),  # noqa: B008
) -> Classifier:
    """A classifier from labelled turns; the order of rows changes nothing.

    Args:
        conversations: id and messages are read.
        labels: `LABELS`; turns that stand in no row are not learned from.
        config: settings.
        rules: thresholds of the rules, whose facts are features.

    Raises `BadInput` for labels of turns that are not there or stand there twice, and for a class with too few.
    """
    return fit(prepare(conversations, labels, config, rules), config, rules)


class Prepared(NamedTuple):
    """Labelled turns as numbers, in the order of their keys. `truth` has a column per class."""

    turns: Turns
    truth: NDArray[np.bool_]
    groups: list[str]
    ngrams: csr_matrix

    def take(self, at: NDArray[np.int64]) -> Prepared:
        """The rows at these places."""
        turns = Turns(self.turns.keys[at], self.turns.texts[at], self.turns.facts[at])
        return Prepared(turns, self.truth[at], [self.groups[i] for i in at], self.ngrams[at])


def prepare(
    conversations: pl.DataFrame, labels: pl.DataFrame, config: ClassifierConfig, rules: FeedbackRules
) -> Prepared:
    """Features of the labelled turns. Raises as `train` does."""
    turns = turns_of(conversations, config.rule_scores, rules)
    keys = ["conversation_id", "message_index"]
    if labels.select(keys).is_duplicated().any():
        raise BadInput("labels of turns", found="a turn that is labelled twice", wanted="each turn once")
    at = turns.keys.with_row_index("at")
    placed = labels.join(at, on=keys, how="inner").sort(keys)
    if placed.height != labels.height:
        raise BadInput(
            "labels of turns",
            found=f"{labels.height - placed.height} for which no user turn after a reply is there",
            wanted="message_index of a user turn that follows a reply",
        )
    order = placed.get_column("at").to_numpy()
    chosen = Turns(turns.keys[order], turns.texts[order], turns.facts[order])
    truth = placed.select(CLASSES).to_numpy().astype(bool)
    return Prepared(
        chosen, truth, placed.get_column("group").to_list(), ngram_matrix(chosen.texts, config.bits)
    )


def fit(data: Prepared, config: ClassifierConfig, rules: FeedbackRules) -> Classifier:
    """A classifier from prepared turns."""
    from scipy.sparse import csr_matrix, hstack

    mean, scale = data.turns.facts.mean(axis=0), data.turns.facts.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    # Empty buckets keep the weight 0; without them a solver's vectors are several times shorter.
    used = np.unique(data.ngrams.indices)
    columns = csr_matrix(hstack([data.ngrams[:, used], csr_matrix(_standard(data.turns.facts, mean, scale))]))
    fitted = [_fit_class(columns, data, at, config) for at in range(len(CLASSES))]
    words = np.zeros((1 << config.bits, len(CLASSES)), np.float32)
    words[used] = np.stack([one.weights[: len(used)] for one in fitted], axis=1)
    return Classifier(
        config,
        rules,
        words,
        np.stack([one.weights[len(used) :] for one in fitted], axis=1),
        np.array([one.bias for one in fitted]),
        mean,
        scale,
        np.array([one.platt for one in fitted]),
        np.array([one.threshold for one in fitted]),
        _counts(data),
    )


def _standard(
    facts: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Facts in standard deviations, at most three: a turn longer than any in training is no surer a case for it."""
    return np.clip((facts - mean) / scale, -_FARTHEST, _FARTHEST)


def _counts(data: Prepared) -> dict[str, int]:
    counts = {"turns": len(data.groups), "groups": len(set(data.groups))}
    return counts | {name: int(data.truth[:, at].sum()) for at, name in enumerate(CLASSES)}


def _fit_class(columns: csr_matrix, data: Prepared, at: int, config: ClassifierConfig) -> Fitted:
    from scipy.special import expit
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    truth = data.truth[:, at]
    splits = folds_of(truth, data.groups, config, CLASSES[at])
    # The dual solver calls no BLAS, whose threads wait for each other on a busy machine (2 s a fit instead of 0.03).
    model: Any = LogisticRegression(
        C=config.strength,
        class_weight="balanced",
        solver="liblinear",
        dual=True,
        max_iter=10_000,
        random_state=0,
    )
    # One model on all rows, calibrated on what models of the folds say of rows that they have not seen.
    # `ensemble` is typed as text alone.
    calibrated: Any = CalibratedClassifierCV(model, method="sigmoid", cv=splits, ensemble=False)  # pyright: ignore[reportArgumentType]
    calibrated.fit(columns, truth)
    (one,) = calibrated.calibrated_classifiers_
    a, b = _platt(one.calibrators[0], truth)
    unseen: Any = cross_val_predict(model, columns, truth, cv=splits, method="decision_function")
    threshold = _best_threshold(expit(-(a * unseen + b)), truth)
    linear = one.estimator
    return Fitted(linear.coef_[0].astype(np.float64), float(linear.intercept_[0]), (a, b), threshold)


def _platt(calibrator: Any, truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept; of a slope that would turn the scores around, none, and the share of the label for all."""
    if calibrator.a_ <= 0:
        return float(calibrator.a_), float(calibrator.b_)
    # On turns that they had not seen, the models of the folds did worse than chance: nothing was learned.
    return 0.0, float(np.log((1 - truth.mean()) / truth.mean()))


def _best_threshold(probabilities: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """The probability from which saying so has the best F1; halfway to the next lower one."""
    order = np.argsort(-probabilities, kind="stable")
    sorted_p, hits = probabilities[order], np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + truth.sum())
    last = np.append(sorted_p[1:] < sorted_p[:-1], True)  # equal probabilities fall on the same side
    best = int(np.argmax(np.where(last, f1, -1.0)))
    below = sorted_p[best + 1] if best + 1 < len(sorted_p) else 0.0
    return float((sorted_p[best] + below) / 2)


def folds_of(
    truth: NDArray[np.bool_], groups: Sequence[str], config: ClassifierConfig, name: str
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to train on and to test on, per fold; stratified, a group in one fold alone."""
    from sklearn.model_selection import StratifiedGroupKFold

    few = min(len({g for g, t in zip(groups, truth, strict=True) if t == side}) for side in (True, False))
    if few < config.folds:
        raise BadInput(
            f"too few labels to train {name}",
            found=f"{few} conversations on one side",
            wanted=f"{config.folds} or more with the label, and as many without",
            do="label more turns",
        )
    split = StratifiedGroupKFold(config.folds, shuffle=True, random_state=config.seed)
    return list(split.split(np.zeros(len(truth)), truth, groups))


# Labelling


def probabilities(conversations: pl.DataFrame, model: Classifier) -> pl.DataFrame:
    """The probability that each user turn after a reply shows satisfaction, and dissatisfaction: `PROBABILITIES`."""
    turns = turns_of(conversations, model.config.rule_scores, model.rules)
    said = predicted(turns, model)
    columns = [pl.Series("p_sat", said[:, 0]), pl.Series("p_dsat", said[:, 1])]
    return turns.keys.with_columns(columns).cast(PROBABILITIES)


def predicted(turns: Turns, model: Classifier) -> NDArray[np.float64]:
    """Calibrated probabilities, a row per turn and a column per class."""
    from scipy.special import expit

    facts = _standard(turns.facts, model.mean, model.scale) @ model.facts
    scores = ngram_scores(turns.texts, model.words) + facts + model.bias
    return expit(-(model.platt[:, 0] * scores + model.platt[:, 1]))


def uncertain(found: pl.DataFrame, low: float, high: float) -> pl.Series:
    """Which rows of `probabilities` a model should look at: one of the two lies in [low, high]."""
    check_band(low, high)
    inside = [pl.col(name).is_between(low, high) for name in ("p_sat", "p_dsat")]
    return found.select(pl.any_horizontal(inside).alias("uncertain")).to_series()


# The file


def save_classifier(model: Classifier, uri: str) -> None:
    """Writes the model as one .npz without pickled objects: arrays, and a JSON header with the digest of it all."""
    header = {**_header(model), "version": model.version}
    buffer = io.BytesIO()
    arrays = {name: getattr(model, name) for name in _ARRAYS}
    np.savez_compressed(buffer, header=np.array(json.dumps(header, sort_keys=True)), **arrays)
    write_bytes(buffer.getvalue(), uri)


def load_classifier(uri: str) -> Classifier:
    """The model in a file of `save_classifier`.

    Raises `NotFound`, and `BadInput` for another file, one of another form or other rules, or one that was changed.
    """
    fs, path = fsspec.core.url_to_fs(uri)
    if not fs.isfile(path):
        raise NotFound("no such classifier", found=uri, wanted="a file that `tilth feedback train` wrote")
    try:
        with np.load(io.BytesIO(fs.cat_file(path)), allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            arrays = {name: file[name] for name in file.files if name != "header"}
    except (
        Exception
    ) as error:  # NumPy, zipfile and zlib each have errors of their own; none of their text is shown
        raise _unfit(uri, type(error).__name__) from None
    return _built(header, arrays, uri)


def _built(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], uri: str) -> Classifier:
    if header.get("form") != FORM or header.get("rules_version") != RULES_VERSION:
        found = f"form {header.get('form')}, rules {header.get('rules_version')}"
        raise BadInput(
            "a classifier of another version of Tilth",
            found=found,
            wanted=f"form {FORM}, rules {RULES_VERSION}",
            do="train it again: tilth feedback train",
        )
    if set(arrays) != set(_ARRAYS):
        raise _unfit(uri, "other arrays")
    config, rules = ClassifierConfig(**header["config"]), FeedbackRules(**header["rules"])
    model = Classifier(config, rules, **arrays, trained_on=header["trained_on"])
    if model.version != header["version"]:
        raise _unfit(uri, "another digest than the one recorded")
    return model


def _unfit(uri: str, found: str) -> BadInput:
    wanted = "a whole file that `tilth feedback train` wrote"
    return BadInput(f"{uri.rpartition('/')[2]} is no classifier", found=found, wanted=wanted)


def _header(model: Classifier) -> dict[str, Any]:
    return {
        "form": FORM,
        "rules_version": RULES_VERSION,
        "config": asdict(model.config),
        "rules": asdict(model.rules),
        "facts": list(fact_names(model.config.rule_scores)),
        "trained_on": dict(model.trained_on),
    }
