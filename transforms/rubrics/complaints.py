"""What users complained about, in their own words, each with the prompt whose reply drew it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import polars as pl

from tilth.schemas import PL_MESSAGES
from tilth.transforms.rationales.complaints import MIN_STRENGTH, quoted, spoken_complaints
from tilth.transforms.stage import Output, Task, rows_of

COMPLAINTS: Final = pl.Schema(
    {
        "feedback_id": pl.String,
        "conversation_id": pl.String,
        "prompt_id": pl.String,
        "prompt": PL_MESSAGES,
        "text": pl.String,  # verbatim
        "strength": pl.Float64,
        "labels": pl.List(pl.String),
        "user_key": pl.String,  # null where the log does not say who it was
        "split": pl.String,
    }
)
"""One complaint of one user about one reply."""


def complaints_of(
    feedback: pl.DataFrame, conversations: pl.DataFrame, min_strength: float = MIN_STRENGTH
) -> pl.DataFrame:
    """Rows of `COMPLAINTS`, one for each row of `feedback` that complains in words, sorted by its id.

    Which those are and how a long turn is cut is as for rationales (`tilth.transforms.rationales.complaints`): negative,
    said rather than clicked, at least `min_strength`, and not about what looks like a correct refusal. Complaints
    without a quoted word, and about replies that no user's turn led to, are left out.

    Args:
        feedback: rows of the table.
        conversations: rows of the table, those of the feedback among them.
        min_strength: weaker signals are implicit, such as a request put again.
    """
    span = pl.col("evidence").list.eval(pl.element().struct.field("start")).list.min()
    end = pl.col("evidence").list.eval(pl.element().struct.field("end")).list.max()
    said = spoken_complaints(feedback, conversations, min_strength).with_columns(start=span, end=end)
    asked = pl.col("prompt").list.last().struct.field("role") == "user"
    users = conversations.unique("id", keep="first").select("user_key", conversation_id="id")
    told = said.filter(asked & (pl.col("evidence").list.len() > 0)).with_columns(
        text=quoted("turn", "start", "end")
    )
    worded = told.filter(pl.col("text") != "").join(users, on="conversation_id")
    return worded.select(pl.col(name).cast(kind) for name, kind in COMPLAINTS.items()).sort("feedback_id")


@dataclass(frozen=True, slots=True)
class Complaints:
    """Collects what users complained about. Inputs: `conversations` and `feedback` of a part. Writes `complaints`."""

    min_strength: float = MIN_STRENGTH
    name: ClassVar[str] = "complaints"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        conversations, feedback = rows_of(task, "conversations"), rows_of(task, "feedback")
        found = complaints_of(feedback, conversations, self.min_strength)
        out.write("complaints", found)
        out.count("complaints.found", found.height)
