"""Pairs whose replies are marked with their quality, as `loopback.sensible` reads them, and a panel that it plays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from loopback import Habits
from loopback.sensible_rationales import MISTAKES
from scripted import answered
from tilth.schemas import conform, content_ids
from tilth.schemas.ids import content_id, messages_key
from tilth.transforms.judging.items import judge_requests, judgments
from tilth.transforms.judging.protocol import Judging
from tilth.transforms.rationales.recovering import recovery_protocol

HONEST: Final = Habits()
PANEL: Final = Judging(judges=("large=2", "small"))
MARKS: Final = ("", *(f"[write={name}]" for name in MISTAKES))

_PLANTS: Final = (
    "peas",
    "leeks",
    "kale",
    "beans",
    "chard",
    "garlic",
    "fennel",
    "lettuce",
    "parsnips",
    "radishes",
)
_GOOD: Final = "Sow {0} about {1} centimetres deep, in rows, once the soil has warmed. Water them well. [q=9]"
_BAD: Final = "People have eaten {0} for {1} hundred years, and painters loved to show the harvest. [q=2]"


def pairs(count: int, marks: Sequence[str] = ("",)) -> pl.DataFrame:
    """So many different pairs, rows of the table; the rejected reply of each ends with the next of `marks`."""
    return pl.concat(pair(_GOOD, f"{_BAD} {marks[n % len(marks)]}", n) for n in range(count))


def pair(
    chosen: str, rejected: str, number: int = 0, prompt: str = "How do I plant {0} in plot {1}?"
) -> pl.DataFrame:
    """One pair; `{0}` in a text is a plant, `{1}` the number."""
    names = (_PLANTS[number % len(_PLANTS)], number)
    row = {
        "prompt": [{"role": "user", "content": prompt.replace("{0}", names[0]).replace("{1}", str(number))}],
        **{
            side: [
                {"role": "assistant", "content": text.replace("{0}", names[0]).replace("{1}", str(number))}
            ]
            for side, text in (("chosen", chosen), ("rejected", rejected))
        },
        "origin": "best_of_n",
        "chosen_score": 9.0,
        "rejected_score": 2.0,
        "margin": 7.0,
        "conversation_id": content_id("conversation", str(number)),
        "method": "model",
        "split": "train",
    }
    frame = conform(pl.DataFrame([row]), "pairs")
    named = frame.with_columns(content_ids(frame, "prompts", [messages_key("prompt")]).alias("prompt_id"))
    keys = [pl.col("prompt_id"), messages_key("chosen"), messages_key("rejected")]
    return named.with_columns(content_ids(named, "pairs", keys).alias("id"))


def judged(items: pl.DataFrame, habits: Habits = HONEST, judging: Judging = PANEL) -> pl.DataFrame:
    """What the panel says of items."""
    protocol = recovery_protocol(judging)
    questions = judge_requests(items, protocol)
    told = [(judge.name, answered(questions.requests, habits, judge.name)) for judge in protocol.judges]
    return pl.concat(
        judgments(items, questions.asked, said.completions, said.failed, name, protocol, f"{name}@1")
        for name, said in told
    )
