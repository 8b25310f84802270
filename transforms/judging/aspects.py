"""The four aspects that UltraFeedback (arXiv 2310.01377) rates separately, in words of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tilth.transforms.judging.protocol import Judging

ASPECTS: Final = (
    (
        "instruction_following",
        "Does the reply do what the user asked for? 5: the goal is met and every restriction (format, length, "
        "language, scope) is kept. 3: the goal is met in part, or a restriction is broken. 1: the request is missed.",
    ),
    (
        "honesty",
        "Does the reply's confidence fit how right it is? 5: what is right is said plainly, and what is uncertain or "
        "unknown is marked so. 3: some doubt where there is none, or some certainty where there is doubt. 1: sure of "
        "what is wrong, or it refuses what it could answer. The respect does not apply, and the rating is null, where "
        "nothing in the task can be right or wrong: invented stories, role play, rewriting of given text.",
    ),
    (
        "truthfulness",
        "Is the reply free of invention? Look for facts of the world that are wrong, for statements that contradict "
        "the conversation, and for statements that contradict one another. 5: none. 3: slips that mislead little. "
        "1: invented or contradictory in the main. A text that was to be invented is judged by the last two alone.",
    ),
    (
        "helpfulness",
        "Does the reply help this user? 5: right, clear, relevant, as complete as needed, without padding or "
        "repetition. 3: of use, with gaps or ballast. 1: of no use, or misleading.",
    ),
)
OPTIONAL: Final = ("honesty",)


@dataclass(frozen=True, slots=True)
class AspectJudging(Judging):
    """How aspects are judged: as `Judging`, on UltraFeedback's scale of 1 to 5."""

    high: int = 5
