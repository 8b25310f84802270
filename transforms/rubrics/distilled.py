"""Criteria from what users complained about at this prompt and at similar ones, and from what they said they want."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final  # Any: vectors are sparse or dense, scipy is typed in part

import polars as pl

from tilth.schemas import ConfigError
from tilth.transforms.hygiene.hashing import id_hashes, mixed
from tilth.transforms.rubrics.complaints import combined, same_words, says_something, told_as_criterion
from tilth.transforms.rubrics.criteria import CRITERIA, criteria_rows
from tilth.transforms.rubrics.retrieval import Retrieval, likeness, nearest, placed_among
from tilth.transforms.selection.tfidf import user_words

PREFERENCE_WEIGHT: Final = 0.7
_HEARD: Final = 256  # the most complaints that are grouped for one prompt: grouping is quadratic in them
_OF_ONE_PROMPT: Final = 32  # the most complaints that one prompt lends to each of those like it
_BLOCK: Final = 2_048  # prompts at a time, so that what they hear fits in memory
_TITLES: Final[Mapping[str, str]] = {
    "factual_error": "No factual error",
    "ignored": "Nothing ignored",
    "insufficient_detail": "Enough detail",
    "style": "Fitting style",
    "lower_quality": "No drop in quality",
    "unrealistic_expectation": "Meets the expectation",
    "no_engagement": "Engages the user",
    "revision": "Needs no revision",
    "negative_feedback": "Draws no complaint",
}
_TITLE: Final = "Draws no complaint"


@dataclass(frozen=True, slots=True)
class Distilled:
    """How complaints become criteria; the fields are the keys of a section `distilled` in `tilth.yaml`.

    Args:
        similar_prompts: so many of the prompts most like a prompt lend it their complaints.
        min_similarity: of their user's words (cosine), below which prompts are not similar.
        own_voices: users who must say so about the prompt itself, for a criterion.
        similar_voices: users who must say so about the prompt or similar ones, where too few did about itself.
        same_complaint: likeness (cosine) above which complaints are merged, on average.
        own_weight: the force of a voice about the prompt itself; its strength is multiplied by it.
        similar_weight: the force of a voice about a similar prompt.
        max_criteria: for one prompt, the heaviest.
        max_complaints: of a split that are lent to similar prompts; of more, so many are drawn by their id.
        max_chars: longer complaints are no criteria.
        seed: of the draw.
    """

    similar_prompts: int = 10
    min_similarity: float = 0.3
    own_voices: int = 1
    similar_voices: int = 2
    same_complaint: float = 0.6
    own_weight: float = 0.7
    similar_weight: float = 0.4
    max_criteria: int = 8
    max_complaints: int = 20_000
    max_chars: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        counts = (self.own_voices, self.similar_voices, self.max_criteria, self.max_chars)
        if min(counts) < 1 or min(self.similar_prompts, self.max_complaints) < 0:
            wanted = "1 or more; 0 or more for similar_prompts and max_complaints"
            raise ConfigError("counts of criteria from complaints", found=self, wanted=wanted)
        shares = (self.min_similarity, self.same_complaint, self.own_weight, self.similar_weight)
        if not all(0 < share <= 1 for share in shares):
            raise ConfigError("likenesses and weights of complaints", found=self, wanted="above 0, up to 1")


def complaint_criteria(
    prompts: pl.DataFrame,
    complaints: pl.DataFrame,
    config: Distilled | None = None,
    retrieval: Retrieval | None = None,
) -> pl.DataFrame:
    """`CRITERIA` of source `complaint`: what users faulted, the most central words of each group of like complaints.

    A prompt hears the complaints about itself and those about similar prompts of its split, never of another. Like
    ones are grouped (average linkage of cosines, cut at `same_complaint`), so that each group is one criterion, told
    in the words of its medoid, verbatim but for white space. A group counts when `own_voices` users said so about the
    prompt itself or `similar_voices` about any of these prompts; a user who says it twice is one, and a conversation
    without a user's key is a user of its own.

    weight = 1 - product over users of (1 - share x strength), where share is `own_weight` or `similar_weight` and a
    user counts with the strongest thing they said: in (0, 1], growing with every further voice and with its strength.
    The order of rows decides nothing, and what a prompt gets does not hang on the other prompts.

    At most 256 complaints are grouped for a prompt: its own first, then the strongest.

    Args:
        prompts: `PROMPTS`.
        complaints: `tilth.transforms.rubrics.complaints.COMPLAINTS`.
        config: the thresholds.
        retrieval: how likeness is measured, of prompts and of complaints. Its own `min_similarity` applies too.
    """
    config, retrieval = config or Distilled(), retrieval or Retrieval()
    told = complaints.filter(says_something("text", config.max_chars)).unique("feedback_id", keep="any")
    splits = sorted(set(prompts.get_column("split")) & set(told.get_column("split")))
    found = [
        _of_split(prompts.filter(split=split), told.filter(split=split), config, retrieval)
        for split in splits
    ]
    return criteria_rows(pl.concat(found, how="diagonal")) if found else pl.DataFrame(schema=CRITERIA)


def _of_split(
    prompts: pl.DataFrame, complaints: pl.DataFrame, config: Distilled, retrieval: Retrieval
) -> pl.DataFrame:
    voiced = complaints.select(
        "feedback_id", "prompt_id", "prompt", "strength", "labels", "text", said=same_words("text"),
        voice=pl.coalesce(pl.format("u{}", "user_key"), pl.format("c{}", "conversation_id")),
    )  # fmt: skip
    lent = _lent(voiced, config)
    # Distances follow from what is lent alone, whatever prompts are asked for.
    among = sorted(set(lent.get_column("said")) or set(voiced.get_column("said")))
    place = placed_among(among, retrieval)[1]
    blocks = (prompts.slice(start, _BLOCK) for start in range(0, prompts.height, _BLOCK))
    found = [_of_block(block, voiced, lent, place, config, retrieval) for block in blocks]
    return pl.concat(found, how="diagonal")


def _lent(voiced: pl.DataFrame, config: Distilled) -> pl.DataFrame:
    """The complaints that prompts lend to those like them."""
    drawn = voiced.with_columns(draw=mixed(id_hashes(voiced.get_column("feedback_id")), config.seed))
    kept = drawn.sort("draw", "feedback_id").head(config.max_complaints).drop("draw")
    strongest = kept.sort("prompt_id", "strength", "feedback_id", descending=[False, True, False])
    return strongest.group_by("prompt_id", maintain_order=True).head(_OF_ONE_PROMPT)


def _of_block(
    prompts: pl.DataFrame,
    voiced: pl.DataFrame,
    lent: pl.DataFrame,
    place: Any,
    config: Distilled,
    retrieval: Retrieval,
) -> pl.DataFrame:
    asked = prompts.select(asked="prompt_id")
    own = asked.join(voiced.with_columns(own=True), left_on="asked", right_on="prompt_id")
    similar = _similar(prompts, lent, config, retrieval).join(lent.with_columns(own=False), on="prompt_id")
    columns = ("asked", "own", "feedback_id", "strength", "labels", "text", "said", "voice")
    heard = pl.concat([own.select(columns), similar.select(columns)])
    ordered = heard.sort("asked", "own", "strength", "feedback_id", descending=[False, True, True, False])
    most = ordered.group_by("asked", maintain_order=True).head(_HEARD)
    if most.is_empty():
        return pl.DataFrame(schema=CRITERIA)
    return _criteria(most.join(_grouped(most, place, config.same_complaint), on=["asked", "said"]), config)


def _similar(
    prompts: pl.DataFrame, lent: pl.DataFrame, config: Distilled, retrieval: Retrieval
) -> pl.DataFrame:
    """Which other prompts (`prompt_id`) lend to which (`asked`)."""
    lenders = lent.unique("prompt_id", keep="any").sort("prompt_id")
    words, theirs = (one.select(user_words("prompt")).to_series().to_list() for one in (prompts, lenders))
    # One more: the nearest may be the prompt itself.
    found = nearest(words, theirs, config.similar_prompts + 1, retrieval).filter(
        pl.col("similarity") >= config.min_similarity
    )
    named = found.with_columns(
        prompts.get_column("prompt_id").gather(found.get_column("query")).alias("asked"),
        lenders.get_column("prompt_id").gather(found.get_column("document")),
    )
    others = named.filter(pl.col("asked") != pl.col("prompt_id")).sort("asked", "rank")
    return (
        others.group_by("asked", maintain_order=True)
        .head(config.similar_prompts)
        .select("asked", "prompt_id")
    )


def _grouped(heard: pl.DataFrame, place: Any, same: float) -> pl.DataFrame:
    """`group` and `centrality` of what is `said` at each prompt (`asked`)."""
    words = heard.select("asked", "said").unique().sort("asked", "said")
    distinct = words.get_column("said").unique().sort()
    rows = place(distinct.to_list())
    numbered = words.join(distinct.to_frame().with_row_index("row"), on="said").sort("asked", "said")
    groups: list[int] = []
    centralities: list[float] = []
    for (places,) in numbered.group_by("asked", maintain_order=True).agg("row").select("row").iter_rows():
        labels, central = grouped(rows[places], same)
        groups += labels
        centralities += central
    return numbered.select(
        "asked",
        "said",
        pl.Series("group", groups, dtype=pl.Int64),
        pl.Series("centrality", centralities, dtype=pl.Float64),
    )


def grouped(vectors: Any, same: float) -> tuple[Sequence[int], Sequence[float]]:
    """A group for each row of unit length, by average linkage, and its mean likeness to the rows of its group."""
    import numpy as np
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    count = vectors.shape[0]
    if count == 1:
        return [1], [1.0]
    alike = np.clip(likeness(vectors, vectors), 0.0, 1.0)
    np.fill_diagonal(alike, 1.0)
    apart = squareform(1.0 - alike, checks=False)
    labels = fcluster(linkage(apart, "average"), 1.0 - same, "distance")
    together = labels[:, None] == labels[None, :]
    central = (alike * together).sum(axis=1) / together.sum(axis=1)
    return labels.tolist(), np.round(central, 6).tolist()


def _criteria(heard: pl.DataFrame, config: Distilled) -> pl.DataFrame:
    group = ["asked", "group"]
    share = pl.when("own").then(config.own_weight).otherwise(config.similar_weight)
    voices = (
        heard.group_by(*group, "voice")
        .agg(force=(share * pl.col("strength")).max(), own=pl.col("own").any())
        .group_by(*group)
        .agg(weight=combined(pl.col("force").sort()), voices=pl.len(), own_voices=pl.col("own").sum())
    )
    enough = (pl.col("own_voices") >= config.own_voices) | (pl.col("voices") >= config.similar_voices)
    medoid = pl.col("text").sort_by("centrality", "text", descending=[True, False]).first()
    told = heard.group_by(group).agg(
        text=medoid,
        feedback_ids=pl.col("feedback_id").unique().sort(),
        tags=pl.col("labels").explode(empty_as_null=False).unique().sort(),
        title=pl.col("labels").list.first().mode().sort().first(),  # labels stand by weight
    )
    heaviest = (
        told.join(voices.filter(enough), on=group)
        .sort("asked", "weight", "text", descending=[False, True, False])
        .group_by("asked", maintain_order=True)
        .head(config.max_criteria)
    )
    return heaviest.select(
        "weight", "tags", "feedback_ids", prompt_id="asked", kind=pl.lit("principle"), check=pl.lit("judge"),
        source=pl.lit("complaint"), description=told_as_criterion("text"),
        title=pl.col("title").replace_strict(_TITLES, default=_TITLE, return_dtype=pl.String),
    )  # fmt: skip


def preference_criteria(
    preferences: pl.DataFrame, prompts: pl.DataFrame, weight: float = PREFERENCE_WEIGHT
) -> pl.DataFrame:
    """`CRITERIA` of source `preference`: what a model noted that the user wants, as WildFeedback's checklists.

    Of statements that differ in case, punctuation and white space alone, the one that sorts first stays, with the
    feedback of all (arXiv 2408.15549, section 5 shows judges the whole list at once; here each is a criterion).

    Args:
        preferences: rows of the table; those of other prompts, or of another split than their prompt, take no part.
        prompts: `PROMPTS`.
        weight: of each.
    """
    asked = prompts.select("prompt_id", "split")
    wanted = preferences.join(asked, on=["prompt_id", "split"], how="semi")
    spread = wanted.explode("preferences", empty_as_null=False).with_columns(
        pl.col("preferences").str.strip_chars()
    )
    told = spread.filter(pl.col("preferences") != "").with_columns(said=same_words("preferences"))
    first = pl.col("preferences", "model", "prompt_version").sort_by("preferences", "id").first()
    merged = told.group_by("prompt_id", "said").agg(
        first,
        pl.col("feedback_ids").explode(empty_as_null=False).drop_nulls().unique().sort(),
    )
    return criteria_rows(
        merged.sort("prompt_id", "preferences").select(
            "prompt_id", "feedback_ids", "model", "prompt_version", description="preferences",
            title=pl.lit("The user's wish"), weight=pl.lit(weight), kind=pl.lit("principle"),
            check=pl.lit("judge"), source=pl.lit("preference"),
        )
    )  # fmt: skip
