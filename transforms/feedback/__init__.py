"""Feedback mining: what users say about replies and the thumbs they put on them, found by rules."""

from tilth.transforms.feedback.mining import Mined, mine, score_turns
from tilth.transforms.feedback.reactions import observe_reactions
from tilth.transforms.feedback.rules import VERSION, FeedbackRules
from tilth.transforms.feedback.taxonomy import DIALOGUE_STATES, DSAT, POLARITY, REACTIONS, SAT, UR

__all__ = [
    "DIALOGUE_STATES",
    "DSAT",
    "POLARITY",
    "REACTIONS",
    "SAT",
    "UR",
    "VERSION",
    "FeedbackRules",
    "Mined",
    "mine",
    "observe_reactions",
    "score_turns",
]
