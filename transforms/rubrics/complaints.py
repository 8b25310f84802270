"""What users complained about, in their own words, each with the prompt whose reply drew it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from tilth.schemas import PL_MESSAGES, ConfigError
from tilth.transforms.rationales.complaints import MIN_STRENGTH, quoted, spoken_complaints

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
_LETTERS: Final = 4


@dataclass(frozen=True, slots=True)
class Complaining:
    """Which complaints count; the fields are the keys of a section `complaining` in `tilth.yaml`.

    Args:
        min_strength: weaker signals do not count. Below 0.55 they are implicit, such as a request put again.
    """

    min_strength: float = MIN_STRENGTH

    def __post_init__(self) -> None:
        if not 0 <= self.min_strength <= 1:
            raise ConfigError("strength of a complaint", found=self.min_strength, wanted="0 to 1")


def complaints_of(
    feedback: pl.DataFrame, conversations: pl.DataFrame, config: Complaining | None = None
) -> pl.DataFrame:
    """Rows of `COMPLAINTS`, one for each row of `feedback` that complains in words, sorted by its id.

    Which those are and how a long turn is cut is as for rationales (`tilth.transforms.rationales`): negative,
    said rather than clicked, strong enough, and not about what looks like a correct refusal. Complaints
    without a quoted word, and about replies that no user's turn led to, are left out.

    Args:
        feedback: rows of the table.
        conversations: rows of the table; feedback about others is left out.
        config: which complaints count.
    """
    weakest = (Complaining() if config is None else config).min_strength
    span = pl.col("evidence").list.eval(pl.element().struct.field("start")).list.min()
    end = pl.col("evidence").list.eval(pl.element().struct.field("end")).list.max()
    said = spoken_complaints(feedback, conversations, weakest).with_columns(start=span, end=end)
    asked = pl.col("prompt").list.last().struct.field("role") == "user"
    users = conversations.unique("id", keep="first").select("user_key", conversation_id="id")
    told = said.filter(asked & (pl.col("evidence").list.len() > 0)).with_columns(
        text=quoted("turn", "start", "end")
    )
    worded = told.filter(pl.col("text") != "").join(users, on="conversation_id")
    return worded.select(pl.col(name).cast(kind) for name, kind in COMPLAINTS.items()).sort("feedback_id")


def told_as_criterion(text: str) -> pl.Expr:
    """A column of complaints as descriptions that a judge can answer with yes or no: the user's words in one line.

    The words around them are few, since criteria are compared by their words.
    """
    line = pl.col(text).str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.format("Gives no reason to say: “{}”", line)


def says_something(text: str, max_chars: int) -> pl.Expr:
    """Whether a complaint can be a criterion: 4 letters or more, as “???” says nothing to avoid, and not too long."""
    return (pl.col(text).str.count_matches(r"\w") >= _LETTERS) & (pl.col(text).str.len_chars() <= max_chars)


def same_words(text: str) -> pl.Expr:
    """Equal for complaints that differ in case, punctuation and white space alone."""
    return pl.col(text).str.to_lowercase().str.replace_all(r"\W+", " ").str.strip_chars()


def combined(force: pl.Expr) -> pl.Expr:
    """The weight of what several users say, each with a force in (0, 1]: 1 - (1 - f1)(1 - f2)…, so also in (0, 1].

    It grows with every further user and with each one's force (the noisy-or by which feedback is mined too).
    """
    return 1 - (1 - force).product()
