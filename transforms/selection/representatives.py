"""The held-out evaluation set: few prompts that stand for many, each with what its user wants of a reply."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final  # Any: scikit-learn and scipy are typed in part

import polars as pl

from tilth.schemas import ConfigError, conform, content_ids
from tilth.schemas.contracts import SPLITS
from tilth.transforms.hygiene.hashing import id_hashes, mixed
from tilth.transforms.selection.tfidf import space, user_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_ROWS_OF_A_BLOCK: Final = 1_024


@dataclass(frozen=True, slots=True)
class Representatives:
    """Which prompts stand for all (WildFeedback, arXiv 2408.15549, section 4: 70 clusters of 10, 540 items left).

    Args:
        clusters: groups of like prompts; with fewer prompts, as many as there are.
        per_cluster: how many of each group are taken, the nearest to its centroid.
        dimensions: of the space in which prompts are grouped.
        max_similarity: of two prompts that are more alike (cosine of TF-IDF vectors, 0 to 1), one is taken.
        splits: only rows of these qualify; never `train`.
        max_rows: of more prompts than this, so many are looked at, chosen by their hash.
        seed: of the grouping.
    """

    clusters: int = 70
    per_cluster: int = 10
    dimensions: int = 128
    max_similarity: float = 0.9
    splits: tuple[str, ...] = ("test",)
    max_rows: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.clusters, self.per_cluster, self.dimensions, self.max_rows)
        if min(counts) < 1 or not 0 < self.max_similarity <= 1 or not 0 <= self.seed < 2**32:
            wanted = "counts of 1 or more, a similarity in (0, 1], a seed of 32 bits"
            raise ConfigError("how evaluation prompts are chosen", found=self, wanted=wanted)
        if not self.splits or not set(self.splits) <= set(SPLITS) - {"train"}:
            wanted = "one or more of validation, test"
            raise ConfigError("splits to take evaluation prompts from", found=self.splits, wanted=wanted)


def representatives(rows: pl.DataFrame, config: Representatives, trained: pl.Series) -> pl.DataFrame:
    """The evaluation set, rows of table `evaluation` by cluster and distance.

    `rows` have prompt, prompt_id, checklist (not empty), reference, feedback_ids, conversation_id, split, and method
    where it is not `model`. `trained` are the ids of prompts of training pairs; none of them is taken. Of rows with
    one prompt, that of the smallest conversation id counts. The order of rows decides nothing.

    WildFeedback groups embeddings of a model by FAISS's k-means. Here a prompt is the TF-IDF of words and of runs of
    4 characters of its user turns (the last 2,000 characters, hashed to 2^17 features), reduced by a truncated SVD,
    normalised, grouped by scikit-learn's k-means: without a model and the same everywhere. As in the paper, near
    duplicates are removed after the choice and nothing takes their place: the one nearer to its centroid stays.

    Memory: about 35 KB per prompt of 2,000 characters beside scikit-learn itself, 0.35 GB for the default `max_rows`; a
    minute on one core.
    """
    candidates = _candidates(rows, config, trained)
    if candidates.is_empty():
        return conform(
            candidates.with_columns(cluster=pl.lit(0), distance=pl.lit(0.0), id=pl.lit("")), "evaluation"
        )
    features = space(candidates.select(user_words("prompt")).to_series().to_list()).vectors
    placed = candidates.with_columns(_placed(features, config)).with_row_index("row")
    ranked = placed.sort("cluster", "distance", "prompt_id")
    nearest = ranked.group_by("cluster", maintain_order=True).head(config.per_cluster)
    apart = _apart(nearest.sort("distance", "prompt_id"), features, config.max_similarity)
    chosen = nearest.filter(pl.col("row").is_in(apart)).drop("row")
    return conform(chosen.with_columns(_ids(chosen)), "evaluation")


def _candidates(rows: pl.DataFrame, config: Representatives, trained: pl.Series) -> pl.DataFrame:
    """One row per prompt, in an order that follows from the prompts alone."""
    method = pl.col("method") if "method" in rows.columns else pl.lit("model").alias("method")
    kept = ("prompt", "prompt_id", "checklist", "reference", "feedback_ids", "conversation_id", "split")
    held_out = rows.filter(pl.col("split").is_in(config.splits)).select(*kept, method)
    fresh = held_out.join(trained.to_frame("prompt_id"), on="prompt_id", how="anti")
    ordered = fresh.with_columns(_ids(fresh)).sort("prompt_id", "conversation_id", "id").drop("id")
    single = ordered.unique("prompt_id", keep="first", maintain_order=True)
    drawn = single.with_columns(mixed(id_hashes(single.get_column("prompt_id")), config.seed).alias("draw"))
    return drawn.sort("draw", "prompt_id").head(config.max_rows).drop("draw")


def _ids(rows: pl.DataFrame) -> pl.Series:
    wants = pl.col("checklist").list.join("\n")
    return content_ids(rows, "evaluation", [pl.col("prompt_id"), pl.col("conversation_id"), wants])


def _placed(features: Any, config: Representatives) -> pl.DataFrame:
    """`cluster` and the cosine `distance` to its centroid, a row each."""
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits

    count = features.shape[0]
    # Threads add numbers up in another order each time, and a label may hang on the last bit.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different prompts than clusters
        vectors = _reduced(features, config)
        means: Any = (
            KMeans(min(config.clusters, count), random_state=config.seed).set_params(n_init=3).fit(vectors)
        )
    centroids = normalize(means.cluster_centers_)[means.labels_]
    distance = 1.0 - np.einsum("ij,ij->i", vectors, centroids, dtype=np.float64)
    return pl.DataFrame({"cluster": means.labels_, "distance": np.clip(distance, 0.0, 2.0)})


def _reduced(features: Any, config: Representatives) -> Vectors:
    from sklearn.preprocessing import normalize
    from sklearn.utils.extmath import randomized_svd

    dimensions = min(config.dimensions, *features.shape)
    left, strengths, _ = randomized_svd(features, dimensions, random_state=config.seed)
    reduced: Any = normalize(left * strengths)
    return reduced


def _apart(ranked: pl.DataFrame, features: Any, max_similarity: float) -> list[int]:
    """The rows that are not too like an earlier one that was taken."""
    rows = ranked.get_column("row").to_list()
    vectors = features[rows]
    taken: list[int] = []
    for start in range(0, len(rows), _ROWS_OF_A_BLOCK):
        likeness = (vectors[start : start + _ROWS_OF_A_BLOCK] @ vectors.T).toarray()
        for place, likes in enumerate(likeness, start):
            if not taken or likes[taken].max() <= max_similarity:
                taken.append(place)
    return [rows[place] for place in taken]
