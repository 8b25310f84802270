"""How fast user turns are labelled without a model, on one core: ours beside a plain scikit-learn pipeline.

    python benchmarks/feedback_classifier.py --turns 100000

Turns are those of the labelled sample, repeated. The plain pipeline is what one would write: TF-IDF of words and of
characters, one logistic regression per class; it reads the turn alone, while ours also reads the exchange around it.
"""

# ruff: noqa: E402  (the numbers of threads are set before NumPy and polars are loaded)
from __future__ import annotations

import os

for name in ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline

from tilth.transforms.feedback.classifier import ClassifierConfig, probabilities, train
from tilth.transforms.feedback.classifier_quality import labels_of_people
from tilth.transforms.feedback.labelled import as_conversations, read_labelled

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "feedback_labelled.jsonl"


def best_of(tries: int, work: Callable[[], object]) -> float:
    """The least CPU time of some tries, in seconds: of this process, whatever else the machine does."""
    taken: list[float] = []
    for _ in range(tries):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def plain() -> Pipeline:
    """TF-IDF of word 1-2-grams and character 3-5-grams, logistic regression."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char", ngram_range=(3, 5), sublinear_tf=True)
    both = FeatureUnion([("words", words), ("characters", characters)])
    return Pipeline(
        [("features", both), ("model", LogisticRegression(class_weight="balanced", max_iter=1000))]
    )


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=100_000)
    count = parser.parse_args().turns
    sample = as_conversations(read_labelled(str(SAMPLE)))
    labels = labels_of_people(sample)
    many = pl.concat([sample.with_columns(pl.col("id") + f"-{n}") for n in range(-(-count // sample.height))])
    texts = sample.get_column("messages").list.last().struct.field("content").to_list()
    pipelines = [plain().fit(texts, labels.get_column(side).to_list()) for side in ("sat", "dsat")]
    ours = train(sample, labels, ClassifierConfig(rule_scores=False))
    scored = train(sample, labels, ClassifierConfig())
    every = many.get_column("messages").list.last().struct.field("content").to_list()
    turns = probabilities(many, ours).height
    shown = [
        (
            "scikit-learn pipeline",
            len(every),
            best_of(1, lambda: [p.predict_proba(every) for p in pipelines]),
        ),
        ("tilth, without the rules' scores", turns, best_of(3, lambda: probabilities(many, ours))),
        ("tilth, with the rules' scores", turns, best_of(1, lambda: probabilities(many, scored))),
    ]
    reference = shown[0][1] / shown[0][2]
    print("| one core, CPU time | turns | turns/s | ratio |\n|---|---|---|---|")
    for name, rows, seconds in shown:
        print(f"| {name} | {rows:,} | {rows / seconds:,.0f} | {rows / seconds / reference:.1f} |")


if __name__ == "__main__":
    main()
