"""The words that `feedback` may use: nine signs of satisfaction, nine of dissatisfaction, reactions, dialogue states.

Source: WildFeedback (arXiv 2408.15549, section 3), whose 18 items come from SPUR (arXiv 2403.12388).
"""

from __future__ import annotations

from typing import Final

SAT: Final = (
    "gratitude",
    "learning",
    "compliance",
    "praise",
    "personal_details",
    "humor",
    "acknowledgement",
    "positive_closure",
    "getting_there",
)
DSAT: Final = (
    "negative_feedback",
    "revision",
    "factual_error",
    "unrealistic_expectation",
    "no_engagement",
    "ignored",
    "lower_quality",
    "insufficient_detail",
    "style",
)
REACTIONS: Final = ("thumbs_up", "thumbs_down")
DIALOGUE_STATES: Final = ("closing", "refinement", "new_request", "feedback", "continuation")

# Judging: what one judgment may say, and what may come of all judgments of one item.
JUDGMENT_KINDS: Final = ("pairwise", "pointwise", "listwise")
JUDGMENT_VERDICTS: Final = ("win", "loss", "tie", "rated", "ranked", "failed")
VERDICTS: Final = ("win", "loss", "tie", "inconsistent", "failed")
RESPONSE_ROLES: Final = ("logged", "side", "expert", "on_policy", "plain", "policy")

# Rationales: what kinds there are, and which of them a model writes about a pair.
WRITTEN_KINDS: Final = ("general", "specific", "judgment", "option")
RATIONALE_KINDS: Final = ("user_complaint", "factors", *WRITTEN_KINDS)

# Rubrics: what a criterion is, who checks it, where it comes from.
CRITERION_KINDS: Final = ("hard_rule", "principle")
CRITERION_CHECKS: Final = ("program", "judge")
CRITERION_SOURCES: Final = ("prompt", "complaint", "preference", "contrast", "model", "seed")

# The languages that `tilth.schemas.language` tells apart.
LANGUAGES: Final = (
    *("en", "es", "fr", "de", "pt", "it", "nl", "pl", "tr", "id", "vi", "sv", "ro"),
    *("ja", "ko", "zh", "ru", "ar", "he", "el", "hi", "th", "ka", "hy", "bn", "ta", "te"),
)
