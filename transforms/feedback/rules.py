"""The thresholds of the feedback rules, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

VERSION: Final = "1"


@dataclass(frozen=True, slots=True)
class FeedbackRules:
    """What counts as a signal. Strengths and similarities lie in [0, 1]; lengths are in characters or words.

    Args:
        min_strength: a signal below it is not emitted; explicit signals start at 0.6, implicit ones at 0.3.
        explicit: from here on a signal outweighs implicit ones of the other polarity in the same turn.
        lookback: how many earlier user turns a turn is compared with.
        repeat_min_words: a shorter turn is never called a repetition.
        repeat_jaccard: token overlap (Jaccard) of two turns from which one repeats the other.
        repeat_containment: share of an earlier turn's content words that comes back in a repetition.
        repeat_chars: character trigram overlap that stands in for token overlap where there are typing errors.
        long_chars: a longer turn is read at its first and last `edge_chars` only; the middle is pasted material.
        edge_chars: how much is read at either end of a long turn.
        wordy: a turn with more words than this is less likely to be feedback; its weights are multiplied by `damp`,
            and from half as many words on those of its implicit signals.
        damp: see `wordy`.
        answering: factor on complaints in a turn that answers a question and does not address the assistant.
        evidence_chars: longest quote for an implicit signal, whose evidence is the turn itself.
    """

    min_strength: float = 0.3
    explicit: float = 0.6
    lookback: int = 4
    repeat_min_words: int = 4
    repeat_jaccard: float = 0.6
    repeat_containment: float = 0.8
    repeat_chars: float = 0.55
    long_chars: int = 900
    edge_chars: int = 300
    wordy: int = 60
    damp: float = 0.85
    answering: float = 0.35
    evidence_chars: int = 300
