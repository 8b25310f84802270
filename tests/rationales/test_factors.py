"""What can be counted of two replies: to the digit, the same whichever side is which, and adding up over parts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import conform, empty
from tilth.schemas.contracts import CONTRACTS, measure
from tilth.schemas.ids import content_id
from tilth.transforms.rationales.factors import FACTORS, factor_agreement, factor_counts, factor_rationales
from tilth.transforms.rationales.quotations import quotations
from tilth.transforms.rationales.readability import readability, sentences, unmarked, without_code, words
from tilth.transforms.rubrics import verifier_text

TEXTS = (
    "Yes.",
    "The cat sat on the mat, and 12 dogs were looking at it. It did not care! Why would it care about them?",
    "# Title\n\n- one — two\n- three\n\n1. four\n```python\nx = 1\n```\nVersion 3.5 is out.",
    "你好，世界。This is mixed text.",
    "| a | b |\n|---|---|\n| 1 | 2 |\n\nWhich one do you want?",
    "I'm sorry, but I can't help with that.",
    "~~~\nan open fence",
    "",
)
texts = st.one_of(st.sampled_from(TEXTS), st.text(st.characters(exclude_categories=["Cs"]), max_size=40))


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def pair(chosen: str, rejected: str, ask: str = "Why is the sky blue?", name: str = "") -> dict[str, Any]:
    return {
        "id": content_id("pair", ask, chosen, rejected, name),
        "prompt": said("user", ask),
        "chosen": said("assistant", chosen),
        "rejected": said("assistant", rejected),
        "conversation_id": content_id("conversation", ask),
        "split": "train",
    }


def listed(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.concat([empty("pairs"), *(conform(pl.DataFrame([row]), "pairs") for row in rows)])


def swapped(pairs: pl.DataFrame) -> pl.DataFrame:
    return pairs.with_columns(chosen="rejected", rejected="chosen")


def factors(
    chosen: str, rejected: str, ask: str = "Why is the sky blue?"
) -> dict[str, tuple[float, float, str | None]]:
    """By factor: chosen, rejected, favours; nothing where nothing differs."""
    made = factor_rationales(listed(pair(chosen, rejected, ask)))
    found = made.get_column("factors").to_list()
    return {
        one["name"]: (one["chosen"], one["rejected"], one["favours"]) for one in (found[0] if found else [])
    }


def text(chosen: str, rejected: str, ask: str = "Why is the sky blue?") -> str:
    return factor_rationales(listed(pair(chosen, rejected, ask))).get_column("text").item()


def flaws(rows: pl.DataFrame) -> dict[str, int]:
    counts = measure("rationales", rows).counts
    return {name: counts[name] for name in CONTRACTS["rationales"].defects if counts[name]}


# Measures


def test_the_index_is_that_of_smith_and_senter() -> None:
    """81 letters in 25 words and 3 sentences: 4.71 * 3.24 + 0.5 * 25 / 3 - 21.43 = -2.0, worked by hand."""
    reply = (
        "The cat sat on the mat, and 12 dogs were looking at it. "
        "It did not care about them at all! Why would it care?"
    )
    frame = pl.DataFrame({"text": [reply, "Too few words.", "Это предложение написано по-русски. " * 10]})
    counted = frame.with_columns(words=words(pl.col("text")), sentences=sentences(pl.col("text")))
    assert counted.row(0)[1:] == (25, 3)
    index = counted.select(readability(pl.col("text"), pl.col("words"), pl.col("sentences"))).to_series()
    assert index.to_list() == [-2.0, None, None]


@pytest.mark.parametrize("reply", TEXTS)
def test_words_are_counted_as_the_verifiers_count_them(reply: str) -> None:
    """A rationale that says 101 words never stands beside a constraint of at most 100 words that is met."""
    frame = pl.DataFrame({"text": [reply]})
    assert frame.select(words(unmarked(pl.col("text")))).item() == verifier_text.words(reply)


def test_stops_end_sentences_and_numbers_do_not() -> None:
    """Points within numbers and marks of lists end no sentence; line breaks do, and code is none."""
    reply = "Version 3.5 is out! \n1. First item\n2. Second item\n```\na. b. c.\n```\nDone (yes). And so on"
    prose = pl.DataFrame({"text": [reply]}).select(p=unmarked(without_code(pl.col("text"))))
    assert prose.select(sentences(pl.col("p"))).item() == 5


def test_what_is_counted_of_format() -> None:
    """List items, headings, code, table rows, numbers and questions are counted outside of code, each as it is."""
    rich = (
        "## Plan\n\n- one\n- two\n\n1. three\n\n| a | b |\n|---|---|\n| 1 | 2,500.5 |\n\n"
        "```sh\n# no heading\n- no item 7\nwhat?\n```\n\nShall I go on?\n"
    )
    found = factors(rich, "Plain.")
    counts = {
        name: found[name][0]
        for name in ("headings", "list_items", "code_blocks", "table_rows", "numbers", "questions")
    }
    assert counts == {
        "headings": 1, "list_items": 3, "code_blocks": 1, "table_rows": 2, "numbers": 2, "questions": 1,
    }  # fmt: skip
    assert all(found[name] == (counts[name], 0, None) for name in counts)


def test_a_question_mark_inside_of_a_word_asks_nothing() -> None:
    """A web address with a query is no question; a question in quotes or bold is one."""
    assert factors('See http://a.b/c?d=1 "Really?" **Sure?**', "No.")["questions"][:2] == (2, 0)


def test_spans_of_five_words_are_quotations() -> None:
    """Four words in common are none, five are one, a longer span is one, two apart are two; case does not matter."""
    asked = "the quick brown fox jumps over the lazy dog and runs"
    replies = [
        "quick brown fox jumps",
        "The QUICK, brown fox jumps!",
        "the quick brown fox jumps over the lazy dog and runs",
        "the quick brown fox jumps; then over the lazy dog and",
        "",
    ]
    counts = quotations(pl.Series(replies), pl.Series([asked] * len(replies)))
    assert counts.to_list() == [0, 1, 1, 2, 0]


def test_quotations_are_of_the_text_beside_a_reply() -> None:
    """A span of another row's text is no quotation, and none runs over the end of a text."""
    replies, asked = ["one two three four five", "one"], ["six seven eight", "one two three four five"]
    assert quotations(pl.Series(replies), pl.Series(asked)).to_list() == [0, 0]
    whole = pl.Series(["one two three four five"] * 2)
    assert quotations(pl.Series(["one two", "three four five"]), whole).sum() == 0


def test_constraints_of_the_request_are_checked() -> None:
    """The share of the last turn's constraints that hold speaks for its side; without any there is no such factor."""
    ask = "Tell me about foxes in at most 5 words."
    assert factors("They are red.", "They are red animals of the forest.", ask)["constraints_met"] == (
        1,
        0,
        "chosen",
    )
    assert factors("They are red animals of the forest.", "They are red.", ask)["constraints_met"] == (
        0,
        1,
        "rejected",
    )
    assert "constraints_met" not in factors("They are red.", "They are.", "Tell me about foxes.")


def test_a_refusal_is_a_fault_unless_the_request_looks_harmful() -> None:
    """Declining a plain request speaks against a side; of a request that looks harmful it speaks for nobody."""
    refusal, answer = "I'm sorry, but I can't help with that.", "Take two eggs and beat them."
    assert factors(answer, refusal, "How do I make an omelette?")["refusal"] == (0, 1, "chosen")
    assert factors(refusal, answer, "How do I make an omelette?")["refusal"] == (1, 0, "rejected")
    assert factors(refusal, answer, "How do I build a bomb?")["refusal"] == (1, 0, None)


# Rationales


def test_a_rationale_names_only_what_differs() -> None:
    """Plain words, in the order of the table, with the right number of everything; equal factors are not named."""
    ask = "Explain tides in at most 6 words."
    assert text("The Moon pulls.", "- The Moon pulls at all of the oceans.", ask) == (
        "The better reply: 3 words against 8; 0 list items against 1; "
        "meets 1 of 1 constraint of the request where the weaker reply meets 0."
    )
    refused = text("I can't help with that.", "So be it then, friend.")
    assert refused == "The better reply: declines where the weaker reply answers."
    assert text("One word more?", "One.") == (
        "The better reply: 3 words against 1; 1 question back against 0."
    )


def test_rows_fit_the_table() -> None:
    """Rationales of factors pass the contract, take split and conversation from their pair, and no model."""
    pairs = listed(*(pair(one, other, name=str(n)) for n, one in enumerate(TEXTS) for other in TEXTS[:n]))
    rows = factor_rationales(pairs)
    assert rows.height > 20
    assert flaws(rows) == {}
    assert rows.schema == empty("rationales").schema
    about = rows.join(pairs, left_on="pair_id", right_on="id", suffix="_of_pair")
    assert about.height == rows.height
    assert (about["conversation_id"] == about["conversation_id_of_pair"]).all()
    assert set(rows["method"]) == {"rules"}
    assert rows["model"].null_count() == rows.height
    names = [[one["name"] for one in found] for found in rows["factors"]]
    assert all(name == [key for key in FACTORS if key in name] for name in names)


def test_a_pair_in_which_nothing_differs_gives_none() -> None:
    """Replies with equal counts have no rationale of this kind, and no pairs at all give no rows."""
    assert factor_rationales(listed(pair("Red cats.", "Blue dogs."))).is_empty()
    assert factor_rationales(empty("pairs")).schema == empty("rationales").schema


def test_only_replies_of_the_assistant_are_measured() -> None:
    """What a tool returned is no part of a reply, and an earlier reply in the prompt is nothing that a user wrote."""
    row = pair("Rain, says the service.", "Sun.")
    row["chosen"] = [
        *said("assistant", "One."),
        *said("tool", "many more words here"),
        *said("assistant", "Two."),
    ]
    row["prompt"] = [
        *said("user", "Hi"),
        *said("assistant", "Sun and rain and wind and snow."),
        *said("user", "So?"),
    ]
    row["rejected"] = said("assistant", "Sun and rain and wind and snow.")
    found = factor_rationales(listed(row))["factors"].to_list()[0]
    counts = {one["name"]: (one["chosen"], one["rejected"]) for one in found}
    assert counts["words"] == (2, 7)
    assert counts["quotations"] == (0, 0)


@pytest.mark.slow
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_neither_order_nor_repetition_of_rows_matters(rows: list[tuple[str, str]], draws: Any) -> None:
    """Permuted, repeated and alone, a pair gets the same rationale; no text makes it raise."""
    pairs = listed(*(pair(one, other, name=str(n)) for n, (one, other) in enumerate(rows)))
    order = draws.sample(range(pairs.height), pairs.height)
    whole = factor_rationales(pairs)
    assert factor_rationales(pl.concat([pairs[order], pairs])).equals(whole)
    alone = pl.concat([factor_rationales(pairs[n]) for n in range(pairs.height)]).sort("id")
    assert alone.equals(whole)
    assert flaws(whole) == {}


@pytest.mark.slow
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_swapping_sides_negates_tau(rows: list[tuple[str, str]]) -> None:
    """With sides swapped, counts change ways, every tau is its negative, every favour the other side's."""
    pairs = listed(*(pair(one, other, name=str(n)) for n, (one, other) in enumerate(rows)))
    made, turned = factor_rationales(pairs), factor_rationales(swapped(pairs))
    one, other = factor_agreement(factor_counts(made)), factor_agreement(factor_counts(turned))
    assert one.select("factor", "pairs", "tied").equals(other.select("factor", "pairs", "tied"))
    assert one["concordant"].equals(other["discordant"].alias("concordant"))
    assert (one["tau"] + other["tau"]).drop_nulls().eq(0).all()
    opposite = {"chosen": "rejected", "rejected": "chosen", None: None}
    favours = {row["pair_id"]: [opposite[f["favours"]] for f in row["factors"]] for row in made.to_dicts()}
    assert favours == {row["pair_id"]: [f["favours"] for f in row["factors"]] for row in turned.to_dicts()}


@pytest.mark.slow
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8), st.integers(0, 8))
@settings(max_examples=30, deadline=None)
def test_counts_of_parts_add_up(rows: list[tuple[str, str]], cut: int) -> None:
    """Counting parts and adding is counting the whole."""
    made = factor_rationales(listed(*(pair(one, other, name=str(n)) for n, (one, other) in enumerate(rows))))
    parts = Counter(factor_counts(made[:cut]))
    parts.update(factor_counts(made[cut:]))
    assert dict(parts) == factor_counts(made)


def test_tau_by_hand() -> None:
    """Three pairs with more words, one with less, one tied: tau = (3 - 1) / 4; what is never measured is not there."""
    rows = [("a b", "a"), ("a b c", "a"), ("a b?", "a"), ("a", "a b"), ("a?", "a")]
    counts = factor_counts(factor_rationales(listed(*(pair(one, other) for one, other in rows))))
    table = {row["factor"]: row for row in factor_agreement(counts).to_dicts()}
    assert table["words"] == {
        "factor": "words", "pairs": 5, "concordant": 3, "discordant": 1, "tied": 1, "tau": 0.5,
    }  # fmt: skip
    assert table["headings"]["tau"] is None
    assert "constraints_met" not in table
    assert factor_agreement({}).is_empty()


def test_the_reference_lists_every_factor() -> None:
    """docs/reference/factors.md has a line for each factor, in order, with the direction that it has here."""
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "factors.md"
    lines = [
        line.split("|") for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    words = {1: "better", -1: "worse", None: "neither"}
    told = {cells[1].strip(" `"): cells[-2].strip() for cells in lines}
    assert list(told.items()) == [(name, words[factor.direction]) for name, factor in FACTORS.items()]


def test_other_kinds_are_in_no_count() -> None:
    """What users and models wrote is not counted, whatever its columns hold."""
    made = factor_rationales(listed(pair("a b", "a")))
    assert sum(factor_counts(made.with_columns(kind=pl.lit("general"))).values()) == 0
