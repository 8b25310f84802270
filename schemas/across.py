"""Contracts that need all rows of a table, or of several: unique ids, one split a person, references that
resolve.

Single columns are streamed. Ids are compared by their 64-bit hashes and what collides is looked at again in
full, so that counts are exact while a billion rows need 8 bytes each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from tilth.schemas.contracts import CONTRACTS
from tilth.schemas.tables import empty


@dataclass(frozen=True, slots=True)
class Unique:
    """Counts rows beyond the first with one value of `column`."""

    metric: str
    column: str
    needs: tuple[str, ...] = ()

    def count(self, table: str, frames: Mapping[str, pl.LazyFrame]) -> int:
        """How many rows repeat a value."""
        hashes = frames[table].select(pl.col(self.column).hash()).collect(engine="streaming").to_series()
        if hashes.n_unique() == hashes.len():
            return 0
        again = hashes.filter(hashes.is_duplicated()).unique().implode()
        suspects = frames[table].select(self.column).filter(pl.col(self.column).hash().is_in(again))
        return _number_of(suspects, pl.len() - pl.col(self.column).n_unique())


@dataclass(frozen=True, slots=True)
class OneSplit:
    """Counts values of `column` that stand in more than one split; null belongs to nobody."""

    metric: str
    column: str
    needs: tuple[str, ...] = ()

    def count(self, table: str, frames: Mapping[str, pl.LazyFrame]) -> int:
        """How many values are spread."""
        placed = frames[table].select(self.column, "split").drop_nulls(self.column).unique()
        return _number_of(placed, pl.len() - pl.col(self.column).n_unique())


@dataclass(frozen=True, slots=True)
class Resolves:
    """Counts values of `column` (a string, or a list of strings) that are no id in table `target`.

    No list refers to nothing; a null leads nowhere.
    """

    metric: str
    column: str
    target: str
    needs: tuple[str, ...] = ()

    def count(self, table: str, frames: Mapping[str, pl.LazyFrame]) -> int | None:
        """How many references lead nowhere; null where there are some and `target` is not at hand to tell."""
        references = frames[table].select(pl.col(self.column))
        if isinstance(references.collect_schema()[self.column], pl.List):
            references = references.drop_nulls().explode(self.column, empty_as_null=False)
        if self.target not in frames:
            return None if _number_of(references, pl.len()) else 0
        known = frames[self.target].select("id")
        lost = references.join(known, left_on=self.column, right_on="id", how="anti")
        return _number_of(lost, pl.len())


@dataclass(frozen=True, slots=True)
class SameSplit:
    """Counts rows whose split is not that of their conversation."""

    metric: str
    needs: tuple[str, ...] = ("conversations",)

    def count(self, table: str, frames: Mapping[str, pl.LazyFrame]) -> int:
        """How many rows stand elsewhere than the conversation they come from."""
        source = frames["conversations"].select("id", source_split="split")
        rows = frames[table].select("conversation_id", "split")
        joined = rows.join(source, left_on="conversation_id", right_on="id", how="inner")
        return _number_of(joined, pl.col("split").ne_missing(pl.col("source_split")).sum())


@dataclass(frozen=True, slots=True)
class Apart:
    """Counts neighbouring rows with one value of `column`: trainers of unpaired labels pair neighbours up."""

    metric: str
    column: str
    needs: tuple[str, ...] = ()

    def count(self, table: str, frames: Mapping[str, pl.LazyFrame]) -> int:
        """How many rows share the value with the row before them."""
        return _number_of(frames[table], (pl.col(self.column) == pl.col(self.column).shift(1)).sum())


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Counts rows whose `column` stands in rows of table `target` that are for training."""

    metric: str
    column: str
    target: str

    @property
    def needs(self) -> tuple[str, ...]:
        """The other tables that must be at hand."""
        return (self.target,)

    def count(self, table: str, frames: Mapping[str, pl.LazyFrame]) -> int:
        """How many rows a model may have been trained on."""
        trained = frames[self.target].filter(pl.col("split") == "train").select(self.column)
        return _number_of(frames[table].join(trained, on=self.column, how="semi"), pl.len())


@dataclass(frozen=True, slots=True)
class Quoted:
    """Counts rows that quote a reply of their pair, or its prompt, with words that do not stand there."""

    metric: str
    needs: tuple[str, ...] = ("pairs",)

    def count(self, table: str, frames: Mapping[str, pl.LazyFrame]) -> int:
        """How many rows quote what was not said. What users said is compared with the row's own text, in contracts."""
        replies = pl.col("kind") != "user_complaint"
        quotes = (
            frames[table]
            .filter(replies, pl.col("evidence").list.len() > 0)
            .select("id", "pair_id", "evidence")
        )
        spread = quotes.explode("evidence", empty_as_null=False).unnest("evidence")
        text = pl.element().struct.field("content").fill_null("")
        sides = frames["pairs"].select(
            pl.col(name).list.eval(text).list.join("\n").alias(name)
            for name in ("prompt", "chosen", "rejected")
        )
        known = pl.concat([frames["pairs"].select(pair_id="id"), sides], how="horizontal")
        joined = spread.join(known, on="pair_id", how="inner")
        where = pl.coalesce(
            pl.when(pl.col("side") == name).then(pl.col(name)) for name in ("prompt", "chosen", "rejected")
        )
        stands = where.str.contains(pl.col("quote"), literal=True).fill_null(False)
        return _number_of(joined.filter(~stands).select("id").unique(), pl.len())


@dataclass(frozen=True, slots=True)
class SplitOfFeedback:
    """Counts rows that rest on feedback of another split than their own."""

    metric: str
    needs: tuple[str, ...] = ("feedback",)

    def count(self, table: str, frames: Mapping[str, pl.LazyFrame]) -> int:
        """How many rows carry what a user said from one split into another."""
        said = frames["feedback"].select("id", said_in="split")
        rows = (
            frames[table].select("id", "split", "feedback_ids").explode("feedback_ids", empty_as_null=False)
        )
        joined = rows.join(said, left_on="feedback_ids", right_on="id", how="inner")
        return _number_of(joined.filter(pl.col("split") != pl.col("said_in")).select("id").unique(), pl.len())


@dataclass(frozen=True, slots=True)
class FoldedInOneSplit:
    """Counts texts of messages that stand in more than one split once case, white space and punctuation are left out.

    Folded texts are compared by their 64-bit hashes alone.
    """

    metric: str
    column: str
    needs: tuple[str, ...] = ()

    def count(self, table: str, frames: Mapping[str, pl.LazyFrame]) -> int:
        """How many folded texts are spread; what has no letter or digit is no text."""
        content = pl.element().struct.field("content").fill_null("")
        text = pl.col(self.column).list.eval(content).list.join(" ").str.to_lowercase()
        folded = text.str.replace_all(r"[\s\p{P}\p{S}]+", "")
        held = frames[table].select("split", folded.alias("folded")).filter(pl.col("folded") != "")
        placed = held.select("split", pl.col("folded").hash()).unique()
        return _number_of(placed, pl.len() - pl.col("folded").n_unique())


@dataclass(frozen=True, slots=True)
class OrderAgreement:
    """The share of comparisons, shown to one judge in both orders, whose verdicts are equal; null without any.

    With `lowest`, the share of the judge who agrees least with himself, of those with at least `_HEARD` comparisons.
    """

    metric: str
    lowest: bool = False
    needs: tuple[str, ...] = ()

    def count(self, table: str, frames: Mapping[str, pl.LazyFrame]) -> float | None:
        """The share, from 0 to 1."""
        compared = frames[table].filter(pl.col("kind") == "pairwise", pl.col("verdict") != "failed")
        shown = compared.group_by("judge", "model", "item_id", "attribute", "sample_index").agg(
            orders=pl.col("order").list.first().n_unique(), verdicts=pl.col("verdict").n_unique()
        )
        both = shown.filter(pl.col("orders") > 1)
        agreed = (pl.col("verdicts") == 1).mean()
        if not self.lowest:
            return _value_of(both, agreed)
        judges = both.group_by("judge").agg(agreed=agreed, heard=pl.len()).filter(pl.col("heard") >= _HEARD)
        return _value_of(judges, pl.col("agreed").min())


_HEARD: Final = 20

Across = (
    Unique
    | OneSplit
    | Resolves
    | SameSplit
    | Apart
    | HeldOut
    | Quoted
    | SplitOfFeedback
    | FoldedInOneSplit
    | OrderAgreement
)


def _value_of(frame: pl.LazyFrame, value: pl.Expr) -> float | None:
    return frame.select(value).collect(engine="streaming").item()


def _number_of(frame: pl.LazyFrame, count: pl.Expr) -> int:
    return int(frame.select(count).collect(engine="streaming").item() or 0)


_UNIQUE: Final = Unique("duplicate_ids", "id")
_FROM_CONVERSATIONS: Final = (
    Resolves("conversation_ids_unresolved", "conversation_id", "conversations"),
    SameSplit("split_is_not_the_conversations"),
)
_FROM_FEEDBACK: Final = Resolves("feedback_ids_unresolved", "feedback_ids", "feedback")
_FROM_JUDGMENTS: Final = Resolves("judgment_ids_unresolved", "judgment_ids", "judgments")

ACROSS: Final[Mapping[str, tuple[Across, ...]]] = {
    "conversations": (
        _UNIQUE,
        OneSplit("users_in_two_splits", "user_key"),
        OneSplit("records_in_two_splits", "record_id"),
    ),
    "feedback": (_UNIQUE, *_FROM_CONVERSATIONS),
    "pairs": (
        _UNIQUE,
        OneSplit("prompts_in_two_splits", "prompt_id"),
        FoldedInOneSplit("folded_prompts_in_two_splits", "prompt"),
        *_FROM_CONVERSATIONS,
        _FROM_FEEDBACK,
        _FROM_JUDGMENTS,
    ),
    "unpaired": (
        _UNIQUE,
        OneSplit("prompts_in_two_splits", "prompt_id"),
        FoldedInOneSplit("folded_prompts_in_two_splits", "prompt"),
        Apart("prompts_side_by_side", "prompt_id"),
        *_FROM_CONVERSATIONS,
        _FROM_FEEDBACK,
    ),
    "rationales": (
        _UNIQUE,
        Resolves("pair_ids_unresolved", "pair_id", "pairs"),
        Quoted("quotes_not_in_pair"),
        *_FROM_CONVERSATIONS,
        _FROM_FEEDBACK,
        _FROM_JUDGMENTS,
    ),
    "rubrics": (
        _UNIQUE,
        Unique("duplicate_prompts", "prompt_id"),
        Resolves("pair_ids_unresolved", "pair_ids", "pairs"),
        SplitOfFeedback("feedback_of_another_split"),
        *_FROM_CONVERSATIONS,
        _FROM_FEEDBACK,
    ),
    "preferences": (_UNIQUE, *_FROM_CONVERSATIONS, _FROM_FEEDBACK),
    "responses": (_UNIQUE, *_FROM_CONVERSATIONS),
    "judgments": (
        _UNIQUE,
        Resolves("response_ids_unresolved", "response_ids", "responses"),
        OrderAgreement("order_agreement_share"),
        OrderAgreement("order_agreement_lowest", lowest=True),
        *_FROM_CONVERSATIONS,
    ),
    "ratings": (
        _UNIQUE,
        Resolves("response_ids_unresolved", "response_id", "responses"),
        *_FROM_CONVERSATIONS,
        _FROM_JUDGMENTS,
    ),
    "evaluation": (
        _UNIQUE,
        Unique("duplicate_prompts", "prompt_id"),
        HeldOut("prompts_in_training_pairs", "prompt_id", "pairs"),
        HeldOut("prompts_in_training_labels", "prompt_id", "unpaired"),
        *_FROM_CONVERSATIONS,
        _FROM_FEEDBACK,
    ),
    "quarantine": (_UNIQUE,),
}


COMPARED: Final = ("evidence_compared", "target_not_assistant", "not_said_by_user", "evidence_not_in_message")


def evidence_against(conversations: pl.DataFrame, feedback: pl.DataFrame) -> dict[str, int]:
    """Compares feedback with the turns it names, for the conversations at hand.

    Returns how many rows of `feedback` (columns `conversation_id`, `message_index`, `target_index`, `method`,
    `evidence`) were `evidence_compared`; of these, how many are about a turn that is not the assistant's
    (`target_not_assistant`), are said in a turn that is not the user's (`not_said_by_user`, reactions apart),
    or quote what does not stand at its offsets in the message (`evidence_not_in_message`). Adds up over
    parts.
    """
    roles = pl.col("messages").list.eval(pl.element().struct.field("role"))
    sides = feedback.join(conversations.select("id", "messages"), left_on="conversation_id", right_on="id")
    said = pl.col("messages").list.get(pl.col("message_index"), null_on_oob=True)
    rows = sides.select(
        "evidence",
        content=said.struct.field("content"),
        target=roles.list.get(pl.col("target_index"), null_on_oob=True).ne_missing("assistant"),
        said=said.struct.field("role").ne_missing("user") & (pl.col("method") != "reaction"),
    ).with_row_index("row")
    quotes = rows.select("row", "content", "evidence").filter(pl.col("evidence").list.len() > 0)
    quotes = quotes.explode("evidence").unnest("evidence")
    stands = pl.col("content").str.slice(pl.col("start"), pl.col("end") - pl.col("start")) == pl.col("text")
    return {
        "evidence_compared": rows.height,
        "target_not_assistant": int(rows.get_column("target").sum()),
        "not_said_by_user": int(rows.get_column("said").fill_null(True).sum()),
        "evidence_not_in_message": quotes.filter(~stands.fill_null(False)).get_column("row").n_unique(),
    }


def metric_names(table: str) -> frozenset[str]:
    """Every metric that an expectation on `table` may name."""
    contract = CONTRACTS[table]
    empty_rows = contract.measure(empty(table)).row()
    across = {check.metric for check in ACROSS[table]}
    return frozenset({*empty_rows, *across, *(COMPARED if table == "feedback" else ())})
