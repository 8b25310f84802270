"""Rationales that quote what was not said, name a place, copy a reply or argue for the other side are found out."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rationales.planted_rows import GOOD, PAIRS, RATIONALES, WANTED, as_pairs, as_rationales, pair
from rationales.praised_words import prefers_praised_words
from tilth.schemas import BadInput, ConfigError
from tilth.transforms.rationales.checks import FAULTS, Checks, faults, unrecovered, verbatim
from tilth.transforms.rationales.positions import names_position

CHOSEN: Final = (
    "Boil the eggs for 7 minutes, then put them into cold water.\n\nThey peel “easily” then, don't they?"
)
REJECTED: Final = (
    "I am afraid that I can not say how long an egg must boil; it depends on far too many things to tell."
)
EGGS: Final = pair("eggs", "How long do I boil an egg (medium)?", CHOSEN, REJECTED)
FITS: Final = (
    "The better reply gives a time and a way to peel; the weaker reply declines to say anything useful."
)


def about(**fields: Any) -> dict[str, Any]:
    return {"id": "r", "pair_id": EGGS["id"], "kind": "general", "text": FITS, **fields}


def fault(config: Checks = Checks(), **fields: Any) -> str | None:  # noqa: B008
    """The fault of one rationale about the eggs."""
    found = faults(as_rationales(about(**fields)), as_pairs(EGGS), config)
    return found.get_column("reason").item() if found.height else None


def quoted(side: str, quote: str) -> str | None:
    return fault(kind="specific", evidence=[{"side": side, "quote": quote}])


def judged_alone(rationales: pl.DataFrame, *, swapped: bool = False) -> pl.DataFrame:
    """What the judge says who sees only the rationale and the two replies."""
    sides = ("rejected", "chosen") if swapped else ("chosen", "rejected")
    texts = PAIRS.select(pair_id="id", **{s: pl.col(s).list.first().struct.field("content") for s in sides})
    rows = rationales.join(texts, on="pair_id").select("id", "text", *sides)
    return pl.DataFrame(
        [(id, prefers_praised_words(text, one, other)) for id, text, one, other in rows.iter_rows()],
        schema={"id": pl.String, "recovers_label": pl.Boolean},
        orient="row",
    )


def test_fifty_planted_faults_are_caught_and_fifty_good_rationales_pass() -> None:
    """Each planted rationale is set aside for what was planted in it, and no good one is."""
    first = faults(RATIONALES, PAIRS)
    passed = RATIONALES.join(first, on="id", how="anti")
    lost = pl.concat([first, unrecovered(passed, judged_alone(passed))])
    found = RATIONALES.select("id", "planted").join(lost, on="id", how="left")
    wrong = [row for row in found.iter_rows(named=True) if row["reason"] != WANTED[row["planted"]]]
    assert wrong == []
    counts = {None: 50, "wrong_side": 13, "invented_quote": 13, "position_leak": 12, "copy": 12}
    assert Counter(found.get_column("planted").to_list()) == counts
    assert len(set(RATIONALES.get_column("text").to_list())) == 100


def test_the_judge_of_these_tests_has_no_favourite_place() -> None:
    """With the replies swapped it says the opposite, or nothing both times."""
    said = judged_alone(RATIONALES).join(judged_alone(RATIONALES, swapped=True), on="id")
    assert said.filter(pl.col("recovers_label") == pl.col("recovers_label_right")).is_empty()


# Quotes


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("put them into cold water", "put them into cold water"),
        ("cold water. They peel", "cold water.\n\nThey peel"),
        ('They peel "easily" then', "They peel “easily” then"),
        ("don’t  they", "don't they"),
        ("“Boil the eggs”", "Boil the eggs"),
        ("'cold water'", "cold water"),
        ("boil the eggs", None),
        ("for 8 minutes", None),
        ("Boil eggs", None),
        ("water They", None),
        ("wa ter", None),
        ("", None),
        (' "" ', None),
        (".*", None),
    ],
)
def test_a_quote_is_found_but_for_white_space_and_quotation_marks(quote: str, found: str | None) -> None:
    """The exact span comes back; case, words and other characters count, and nothing is read as a pattern."""
    assert verbatim(quote, CHOSEN) == found


@given(st.text(min_size=1, max_size=60), st.data())
def test_any_part_of_a_text_is_verbatim_in_it(text: str, data: st.DataObject) -> None:
    """What `verbatim` returns always stands in the text, and any part of the text that is not blank is found."""
    start = data.draw(st.integers(0, len(text) - 1))
    quote = text[start : data.draw(st.integers(start + 1, len(text)))]
    assert verbatim(quote, text) == (quote if quote.strip() else None)
    loose = re.sub(r"\s+", "  \n", quote).replace('"', "”").replace("'", "’")
    assert (verbatim(loose, text) or "") in text
    assert bool(verbatim(loose, text)) == bool(quote.strip())


@given(st.integers(0, len(CHOSEN) - 1), st.integers(1, len(CHOSEN)))
def test_any_quote_from_the_cited_reply_passes(start: int, length: int) -> None:
    """Evidence of any length from the reply that it cites is no fault, unless it is blank."""
    quote = CHOSEN[start : start + length]
    assert quoted("chosen", quote) == (None if quote.strip() else "evidence_not_found")


def test_evidence_of_the_other_side_is_not_found() -> None:
    """In every good rationale, citing the other reply for a quote is caught; the detail says where it does stand."""
    swap = pl.element().struct.with_fields(
        pl.element().struct.field("side").replace({"chosen": "rejected", "rejected": "chosen"}).alias("side")
    )
    with_quotes = GOOD.filter(
        pl.col("evidence").list.eval(pl.element().struct.field("side") != "prompt").list.any()
    )
    found = faults(with_quotes.with_columns(pl.col("evidence").list.eval(swap)), PAIRS)
    assert found.get_column("id").to_list() == with_quotes.get_column("id").to_list()
    assert set(found.get_column("reason")) == {"evidence_not_found"}
    assert found.get_column("detail").str.contains("but in (chosen|rejected)$").all()


def test_evidence_of_an_unknown_side_or_none_at_all_is_not_found() -> None:
    """A model cites a reply or the request; specific rationales and judgments must cite something."""
    assert quoted("user", "Boil the eggs") == "evidence_not_found"
    assert fault(kind="specific") == fault(kind="judgment") == "evidence_not_found"
    assert fault(kind="general") is fault(kind="option") is None


@pytest.mark.parametrize(
    ("said", "stands"),
    [
        ('It says "cold water." and stops, which helps.', True),
        ('It says "Boil the eggs," and how long.', True),
        ("It says “Boil the eggs … cold water”, which helps.", True),
        ("It says ‘don't they’ at the end, which is odd.", True),
        ("It says 'Boil the eggs', and the eggs' shells come off.", True),
        ("It says `7 minutes`, which is what was asked for.", True),
        ('It is too "absolutist" for the users\' taste, and 5" long.', True),
        ("As asked (“How long do I boil an egg”), it gives a time.", True),
        ('It says "warm water", which is not helpful.', False),
        ("It says “Boil the eggs … warm water”, which fails.", False),
        ("It says `8 minutes or more`, which is too long.", False),
        ("It says ‘peel them at once’, which is hard.", False),
        ("It says 'peel them at once', which is hard.", False),
        ("It says „peel them at once“, which is hard.", False),
        ("It says «peel them at once», which is hard.", False),
        ("It prints\n```text\nBoil the eggs for\n 7 minutes\n```\nwhich is clear.", True),
        ("It prints\n```python\nboil(eggs, minutes = 8)\n```\nwhich is code.", False),
    ],
)
def test_words_in_quotation_marks_stand_somewhere(said: str, stands: bool) -> None:
    """A quotation inside the text is looked up in replies and request; a single word in marks is none."""
    assert fault(text=said) == (None if stands else "evidence_not_found")


# Positions


@pytest.mark.parametrize(
    "leak",
    [
        "The first answer is better",
        "the second, longer response rambles",
        "Response B is shorter",
        "Both work, but Reply 2 is kinder",
        "assistant #1 wins",
        "Reply two has no dates",
        "It is better than Answer (A)",
        "Responses A and B differ",
        "answers 1 and 2 differ",
        "answer 2 omits the date",
        "Option A is kinder",
        "candidate 1 has the date",
        "the second option explains it",
        "the latter is vague",
        "unlike the former, it is short",
        "the one above is right",
        "the reply on the left is right",
        "the reply below has no code",
        "the above response is right",
        "the response shown first is right",
        "the first of the two replies is right",
        "of both replies, the second one is right",
        "The second one is better",
        "the first is clearly better",
        "First response is right",
        "it fails, while A is better",
        "the last reply is right",
        "in short, the second is better",
        "Model A's tone is right",
        "the 2nd reply is right",
        "the THIRD answer is right",
    ],
)
def test_a_named_place_is_seen(leak: str) -> None:
    """Ordinals, letters, numbers and directions of replies name a place."""
    assert names_position(leak)
    assert fault(text=f"{leak}. {FITS}") == fault(text=f"{FITS} {leak}.") == "names_position"


@pytest.mark.parametrize(
    "said",
    [
        "the first step of the better reply is wrong",
        "the second paragraph of the better reply has the date",
        "the second paragraph answers the question",
        "The better reply first answers the question, then explains",
        "First answer the question, then explain, is what it does",
        "Plan B and vitamin A are both named",
        "type 2 diabetes and hepatitis B are named",
        "its first answer was already right",
        "the right answer 4 is reached",
        "the final answer is 42",
        "the correct answer B is named",
        "the other reply is vague",
        "the latter half of it is padding",
        "the former employer is named",
        "the first of the two steps is missing",
        "it compares two methods and prefers the second",
        "the first thing it says is wrong",
        "it is a reply one would expect of an expert",
        "it answers 3 questions",
        "a response 2 sentences long",
        "the right reply in a hard moment",
        "the top of the list is right",
        "the answer below the average",
        "it answers. A date is given",
        "World War II and step 2 are explained",
    ],
)
def test_ordinals_of_other_things_name_no_place(said: str) -> None:
    """Steps, paragraphs, plans and numbers have their places too, and they may be named."""
    assert not names_position(said)
    assert fault(text=f"{said}. {FITS}") is None


def test_what_the_request_calls_option_b_may_be_called_so() -> None:
    """Loose labels count as positions only where the request and the replies do not use them; strict ones always."""
    quiz = "Which is it? Option A: oxygen. Option B: carbon dioxide."
    assert not names_position("It rightly picks option B, since plants take up carbon dioxide", quiz)
    assert names_position("It rightly picks option C, since plants take up carbon dioxide", quiz)
    assert names_position("Response B is right", "Compare Response A and Response B")


def test_an_ordinal_without_a_noun_is_a_reply_where_nothing_else_was_named() -> None:
    """What begins with "the second" can mean only a reply; later in a text it may mean anything."""
    assert names_position("The second gives no dates")
    assert not names_position("It names two towns. The second gives its name to a cheese")


def test_quotation_marks_hide_no_position() -> None:
    """A place in quotation marks that the replies do not say is a leak, or a quotation of nothing."""
    assert names_position('so "Response A" it is')
    assert fault(text=f"{FITS} It is clear that 'B' is better.") == "names_position"
    assert fault(text=f'"Response A" it is. {FITS}') == "evidence_not_found"


@settings(deadline=None)
@given(
    st.sampled_from(GOOD.get_column("id").to_list()),
    st.sampled_from(["Response B", "the first answer", "the latter"]),
    st.sampled_from(["This is why {leak} is preferable. {text}", "{text} In short, {leak} is preferable."]),
)
def test_a_leak_planted_in_a_good_rationale_is_caught(id: str, leak: str, frame: str) -> None:
    """Before or after all that is right about a rationale, a named place is found."""
    (row,) = GOOD.filter(pl.col("id") == id).iter_rows(named=True)
    text = frame.format(leak=leak, text=row["text"])
    assert faults(as_rationales({**row, "text": text}), PAIRS)["reason"].to_list() == ["names_position"]


def test_a_place_that_a_reply_names_itself_may_be_quoted() -> None:
    """What stands in a quotation is the reply's own; the same words outside of it are a leak."""
    drill = pair(
        "drill",
        "Was I right?",
        "Your second answer is right, the first answer is not.",
        "I can't say, sadly.",
    )
    rows = as_rationales(
        *(
            {
                "id": id,
                "pair_id": drill["id"],
                "kind": "general",
                "text": f"It settles that {words} a clear line.",
            }
            for id, words in (
                ("quoted", '"the first answer is not" right,'),
                ("own", "the first answer is not right,"),
            )
        )
    )
    assert faults(rows, as_pairs(drill)).rows() == [
        ("own", "names_position", "calls a reply by its place or label")
    ]


# Copies, and texts that say nothing


@pytest.mark.parametrize("reply", [CHOSEN, REJECTED])
def test_most_of_a_reply_is_no_rationale(reply: str) -> None:
    """Copied as it is, in another case, behind a few words, or as one long quotation, it is found."""
    for text in (
        reply,
        reply.upper(),
        f"It is right that {reply}",
        f'"{REJECTED}" it says.',
        reply.replace(" ", "\n"),
    ):
        assert fault(text=text) == "copies_reply"


def test_a_short_reply_can_be_copied_too() -> None:
    """A rationale of fewer words than a run has is a copy where all of it stands in a reply."""
    short = pair(
        "capital",
        "What is the capital of Australia?",
        "It is Canberra, in the south-east.",
        "Sydney, I think.",
    )
    rows = as_rationales(
        {"id": "r", "pair_id": short["id"], "kind": "general", "text": "Canberra, in the south-east"}
    )
    assert faults(rows, as_pairs(short)).get_column("reason").to_list() == ["copies_reply"]


@pytest.mark.parametrize(("share", "found"), [(0.18, 0), (0.69, 12)])
def test_good_rationales_and_copies_lie_far_apart(share: float, found: int) -> None:
    """The share that may be copied can be set anywhere from .18 to .69: no good rationale and every copy is found."""
    rows = RATIONALES.filter(pl.col("planted").is_null() if found == 0 else pl.col("planted") == "copy")
    copies = faults(rows, PAIRS, Checks(max_copied=share)).filter(pl.col("reason") == "copies_reply")
    assert copies.height == found


@given(st.integers(0, 12), st.integers(8, 30))
def test_any_long_run_of_a_reply_is_a_copy(start: int, length: int) -> None:
    """Whatever part of a reply a rationale consists of, it is set aside; as a short one or as a copy."""
    assert fault(text=" ".join(REJECTED.split()[start : start + length])) in {"copies_reply", "empty"}


def test_naming_what_a_reply_does_is_no_copy() -> None:
    """Single words and short phrases of a reply are what rationales are made of."""
    text = "The better reply says to boil the eggs for 7 minutes and to use cold water, so that they peel easily."
    assert fault(text=text) is None
    assert fault(Checks(copied_words=2, max_copied=0.2), text=text) == "copies_reply"


@pytest.mark.parametrize("text", ["", "  \n ", "It is better.", "Better."])
def test_a_text_that_says_nothing_is_empty(text: str) -> None:
    """Blank and very short texts are no rationales, whatever they quote."""
    assert fault(kind="specific", text=text, evidence=[{"side": "chosen", "quote": "cold water"}]) == "empty"


# All of them


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_the_order_of_rows_and_duplicates_change_no_fault(seed: int) -> None:
    """Each row is judged by itself: shuffled or repeated, the same ids have the same faults."""
    order = RATIONALES.sample(fraction=1.0, shuffle=True, seed=seed)
    shuffled = pl.concat([order, order.head(10)])
    found = faults(shuffled, PAIRS.sample(fraction=1.0, shuffle=True, seed=seed)).unique()
    assert found.sort("id").equals(faults(RATIONALES, PAIRS).sort("id"))


def test_details_hold_no_words_of_anybody() -> None:
    """A detail counts; it repeats neither what was quoted nor what a reply says."""
    secret = [{"side": "chosen", "quote": "my password hunter2"}]
    texts = ("hunter2", FITS, f'{FITS} "my password hunter2"', f"{FITS} Response B hunter2", REJECTED)
    rows = [about(text=text, evidence=secret * (text == FITS)) for text in texts]
    found = faults(as_rationales(*rows), as_pairs(EGGS))
    assert found.height == len(texts)
    told = " ".join(found.get_column("detail"))
    assert not {"hunter2", "password", "afraid", "depends"} & set(told.split())


def test_what_no_model_wrote_is_not_checked() -> None:
    """A user may say "the first answer", and factors copy nothing."""
    rows = as_rationales(
        *(about(id=kind, kind=kind, text="The first answer.") for kind in ("user_complaint", "factors"))
    )
    assert faults(rows, as_pairs()).schema == FAULTS
    assert faults(rows, as_pairs()).is_empty()


def test_a_rationale_about_an_unknown_pair_is_a_mistake_of_the_caller() -> None:
    """Without its pair nothing can be checked, and nothing passes unchecked."""
    with pytest.raises(BadInput, match="1"):
        faults(as_rationales(about()), as_pairs())


@pytest.mark.parametrize(
    "field", [{"min_chars": 0}, {"copied_words": 0}, {"max_copied": 1.5}, {"max_quoted": -0.1}]
)
def test_settings_that_cannot_be_meant_are_refused(field: dict[str, Any]) -> None:
    """Lengths are positive and shares lie between 0 and 1."""
    with pytest.raises(ConfigError, match=next(iter(field))):
        Checks(**field)


@pytest.mark.parametrize(
    ("verdicts", "kept"),
    [
        ([True], True),
        ([False], False),
        ([None], False),
        ([], False),
        ([True, False], False),
        ([True, None], False),
    ],
)
def test_only_a_label_that_comes_back_passes(verdicts: list[bool | None], kept: bool) -> None:
    """Lost, undecided, unasked and contradicted are all not recovered."""
    schema = {"id": pl.String, "recovers_label": pl.Boolean}
    recovered = pl.DataFrame([("r", verdict) for verdict in verdicts], schema=schema, orient="row")
    found = unrecovered(as_rationales(about(), about()), recovered)
    assert found.schema == FAULTS
    assert found.get_column("reason").to_list() == ([] if kept else ["label_not_recovered"])
