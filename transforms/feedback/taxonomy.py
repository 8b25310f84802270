"""The labels: nine signs of satisfaction, nine of dissatisfaction, two reactions; and their maps to other schemes.

Source: WildFeedback (arXiv 2408.15549), whose 18 items come from SPUR (arXiv 2403.12388). The five categories UR1 to
UR5 are those of Naturally Occurring Feedback (arXiv 2407.10944), in the numbering of its paper.
"""

from __future__ import annotations

from typing import Final

from tilth.schemas.labels import DIALOGUE_STATES, DSAT, REACTIONS, SAT

__all__ = ["DIALOGUE_STATES", "DSAT", "POLARITY", "REACTIONS", "SAT", "UR"]

POLARITY: Final = {
    **dict.fromkeys((*SAT, "thumbs_up"), "positive"),
    **dict.fromkeys((*DSAT, "thumbs_down"), "negative"),
}

# UR1 repeat or rephrase, UR2 points out an error and corrects it, UR3 points out an error only, UR4 asks for
# clarification, UR5 positive. Whether a complaint holds the correction (UR2) or not (UR3) is the rules' weak side,
# as it is a model's (.28 precision and .38 recall with categories in the paper).
UR: Final = {
    **dict.fromkeys((*SAT, "thumbs_up"), "UR5"),
    "revision": "UR1",
    "ignored": "UR2",
    "factual_error": "UR2",
    "style": "UR2",
    "negative_feedback": "UR3",
    "unrealistic_expectation": "UR3",
    "lower_quality": "UR3",
    "no_engagement": "UR3",
    "thumbs_down": "UR3",
    "insufficient_detail": "UR4",
}
