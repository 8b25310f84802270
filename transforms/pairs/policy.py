"""What counts as clear enough to become a label: every threshold of the pairing rules, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tilth.schemas import ConfigError


@dataclass(frozen=True, slots=True)
class PairPolicy:
    """Thresholds and choices for pairs and unpaired labels. Strengths lie in (0, 1].

    Raises `ConfigError` when a gap or a net is not positive: a tie would pass as a preference.

    Args:
        min_negative: weakest complaint in words that labels a reply false.
        min_positive: weakest satisfaction in words that labels one true.
        min_recovery: weakest complaint about the first reply, and weakest satisfaction with the later one, of a
        recovery; lower than for labels, because both must be said.
        min_reaction: weakest thumb that accepts or rejects one.
        max_turns_between: most user turns between a rejected reply and the one that recovers it.
        max_new_words: up to this many new content words in those turns are no new constraint; where a complaint
            asks for something besides (dialogue state `new_request`), none are free.
        max_new_share: beyond that, the largest share of new words among the content words of those turns.
        correction_labels: complaints whose sentences correct facts; their words are not counted as new.
        complaint_labels: complaints that judge the reply itself (UR2 and UR3 of arXiv 2407.10944); a request to
            do it again or for more detail does not make a reply bad.
        satisfied_labels: satisfaction with the reply itself; jokes and personal details are not.
        better_labels: labels that, besides `satisfied_labels`, say that a reply beats the one before.
        rank_pairs: which siblings of one ranking are compared: all, the best with the worst, or neighbours.
        min_rank_gap: smallest difference of ranks that is a preference; a smaller one is a tie.
        min_score_gap: a difference of scores must be larger than this to be a preference.
        min_net: thumbs up minus down (or down minus up) that a sibling needs to be preferred (or not).
    """

    min_negative: float = 0.65
    min_positive: float = 0.65
    min_recovery: float = 0.55
    min_reaction: float = 0.5
    max_turns_between: int = 3
    max_new_words: int = 4
    max_new_share: float = 0.4
    correction_labels: tuple[str, ...] = ("factual_error",)
    complaint_labels: tuple[str, ...] = (
        "negative_feedback",
        "factual_error",
        "ignored",
        "lower_quality",
        "style",
        "unrealistic_expectation",
        "no_engagement",
    )
    satisfied_labels: tuple[str, ...] = (
        "gratitude",
        "learning",
        "compliance",
        "praise",
        "acknowledgement",
        "positive_closure",
    )
    better_labels: tuple[str, ...] = ("getting_there",)
    rank_pairs: Literal["all", "best_worst", "adjacent"] = "all"
    min_rank_gap: float = 1.0
    min_score_gap: float = 0.0
    min_net: int = 1

    def __post_init__(self) -> None:
        if self.min_rank_gap <= 0 or self.min_score_gap < 0 or self.min_net < 1:
            gaps = f"min_rank_gap={self.min_rank_gap}, min_score_gap={self.min_score_gap}"
            found, wanted = f"{gaps}, min_net={self.min_net}", "more than 0, at least 0, at least 1"
            raise ConfigError("the margins of the pairing policy", found=found, wanted=wanted)
        if self.rank_pairs not in ("all", "best_worst", "adjacent"):
            wanted = "all, best_worst or adjacent"
            raise ConfigError("rank_pairs of the pairing policy", found=self.rank_pairs, wanted=wanted)
