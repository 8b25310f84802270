"""What a user says in the user's own voice: lower case, with quoted and pasted text blanked out.

Blanking keeps the length: character n of `spoken(text)` stands for character n of the text, so a match there is a
quote of the text at the same offsets.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.transforms.feedback.rules import FeedbackRules

BLANK: Final = "\x01"  # no pattern matches it, and it is no word edge

# Code and quotes inside a line, and anything else in pieces that end where one could begin.
_INLINE: Final = (
    r"```(?s:.*?)(?:```|\z)|`[^`\n]+`|\"[^\"\n]*\"|“[^”\n]*”|«[^»\n]*»|\B'[^'\n]{3,}'\B|[^`\"“«']+|(?s:.)"
)
_QUOTED: Final = r"^(?:```|`.|\".*\"$|“.*”$|«.*»$|'.{3,}'$)"
# Lines that somebody or something else wrote: quoted mail, chat logs, traces, comments, code.
_LINES: Final = r"[^\n]+|\n"
_FOREIGN: Final = (
    r"^[ \t]*(?:>|#|//|at \w|file |traceback \(most recent|\[?\d{1,2}:\d\d.*[:>]"
    r"|(?:user|agent|customer|assistant|bot|human|client) ?: )"
    r"|\b[\w.]*(?:error|exception|warning): |[;{}]\s*$"
)
_MARKED: Final = r"[`\"“«;{}#>]|//|\B'|error: |exception: |warning: |traceback |\d:\d\d.*:|^[a-z]+ ?: "

_ARTEFACT: Final = (
    r"(?:text|sentences?|paragraph|essay|email|e-mail|mail|letter|message|passage|article|draft|story|poem|review|"
    r"reviews|comment|comments|tweet|post|speech|feedback|following|snippet|log|logs|code|line|lines|phrase|statement)"
)
_TASK: Final = (
    r"(?:edit|rewrite|reword|rephrase|proofread|proof-read|correct|fix|improve|polish|translate|summari[sz]e|"
    r"paraphrase|classify|analy[sz]e|review|grade|rate|respond to|reply to|continue|explain|convert|label)"
)
# From here to the end of the text the words are not the user's own, or not said to the assistant.
_PASTED: Final = "|".join(
    (
        rf"\b{_TASK} (?:[a-z']+ ){{0,6}}?(?:this|these|the|my|that|it|each|following|into [a-z]+|to [a-z]+|in [a-z]+)"
        rf"(?: [a-z']+){{0,5}}\s*:",
        rf"\b{_TASK}\s*:",
        rf"\b(?:here(?:'?s| is| are)|this is|below is) (?:[a-z']+ ){{0,4}}?{_ARTEFACT}(?: [a-z']+){{0,4}}\s*[:\n]",
        r"\b(?:write|draft|compose|send|create|make|generate|say|type|put|add|translate)(?: [a-z0-9'-]+){0,12}?"
        r" (?:that says|saying|that reads|that goes|which says|telling (?:him|her|them|my|the|people|everyone)"
        r"|complaining|thanking|apologi[sz]ing|explaining that|stating)\b",
        r"\bhow (?:do|would|can|could|should) (?:you|i|we|one|a [a-z]+ person) say\b",
        r"\btell (?:him|her|them|my [a-z]+|the [a-z]+) (?:that )?",
        r"\b(?:text|email|sentence|message|review|paragraph|passage|letter|article|comment|tweet|error|output|poem|"
        r"essay|lyrics|transcript|prompt|question)s?\s*:",
        r"\b(?:pretend|imagine|suppose|let'?s say|scenario|role ?play)\b[^.!?\n]*\b(?:angry|customer|client|user|boss)",
    )
)
# A sentence that reports what somebody else says or thinks.
_REPORTED: Final = (
    r"\b(?:my|our|his|her|their|the|a|some|another|one) (?:[a-z]+ )?(?:boss|manager|wife|husband|partner|girlfriend|"
    r"boyfriend|friends?|mom|mum|mother|dad|father|parents|brother|sister|son|daughter|kids?|colleagues?|coworkers?|"
    r"team|clients?|customers?|teachers?|professor|students?|doctor|landlord|neighbou?rs?|reviewers?|critics?|users?|"
    r"guy|lady|lawyer|bank|company|seller|waiter|agent|people|guests?|editor|landlady|roommate|driver|cousin|aunt|"
    r"uncle|trainer|coach|tutor)(?: [a-z]+){0,2}? (?:sa(?:id|ys|y)|told|tells?|thinks?|thought|complain(?:s|ed)?|"
    r"claim(?:s|ed)?|wrote|writes|call(?:s|ed)|yelled|keeps?|insists?|argued?|believes?|feels?|hates?|loves?)\b"
    r"|\b(?:he|she|they) (?:sa(?:id|ys|y)|told me|thinks?|thought|complained|claim(?:s|ed)?|wrote|called|kept|"
    r"insists?)\b"
)
_TO_YOU: Final = r"\b(?:your|you|ur|u)\b"


def spoken(content: pl.Series, rules: FeedbackRules) -> pl.Series:
    """The texts in lower case, quotation, code, pasted and reported text blanked; same number of characters."""
    plain = _straight(content)
    frame = pl.DataFrame({"text": plain}).with_row_index("at")
    long = frame.filter(pl.col("text").str.len_chars() > rules.long_chars)
    frame = _put(frame, long.with_columns(_edges("text", rules.edge_chars)))
    marked = frame.filter(pl.col("text").str.contains(_MARKED))
    marked = marked.with_columns(_blank_segments("text", _INLINE, pl.element().str.contains(_QUOTED)))
    frame = _put(
        frame, marked.with_columns(_blank_segments("text", _LINES, pl.element().str.contains(_FOREIGN)))
    )
    reporting = frame.filter(pl.col("text").str.contains(_REPORTED))
    reported = pl.element().str.contains(_REPORTED) & ~pl.element().str.contains(_TO_YOU)
    frame = _put(frame, reporting.with_columns(_blank_segments("text", r"[^.!?\n]+|[.!?\n]+", reported)))
    pasting = frame.filter(pl.col("text").str.contains(_PASTED))
    return _put(frame, pasting.with_columns(_blank_tail("text", _PASTED))).get_column("text").alias("spoken")


def _straight(content: pl.Series) -> pl.Series:
    # "İ" is the one letter whose lower case has another number of characters.
    straight = content.str.replace_many(["’", "‘", "´", "ʼ", "İ", "\u00a0"], ["'", "'", "'", "'", "I", " "])
    return straight.str.to_lowercase()


def _put(frame: pl.DataFrame, changed: pl.DataFrame) -> pl.DataFrame:
    if changed.is_empty():
        return frame
    text = frame.get_column("text").scatter(changed.get_column("at"), changed.get_column("text"))
    return frame.with_columns(text)


def _blanks(length: pl.Expr) -> pl.Expr:
    return pl.lit("").str.pad_end(length, BLANK)


def _edges(column: str, size: int) -> pl.Expr:
    text = pl.col(column)
    middle = _blanks(text.str.len_chars() - 2 * size)
    return pl.concat_str(text.str.head(size), middle, text.str.tail(size)).alias(column)


def _blank_segments(column: str, segment: str, foreign: pl.Expr) -> pl.Expr:
    blanked = pl.element().str.replace_all(r"(?s).", BLANK)
    kept = pl.when(foreign).then(blanked).otherwise(pl.element())
    return pl.col(column).str.extract_all(segment).list.eval(kept).list.join("").alias(column)


def _blank_tail(column: str, start: str) -> pl.Expr:
    text = pl.col(column)
    # the task itself ("edit this:") stays readable, what follows it goes
    head = text.str.extract(rf"(?s)^(.*?(?:{start}))", 1)
    rest = text.str.len_chars() - head.str.len_chars()
    return pl.concat_str(head, _blanks(rest)).alias(column)
