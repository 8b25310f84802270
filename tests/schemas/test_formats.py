"""Training formats: the exact columns, whole JSON, messages that `datasets` reads, and no label turned round."""

from __future__ import annotations

import json
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import PL_MESSAGES, BadInput, conform, empty, fingerprint
from tilth.schemas.formats import FORMATS
from tilth.schemas.formats.pairs import preferences
from tilth.schemas.formats.rationales import rationale_dpo, rationale_sft
from tilth.schemas.formats.rubrics import grpo_rubric, healthbench
from tilth.schemas.ids import content_id

ODD: Final = 'He said "no";\n\\ {"a": [1]} \u2028 🌱 </s> [INST]'
MESSAGES: Final = {"prompt", "chosen", "rejected", "completion", "output", "improved", "prompt_aligned"} | {
    "prompt_misaligned",
    "messages",
    "context",
}


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def criterion(
    description: str, weight: float, program: str | None = None, title: str | None = "Short"
) -> dict[str, Any]:
    return {
        "id": content_id(description),
        "title": title,
        "description": description,
        "weight": weight,
        "kind": "hard_rule",
        "check": "program" if program else "judge",
        "program": program,
        "tags": ["constraint"],
        "source": "prompt",
        "feedback_ids": [],
        "pass_rate": None,
        "discrimination": None,
    }


def rubrics(*criteria: list[dict[str, Any]], prompt: list[dict[str, str]] | None = None) -> pl.DataFrame:
    rows = [
        {
            "id": content_id("rubric", str(n)),
            "prompt_id": content_id("prompt", str(n)),
            "prompt": prompt or [said("user", f"Why {n}?")],
            "criteria": listed,
            "conversation_id": content_id("c", str(n)),
            "method": "rules",
            "split": "train",
        }
        for n, listed in enumerate(criteria)
    ]
    return conform(pl.DataFrame(rows), "rubrics")


def pair(n: int, chosen: str = "Good.", rejected: str = "Bad.") -> dict[str, Any]:
    return {
        "id": content_id("pair", str(n)),
        "prompt_id": content_id("prompt", str(n)),
        "prompt": [said("system", "Be brief."), said("user", f"Why {n}?")],
        "chosen": [said("assistant", chosen)],
        "rejected": [said("assistant", rejected)],
        "margin": 1.5,
        "split": "train",
    }


def pairs(*rows: dict[str, Any]) -> pl.DataFrame:
    return conform(pl.DataFrame(rows), "pairs") if rows else empty("pairs")


def labelled(n: int, reply: str = "Good.", label: bool = True, ask: int | None = None) -> dict[str, Any]:
    about = n if ask is None else ask
    return {
        "id": content_id("unpaired", str(n)),
        "prompt_id": content_id("prompt", str(about)),
        "prompt": [said("user", f"Why {about}?")],
        "completion": [said("assistant", reply)],
        "label": label,
        "split": "train",
    }


def unpaired(*rows: dict[str, Any]) -> pl.DataFrame:
    return conform(pl.DataFrame(rows), "unpaired") if rows else empty("unpaired")


def rationale(n: int, kind: str = "general", **more: Any) -> dict[str, Any]:
    text = more.get("text", "The better reply says why.")
    return {
        "id": content_id("rationale", str(n), kind, text, str(more)),
        "pair_id": content_id("pair", str(n)),
        "kind": kind,
        "text": text,
        "split": "train",
        **more,
    }


def rationales(*rows: dict[str, Any]) -> pl.DataFrame:
    whole = [{"side": None, "order": None, "rank": None, **row} for row in rows]
    schema = {"order": pl.List(pl.Int32), "rank": pl.Int32, "side": pl.String}
    return conform(pl.DataFrame(whole, schema_overrides=schema), "rationales")


def tables() -> dict[str, pl.DataFrame]:
    """A few rows of everything, with text that a careless encoder would trip over."""
    program = '{"arguments":{"phrases":["ä \\"b\\""]},"verifier":"contains"}'
    return {
        "rubrics": rubrics(
            [criterion(f"Says {ODD}", 1.0, program), criterion("Invents facts.", -0.5, title=None)],
            [criterion("Is kind.", 2.5)],
        ),
        "pairs": pairs(pair(0, f"Good. {ODD}"), pair(1), pair(2)),
        "rationales": rationales(
            rationale(0, "user_complaint", text=f"No. {ODD}"),
            rationale(0, "specific", order=[1, 0]),
            rationale(1, "judgment", side="rejected", text="It does not say why."),
            rationale(2, "factors", text="The better reply: 1 word against 2."),
        ),
        "unpaired": unpaired(labelled(0, f"Good. {ODD}"), labelled(1), labelled(2)),
        "ratings": conform(
            pl.DataFrame([{**row, "rating": 4.5} for row in (labelled(0), labelled(1))]).drop("label"),
            "ratings",
        ),
    }


# All formats


FORMS: Final = [(name, table) for name, form in FORMATS.items() for table in form.of]


def given_for(name: str, table: str) -> dict[str, pl.DataFrame]:
    return {each: tables()[each] for each in (table, *FORMATS[name].of[table].needs)}


@pytest.mark.parametrize(("name", "table"), FORMS)
def test_every_format_is_read_by_datasets(name: str, table: str) -> None:
    """Messages arrive as lists of role and content alone, every prompt ends with a user, text is unharmed."""
    import datasets

    given = given_for(name, table)
    before = {each: frame.clone() for each, frame in given.items()}
    rows, left_out = FORMATS[name].of[table].make(table, given)
    assert rows.height + sum(left_out.values()) >= given[table].height
    assert all(given[each].equals(frame) for each, frame in before.items())
    read = datasets.Dataset.from_polars(rows)
    assert read.num_rows == rows.height > 0
    string = ("string", "large_string")
    for column in MESSAGES & set(rows.columns):
        feature = read.features[column]
        one = feature if isinstance(feature, dict) else feature.feature
        assert {key: value.dtype in string for key, value in one.items()} == {"role": True, "content": True}
    listed = read.to_list()
    assert all(
        row[chat][-1]["role"] == "user" for row in listed for chat in {"prompt", "context"} & row.keys()
    )
    assert listed == rows.to_dicts()


@pytest.mark.parametrize(("name", "table"), FORMS)
def test_every_format_of_nothing_is_nothing(name: str, table: str) -> None:
    """Tables without rows give the format's columns and no rows."""
    given, projection = given_for(name, table), FORMATS[name].of[table]
    made = projection.make(table, {each: frame.clear() for each, frame in given.items()})
    assert (made.rows.height, made.left_out) == (0, {})
    assert made.rows.schema == projection.make(table, given).rows.schema


@pytest.mark.parametrize(("name", "table"), FORMS)
def test_the_order_of_rows_decides_nothing(name: str, table: str) -> None:
    """Permuted tables, and other tables that hold a row twice, give the same rows."""
    given, projection = given_for(name, table), FORMATS[name].of[table]
    reversed_ = {each: frame.reverse() for each, frame in given.items()}
    twice = {each: frame if each == table else pl.concat([frame, frame]) for each, frame in given.items()}
    rows, other, more = (
        sorted(map(fingerprint, placeless(projection.make(table, frames).rows)))
        for frames in (given, reversed_, twice)
    )
    assert other == rows
    assert more == rows


def test_a_format_that_holds_every_row_leaves_none_out() -> None:
    """Many rows of a format without any reason to leave one out are all there."""
    listed = rationales(*(rationale(n) for n in range(400)))
    known = pairs(*(pair(n) for n in range(400)))
    made = (
        FORMATS["rationale-sft"].of["rationales"].make("rationales", {"rationales": listed, "pairs": known})
    )
    assert (made.rows.height, made.left_out) == (400, {})


def placeless(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows without the place in the file that verl's have."""
    return [{key: value for key, value in row.items() if key != "extra_info"} for row in rows.to_dicts()]


def test_names_and_tables_are_known() -> None:
    """A format is known by its own name, reads tables that there are, and says in one line what it is for."""
    for name, form in FORMATS.items():
        assert name == form.name
        assert all(empty(table).is_empty() for table in form.of)
        assert all(empty(table).is_empty() for one in form.of.values() for table in one.needs)
        assert form.describe
        assert "\n" not in form.describe


# Rubrics


def test_a_rubric_for_reward_functions() -> None:
    """The list of Rubrics as Rewards, the JSON of open-instruct, and what programs check, all of the same criteria."""
    program = '{"arguments":{"limit":100},"verifier":"max_words"}'
    made = grpo_rubric(
        rubrics([criterion("At most 100 words.", 1.0, program), criterion("Rude.", -0.5, title=None)])
    )
    (row,) = made.to_dicts()
    assert made.columns == ["id", "prompt", "rubric", "ground_truth", "dataset", "programs", "split"]
    assert row["rubric"] == [
        {"title": "Short", "description": "At most 100 words.", "weight": 1.0},
        {"title": "", "description": "Rude.", "weight": -0.5},
    ]
    assert json.loads(row["ground_truth"]) == {
        "query": "Why 0?",
        "rubrics": [
            {"description": "At most 100 words.", "weight": 1.0},
            {"description": "Rude.", "weight": -0.5},
        ],
    }
    assert json.loads(row["programs"]) == [{"program": json.loads(program), "weight": 1.0}]
    assert (row["dataset"], row["prompt"], row["split"]) == ("rubric", [said("user", "Why 0?")], "train")


def test_a_query_of_several_turns_says_who_speaks() -> None:
    """The query of a conversation is all of it, each turn after its role."""
    turns = [said("user", "Hi"), said("assistant", "Hello."), said("user", "Why?")]
    (truth,) = grpo_rubric(rubrics([criterion("Kind.", 1.0)], prompt=turns))["ground_truth"]
    assert json.loads(truth)["query"] == "user: Hi\n\nassistant: Hello.\n\nuser: Why?"


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(0.001, 1e6))
@settings(max_examples=60, deadline=None)
def test_json_survives_any_text(text: str, weight: float) -> None:
    """Whatever a criterion or a prompt says, the JSON columns parse back to it."""
    program = json.dumps({"arguments": {"phrases": [text]}, "verifier": "contains"}, ensure_ascii=False)
    (row,) = grpo_rubric(rubrics([criterion(text, weight, program)], prompt=[said("user", text)])).to_dicts()
    truth = json.loads(row["ground_truth"])
    assert truth == {"query": text, "rubrics": [{"description": text, "weight": weight}]}
    assert json.loads(row["programs"])[0]["program"]["arguments"]["phrases"] == [text]


def test_criteria_of_healthbench() -> None:
    """Descriptions are criteria and weights are points, with their sign and tags."""
    (row,) = healthbench(rubrics([criterion("Kind.", 5.0), criterion("Rude.", -2.0)])).to_dicts()
    assert row == {
        "prompt": [said("user", "Why 0?")],
        "prompt_id": content_id("prompt", "0"),
        "rubrics": [
            {"criterion": "Kind.", "points": 5.0, "tags": ["constraint"]},
            {"criterion": "Rude.", "points": -2.0, "tags": ["constraint"]},
        ],
    }


# Rationales


def test_a_rationale_as_question_and_answer() -> None:
    """The stored order is shown, the answer is the rationale and then the place of the chosen reply."""
    (row,) = rationale_sft(rationales(rationale(0, order=[1, 0])), pairs(pair(0))).to_dicts()
    assert row["prompt"] == [
        said(
            "user",
            "Two replies could come next in this conversation. Which one is better, and why?\n\n"
            "The conversation:\n\nsystem: Be brief.\n\nuser: Why 0?\n\nReply 1:\n\nBad.\n\nReply 2:\n\nGood.",
        )
    ]
    assert row["completion"] == [said("assistant", "The better reply says why.\n\nReply 2 is better.")]
    assert (row["kind"], row["order"], row["split"]) == ("general", [1, 0], "train")


def test_a_rationale_about_one_reply_says_which() -> None:
    """Complaints, judgments and rationales of one side are led in by whom they are about."""
    listed = [("user_complaint", None), ("judgment", "rejected"), ("option", "chosen"), ("specific", None)]
    rows = [rationale(0, kind, side=side, order=[0, 1], text="Say.") for kind, side in listed]
    made = rationale_sft(rationales(*rows), pairs(pair(0)))
    answers = {row["kind"]: row["completion"][0]["content"].partition("\n")[0] for row in made.to_dicts()}
    assert answers == {
        "user_complaint": "What the user said of the weaker reply: Say.",
        "judgment": "Of the weaker reply: Say.",
        "option": "Of the better reply: Say.",
        "specific": "Say.",
    }


def test_an_order_that_is_not_stored_is_drawn() -> None:
    """Either reply stands first about as often, by id alone, and the verdict always names the chosen one."""
    listed = rationales(*(rationale(n) for n in range(400)))
    known = pairs(*(pair(n) for n in range(400)))
    made = rationale_sft(listed, known)
    assert 150 < made["order"].list.first().sum() < 250
    for row in made.iter_rows(named=True):
        place = row["order"].index(0) + 1
        assert f"Reply {place}:\n\nGood." in row["prompt"][0]["content"]
        assert row["completion"][0]["content"].endswith(f"Reply {place} is better.")
    assert rationale_sft(listed[7:9], known).equals(made[7:9])


def test_a_pair_has_its_best_rationale_of_each_kind() -> None:
    """Of several of one kind the best-ranked is taken, unranked ones last; kinds stay apart, sides as they are."""
    rows = [
        rationale(0, rank=2, text="Second."),
        rationale(0, rank=1, text="First."),
        rationale(0, text="Unranked."),
        rationale(0, "specific", text="Special."),
    ]
    made = rationale_dpo(rationales(*rows), pairs(pair(0)))
    assert made.columns == ["id", "prompt", "chosen", "rejected", "margin", "rationale", "kind", "split"]
    assert made.select("kind", "rationale").rows() == [("general", "First."), ("specific", "Special.")]
    assert made["chosen"].to_list() == [[said("assistant", "Good.")]] * 2
    assert made["rejected"].to_list() == [[said("assistant", "Bad.")]] * 2


@pytest.mark.parametrize("project", [rationale_sft, rationale_dpo])
def test_a_rationale_without_its_pair_is_no_row(project: Any) -> None:
    """Rationales are never dropped in silence: a pair that is not there is an error that counts."""
    with pytest.raises(BadInput, match="1 of 2"):
        project(rationales(rationale(0), rationale(1)), pairs(pair(0)))


def test_preferences_as_they_are() -> None:
    """Prompt, sides and margin of a pair, and what names it."""
    (row,) = preferences(pairs(pair(0))).to_dicts()
    whole = pair(0)
    assert row == {key: whole[key] for key in ("id", "prompt", "chosen", "rejected", "margin", "split")}
    assert preferences(pairs(pair(0))).schema["prompt"] == PL_MESSAGES
