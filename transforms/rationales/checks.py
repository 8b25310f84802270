"""Checks of rationales that models wrote: quotes stand, no place is named, no reply is copied, the label comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import polars as pl

from tilth.schemas import BadInput, ConfigError, Reason
from tilth.schemas.labels import WRITTEN_KINDS
from tilth.transforms.rationales.positions import names_position

FAULTS: Final = pl.Schema({"id": pl.String, "reason": pl.String, "detail": pl.String})
QUOTING_KINDS: Final = (
    "specific",
    "judgment",
)  # they are nothing without a quote; the table's audit says so too

_SIDES: Final = ("prompt", "chosen", "rejected")
_DOUBLE: Final = '"“”„‟«»'
_SINGLE: Final = "'‘’‚‛`´"
_WORD: Final = re.compile(r"\w+(?:['’]\w+)*")
_ELLIPSIS: Final = re.compile(r"\[?(?:\.{3}|…)\]?")
_QUOTED: Final = re.compile(
    r"""
      ```(?:\w*\n)?(.+?)```
    | `([^`\n]+)`
    | [“„]((?:[^“”„\n]|\n(?!\n))+)[”“]
    | «((?:[^«»\n]|\n(?!\n))+)»
    | (?<!\w)"(?=\S)((?:[^"\n]|\n(?!\n))+)"(?!\w)
    | ‘((?:[^‘’\n]|’(?=\w))+)’(?!\w)
    | (?<![\w'])'(?=\S)((?:[^'\n]|'(?=\w))+)'(?!\w)
    """,
    re.VERBOSE | re.DOTALL,
)
_CUT: Final = " “” "  # stands for a quote that was taken out: words around it do not become neighbours


@dataclass(frozen=True, slots=True)
class Checks:
    """What a rationale must hold to; the figures are ours, no paper gives any.

    Attributes:
        min_chars: a shorter text says nothing.
        min_quote_chars: words in quotation marks are looked up from this length, and from two words, on.
        copied_words: a run of so many words that stands in a reply counts as copied.
        max_copied: the share of a rationale's words, quotes left out, that may be copied.
        max_quoted: the same for all its words, so that quoting a whole reply is no rationale either.
    """

    min_chars: int = 20
    min_quote_chars: int = 8
    copied_words: int = 6
    max_copied: float = 0.4
    max_quoted: float = 0.9

    def __post_init__(self) -> None:
        for name in ("min_chars", "min_quote_chars", "copied_words"):
            if getattr(self, name) < 1:
                raise ConfigError(f"checks.{name}", found=getattr(self, name), wanted="at least 1")
        for name in ("max_copied", "max_quoted"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"checks.{name}", found=getattr(self, name), wanted="a share, 0 to 1")


def verbatim(quote: str, text: str) -> str | None:
    """The words of `text` that `quote` quotes, exactly as they stand there; None where they do not.

    White space and the shape of quotation marks may differ, and marks around the whole quote may be left out; case
    and every other character count. Of several places the first is meant.
    """
    if quote.strip() and quote in text:
        return quote
    bare = quote.strip()
    while bare:
        if found := _likeness(bare).search(text):
            return found[0]
        if len(bare) < 2 or not (_is_mark(bare[0]) and _is_mark(bare[-1])):
            return None
        bare = bare[1:-1].strip()
    return None


def _likeness(quote: str) -> re.Pattern[str]:
    return re.compile(r"\s+".join("".join(map(_like, word)) for word in quote.split()))


def _like(character: str) -> str:
    marks = next((marks for marks in (_DOUBLE, _SINGLE) if character in marks), "")
    return f"[{marks}]" if marks else re.escape(character)


def _is_mark(character: str) -> bool:
    return character in _DOUBLE or character in _SINGLE


def faults(rationales: pl.DataFrame, pairs: pl.DataFrame, config: Checks = Checks()) -> pl.DataFrame:
    """The first fault of each rationale that has one, as `FAULTS`, in the order of rows; details hold counts only.

    In this order: EMPTY (too short); EVIDENCE_NOT_FOUND (a quote in `evidence` does not stand in the reply or request
    that it cites, words in quotation marks in `text` stand nowhere, or a kind that must quote does not);
    NAMES_POSITION; COPIES_REPLY. Rows of kinds that no model writes have none. Duplicated rows are judged alike.

    Args:
        rationales: `id`, `pair_id`, `kind`, `text`, `evidence` as in the table.
        pairs: rows of the table; raises `BadInput` where a rationale's pair is not among them.
        config: see `Checks`.
    """
    written = rationales.filter(pl.col("kind").is_in(WRITTEN_KINDS))
    shown = _shown(pairs.filter(pl.col("id").is_in(written.get_column("pair_id").implode())))
    unknown = set(written.get_column("pair_id")) - set(shown)
    if unknown:
        raise BadInput("rationales about pairs that are not there", found=len(unknown), wanted="none")
    rows = written.select("id", "pair_id", "kind", "text", "evidence").iter_rows(named=True)
    found = ((row["id"], _fault(row, shown[row["pair_id"]], config)) for row in rows)
    return pl.DataFrame(
        [(id, fault.reason.value, fault.detail) for id, fault in found if fault], schema=FAULTS, orient="row"
    )


def unrecovered(rationales: pl.DataFrame, recovered: pl.DataFrame) -> pl.DataFrame:
    """LABEL_NOT_RECOVERED for each id of `rationales` whose `recovers_label` in `recovered` (id, recovers_label) is not
    true, as `FAULTS` sorted by id; no verdict, or none on one of several rows of an id, is not true.
    """
    verdicts = recovered.group_by("id").agg(
        true=pl.col("recovers_label").fill_null(value=False).all(), told=pl.col("recovers_label").count() > 0
    )
    rows = rationales.select(pl.col("id").unique().sort()).join(verdicts, on="id", how="left")
    detail = (
        pl.when("told")
        .then(pl.lit("judges who saw only the rationale did not prefer the chosen reply"))
        .otherwise(pl.lit("no verdict of judges who saw only the rationale"))
    )
    lost = rows.filter(~pl.col("true").fill_null(value=False)).sort("id")
    return lost.select("id", reason=pl.lit(Reason.LABEL_NOT_RECOVERED.value), detail=detail).cast(FAULTS)


class _Fault(NamedTuple):
    reason: Reason
    detail: str


def _shown(pairs: pl.DataFrame) -> dict[str, dict[str, str]]:
    """Per pair the texts of prompt, chosen and rejected, messages joined as the table's audit joins them."""
    content = pl.element().struct.field("content").fill_null("")
    texts = pairs.select("id", *(pl.col(side).list.eval(content).list.join("\n") for side in _SIDES))
    return {row.pop("id"): row for row in texts.iter_rows(named=True)}


def _fault(row: Mapping[str, Any], shown: Mapping[str, str], config: Checks) -> _Fault | None:
    text: str = row["text"] or ""
    evidence: Sequence[Mapping[str, str]] = row["evidence"] or ()
    if len(text.strip()) < config.min_chars:
        return _Fault(Reason.EMPTY, f"{len(text.strip())} characters, fewer than {config.min_chars}")
    if not evidence and row["kind"] in QUOTING_KINDS:
        return _Fault(Reason.EVIDENCE_NOT_FOUND, f"no quote, and kind {row['kind']} needs one")
    lost = _misquoted(evidence, shown) or _invented(text, shown, config)
    if lost:
        return _Fault(Reason.EVIDENCE_NOT_FOUND, lost)
    own = _own_words(text, shown, config)
    if names_position(own, "\n".join(shown.values())):
        return _Fault(Reason.NAMES_POSITION, "calls a reply by its place or label")
    copied = _copied(own, text, shown, config)
    return _Fault(Reason.COPIES_REPLY, copied) if copied else None


def _misquoted(evidence: Sequence[Mapping[str, str]], shown: Mapping[str, str]) -> str | None:
    for at, piece in enumerate(evidence, 1):
        side, quote = piece["side"], piece["quote"] or ""
        if verbatim(quote, shown.get(side, "")) is None:
            elsewhere = [name for name in _SIDES if verbatim(quote, shown[name]) is not None]
            where = f", but in {' and '.join(elsewhere)}" if elsewhere else ""
            cited = side if side in _SIDES else "a side that no pair has"
            return f"quote {at} of {len(evidence)} does not stand in {cited}{where}"
    return None


def _invented(text: str, shown: Mapping[str, str], config: Checks) -> str | None:
    quotes = [quote for _, quote in _quotes(text)]
    lost = sum(
        not all(_stands(part, shown) for part in _parts(quote) if _tells(part, config)) for quote in quotes
    )
    return f"{lost} of {len(quotes)} quotes in the text stand in neither reply nor request" if lost else None


def _quotes(text: str) -> Iterator[tuple[tuple[int, int], str]]:
    """Each quotation in `text`: its span with its marks, and the words between them."""
    for match in _QUOTED.finditer(text):
        yield match.span(), match[match.lastindex or 0]


def _parts(quote: str) -> list[str]:
    """The parts between ellipses, without the punctuation that a sentence puts before its closing marks."""
    parts = (part.strip().rstrip(".,;:!?") for part in _ELLIPSIS.split(quote))
    return [part for part in parts if part]


def _tells(part: str, config: Checks) -> bool:
    return len(part) >= config.min_quote_chars and len(part.split()) > 1


def _stands(piece: str, shown: Mapping[str, str]) -> bool:
    return any(verbatim(piece, shown[side]) is not None for side in _SIDES)


def _own_words(text: str, shown: Mapping[str, str], config: Checks) -> str:
    """`text` without the quotations that stand in a reply or the request; shorter words in marks are the writer's own:
    "A" stands in most replies and is no quotation of them.
    """
    own, end = "", 0
    for (start, stop), quote in _quotes(text):
        if len(quote) >= config.min_quote_chars and all(_stands(part, shown) for part in _parts(quote)):
            own, end = own + text[end:start] + _CUT, stop
    return own + text[end:]


def _copied(own: str, text: str, shown: Mapping[str, str], config: Checks) -> str | None:
    replies = [_words(shown[side]) for side in ("chosen", "rejected")]
    for words, most in ((_words(own), config.max_copied), (_words(text), config.max_quoted)):
        copied = _in_runs(words, replies, config.copied_words)
        if copied > most * len(words):
            return f"{copied} of {len(words)} words stand in runs of {config.copied_words} in a reply"
    return None


def _words(text: str) -> list[str]:
    return [word.replace("’", "'") for word in _WORD.findall(text.casefold())]


def _in_runs(words: Sequence[str], texts: Sequence[Sequence[str]], length: int) -> int:
    """How many of `words` lie in runs that stand in one of `texts`: of `length` words, or of all if they are fewer."""
    length = min(length, len(words))
    known = {tuple(text[at : at + length]) for text in texts for at in range(len(text) - length + 1)}
    starts = [at for at in range(len(words) - length + 1) if tuple(words[at : at + length]) in known]
    return len({at + step for at in starts for step in range(length)})
