"""Row contracts: each flag goes bad on a known-bad row, and metrics of parts add up to those of the whole."""

from __future__ import annotations

import itertools
import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import TABLES, conform, empty, polars_schema
from tilth.schemas.contracts import CONTRACTS, DETAIL_CHARS, PAYLOAD_BYTES, measure
from tilth.schemas.metrics import merge


def turns(*said: tuple[str | None, str | None]) -> list[dict[str, str | None]]:
    return [{"role": role, "content": content} for role, content in said]


ASKED = turns(("user", "how deep do I sow peas?"))
GOOD_REPLY, BAD_REPLY = turns(("assistant", "five centimetres")), turns(("assistant", "on the roof"))
SIDES = {"prompt": ASKED, "prompt_id": "a" * 32, "conversation_id": "c" * 32, "feedback_ids": ["f" * 32]}
UNSIGNALLED = {name: value for name, value in SIDES.items() if name != "feedback_ids"}
CRITERION: dict[str, Any] = {
    "id": "a" * 32,
    "title": "Depth",
    "description": "Names a depth in centimetres.",
    "weight": 1.0,
    "kind": "principle",
    "check": "judge",
    "program": None,
    "tags": [],
    "source": "complaint",
    "feedback_ids": ["f" * 32],
    "pass_rate": 0.5,
    "discrimination": 1.0,
}
GOOD: dict[str, dict[str, Any]] = {
    "conversations": {
        "id": "c" * 32,
        "source": "log.jsonl",
        "record_id": "r1",
        "record_rows": 1,
        "messages": [*ASKED, *GOOD_REPLY],
        "owned_from": 0,
        "split": "train",
    },
    "feedback": {
        "id": "f" * 32,
        "conversation_id": "c" * 32,
        "message_index": 2,
        "target_index": 1,
        "polarity": "positive",
        "labels": ["gratitude"],
        "strength": 0.9,
        "evidence": [{"label": "gratitude", "text": "thanks", "start": 3, "end": 9}],
        "dialogue_state": "closing",
        "on_refusal": False,
        "method": "rules",
        "method_version": "1",
        "split": "train",
    },
    "pairs": {
        **SIDES,
        "id": "e" * 32,
        "chosen": GOOD_REPLY,
        "rejected": BAD_REPLY,
        "origin": "observed_recovery",
        "chosen_score": 1.0,
        "rejected_score": -0.5,
        "margin": 1.5,
        "method": "observed",
        "split": "train",
    },
    "unpaired": {
        **SIDES,
        "id": "b" * 32,
        "completion": GOOD_REPLY,
        "label": True,
        "weight": 0.8,
        "method": "observed",
        "split": "test",
    },
    "rationales": {
        "id": "d" * 32,
        "pair_id": "e" * 32,
        "kind": "user_complaint",
        "text": "no, not on the roof",
        "evidence": [{"side": "rejected", "quote": "not on the roof"}],
        "feedback_ids": ["f" * 32],
        "conversation_id": "c" * 32,
        "method": "rules",
        "split": "train",
    },
    "rubrics": {
        **SIDES,
        "id": "0" * 32,
        "criteria": [CRITERION, {**CRITERION, "id": "b" * 32, "description": "Asks back.", "weight": -0.5}],
        "pair_ids": ["e" * 32],
        "separation": 0.5,
        "redundancy": 0.1,
        "coverage": 1.0,
        "balance": 0.9,
        "method": "rules",
        "split": "train",
    },
    "preferences": {
        "id": "1" * 32,
        "prompt_id": "a" * 32,
        "target_index": 1,
        "preferences": ["names a depth in centimetres"],
        "feedback_ids": ["f" * 32],
        "model": "m@1",
        "prompt_version": "feedback/preferences@1",
        "conversation_id": "c" * 32,
        "method": "model",
        "split": "train",
    },
    "responses": {
        **UNSIGNALLED,
        "id": "2" * 32,
        "completion": GOOD_REPLY,
        "role": "expert",
        "sample_index": 0,
        "model": "m@1",
        "guided": True,
        "flags": [],
        "method": "model",
        "split": "train",
    },
    "judgments": {
        "id": "3" * 32,
        "item_id": "4" * 32,
        "kind": "pairwise",
        "judge": "strict",
        "model": "m@1",
        "prompt_version": "judge/pairwise@1",
        "protocol": "5" * 32,
        "order": [1, 0],
        "sample_index": 0,
        "verdict": "win",
        "scores": [8.0, 3.0],
        "text": "it names a depth",
        "response_ids": ["2" * 32, "6" * 32],
        "prompt_id": "a" * 32,
        "conversation_id": "c" * 32,
        "method": "model",
        "split": "train",
    },
    "ratings": {
        **UNSIGNALLED,
        "id": "7" * 32,
        "completion": GOOD_REPLY,
        "model": "m@1",
        "attributes": [{"name": "honesty", "rating": 4.0}, {"name": "helpfulness", "rating": 5.0}],
        "rating": 4.5,
        "response_id": "2" * 32,
        "judgment_ids": ["3" * 32],
        "method": "model",
        "split": "train",
    },
    "evaluation": {
        **SIDES,
        "id": "8" * 32,
        "checklist": ["names a depth in centimetres"],
        "reference": BAD_REPLY,
        "cluster": 0,
        "distance": 0.25,
        "method": "model",
        "split": "test",
    },
    "quarantine": {
        "id": "9" * 32,
        "source": "log.jsonl",
        "stage": "ingest",
        "reason": "broken_json",
        "key": "log.jsonl#row=3",
        "detail": "line 3",
        "payload": "{",
        "source_rows": 1,
    },
}

LONG = (
    "Sow peas five centimetres deep and seven apart, in a bed that gets the sun of the morning, once the soil is warm. "
    "Water them every second day until they climb, then tie them to a fence and pick them young."
)
RETYPED = LONG.replace("young.", "young!")
NUL = turns(("user", "a\0b"))
STRANGER = turns(("narrator", "meanwhile"))
WORDLESS = turns(("assistant", None))
BAD_PROMPT = [
    ("prompt_id_malformed", {"prompt_id": None}),
    ("prompt_empty", {"prompt": []}),
    ("prompt_empty", {"prompt": turns(("user", "  "))}),
    ("prompt_last_role_not_user", {"prompt": [*ASKED, *GOOD_REPLY]}),
    ("prompt_last_role_not_user", {"prompt": []}),
    ("conversation_id_malformed", {"conversation_id": "c1"}),
    ("feedback_ids_empty", {"feedback_ids": []}),
    ("feedback_ids_empty", {"feedback_ids": None}),
    ("method_unknown", {"method": "magic"}),
    ("bad_role", {"prompt": [*STRANGER, *ASKED]}),
    ("null_content", {"prompt": [*turns(("system", None)), *ASKED]}),
    ("nul_character", {"prompt": NUL}),
]
WRITTEN = {
    "kind": "general",
    "evidence": [],
    "order": [1, 0],
    "recovers_label": True,
    "judgment_ids": ["3" * 32],
    "model": "m@1",
    "vote_share": 1.0,
    "method": "model",
}
BAD_UNSIGNALLED = [case for case in BAD_PROMPT if case[0] != "feedback_ids_empty"]
FAILED = {"verdict": "failed", "scores": None, "text": None, "reason": "malformed_output"}
BAD: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "conversations": [
        ("id_malformed", {"id": "C" * 32}),
        ("id_malformed", {"id": None}),
        ("split_unknown", {"split": "dev"}),
        ("split_unknown", {"split": None}),
        ("source_null", {"source": None}),
        ("record_id_null", {"record_id": None}),
        ("bad_role", {"messages": [*ASKED, *STRANGER, *GOOD_REPLY]}),
        ("bad_role", {"messages": [*ASKED, *turns((None, "x")), *GOOD_REPLY]}),
        ("null_content", {"messages": [*ASKED, *WORDLESS]}),
        ("nul_character", {"messages": [*NUL, *GOOD_REPLY]}),
        ("messages_empty", {"messages": []}),
        ("messages_empty", {"messages": None}),
        ("no_assistant_turn", {"messages": ASKED}),
        ("no_user_turn", {"messages": GOOD_REPLY}),
        ("user_speaks_twice", {"messages": [*ASKED, *ASKED, *GOOD_REPLY]}),
        ("record_rows_negative", {"record_rows": -1}),
        ("record_rows_negative", {"record_rows": None}),
        ("owned_from_outside", {"owned_from": 3}),
        ("owned_from_outside", {"owned_from": None}),
        ("reaction_outside", {"reactions": [{"message_index": 2, "kind": "thumbs"}]}),
        ("reaction_outside", {"reactions": [{"message_index": -1, "kind": "thumbs"}]}),
        ("message_ids_differ", {"message_ids": ["m1"]}),
    ],
    "feedback": [
        ("id_malformed", {"id": "f" * 31}),
        ("split_unknown", {"split": ""}),
        ("conversation_id_malformed", {"conversation_id": None}),
        ("polarity_unknown", {"polarity": "neutral"}),
        ("labels_empty", {"labels": []}),
        ("labels_empty", {"labels": None}),
        ("label_unknown", {"labels": ["gratitude", "sarcasm"]}),
        ("label_unknown", {"labels": [None]}),
        ("label_against_polarity", {"labels": ["revision"]}),
        ("label_against_polarity", {"polarity": "negative"}),
        ("strength_outside", {"strength": 0.0}),
        ("strength_outside", {"strength": 1.01}),
        ("strength_outside", {"strength": math.nan}),
        ("strength_outside", {"strength": None}),
        ("target_negative", {"target_index": -1}),
        ("target_after_message", {"target_index": 2}),
        ("target_after_message", {"target_index": 3, "method": "reaction"}),
        ("evidence_missing", {"evidence": []}),
        ("evidence_missing", {"evidence": None}),
        ("evidence_does_not_resolve", {"evidence": [{"text": "thanks", "start": 3, "end": 8}]}),
        ("evidence_does_not_resolve", {"evidence": [{"text": "thanks", "start": -3, "end": 3}]}),
        ("evidence_does_not_resolve", {"evidence": [{"text": "", "start": 3, "end": 3}]}),
        ("evidence_does_not_resolve", {"evidence": [{"text": None, "start": 3, "end": 3}]}),
        ("dialogue_state_unknown", {"dialogue_state": "limbo"}),
        ("on_refusal_null", {"on_refusal": None}),
        ("method_unknown", {"method": None}),
        ("method_version_null", {"method_version": None}),
    ],
    "pairs": [
        *BAD_PROMPT,
        ("id_malformed", {"id": ""}),
        ("split_unknown", {"split": "dev"}),
        ("bad_role", {"rejected": STRANGER}),
        ("null_content", {"chosen": [*WORDLESS, *GOOD_REPLY]}),
        ("chosen_empty", {"chosen": turns(("assistant", "\n"))}),
        ("rejected_empty", {"rejected": []}),
        ("chosen_not_a_reply", {"chosen": [*ASKED, *GOOD_REPLY]}),
        ("chosen_not_a_reply", {"chosen": turns(("assistant", "calling"), ("tool", "42"))}),
        ("rejected_not_a_reply", {"rejected": ASKED}),
        ("chosen_equals_rejected", {"chosen": BAD_REPLY}),
        ("near_equal", {"chosen": turns(("assistant", " On the  Roof\n"))}),
        ("alike", {"chosen": turns(("assistant", " On the  Roof\n"))}),
        ("alike", {"chosen": turns(("assistant", LONG)), "rejected": turns(("assistant", RETYPED))}),
        ("margin_not_positive", {"margin": 0.0}),
        ("margin_not_positive", {"margin": math.nan}),
        ("margin_not_positive", {"margin": math.inf}),
        ("margin_not_positive", {"margin": None}),
        ("margin_is_not_the_difference", {"margin": 1.0}),
        ("origin_unknown", {"origin": "guess"}),
        ("judgment_ids_empty", {"origin": "expert"}),
        ("judgment_ids_empty", {"origin": "rated", "judgment_ids": []}),
    ],
    "unpaired": [
        *BAD_PROMPT,
        ("id_malformed", {"id": "x" * 32}),
        ("split_unknown", {"split": "dev"}),
        ("null_content", {"completion": WORDLESS}),
        ("completion_empty", {"completion": None}),
        ("completion_not_a_reply", {"completion": [*GOOD_REPLY, *ASKED]}),
        ("label_null", {"label": None}),
        ("weight_outside", {"weight": -0.1}),
        ("weight_outside", {"weight": math.nan}),
    ],
    "rationales": [
        ("id_malformed", {"id": None}),
        ("split_unknown", {"split": None}),
        ("pair_id_malformed", {"pair_id": None}),
        ("text_empty", {"text": " "}),
        ("text_empty", {"text": None}),
        ("kind_unknown", {"kind": "hunch"}),
        ("evidence_empty", {"evidence": []}),
        ("quote_not_in_text", {"evidence": [{"side": "rejected", "quote": "not on the moon"}]}),
        ("quote_not_in_text", {"evidence": [{"side": "rejected", "quote": ""}]}),
        ("quote_not_in_text", {"text": None}),
        ("side_unknown", {"evidence": [{"side": "left", "quote": "roof"}]}),
        ("about_unknown", {"side": "both"}),
        ("evidence_empty", {**WRITTEN, "kind": "specific"}),
        ("factors_empty", {"kind": "factors", "factors": []}),
        ("favours_unknown", {"factors": [{"name": "words", "chosen": 3, "rejected": 2, "favours": "me"}]}),
        ("order_is_no_permutation", {**WRITTEN, "order": None}),
        ("order_is_no_permutation", {**WRITTEN, "order": [0, 0]}),
        ("label_not_recovered", {**WRITTEN, "recovers_label": False}),
        ("label_not_recovered", {**WRITTEN, "recovers_label": None}),
        ("judgment_ids_empty", {**WRITTEN, "judgment_ids": []}),
        ("model_null", {**WRITTEN, "model": None}),
        ("vote_share_outside", {**WRITTEN, "vote_share": 0.0}),
        ("vote_share_outside", {**WRITTEN, "vote_share": None}),
        ("rank_not_positive", {"rank": 0}),
        ("method_unknown", {"method": "magic"}),
        ("conversation_id_malformed", {"conversation_id": None}),
    ],
    "rubrics": [
        *BAD_UNSIGNALLED,
        ("id_malformed", {"id": None}),
        ("split_unknown", {"split": "dev"}),
        ("criteria_empty", {"criteria": []}),
        ("criteria_empty", {"criteria": None}),
        ("criterion_id_malformed", {"criteria": [{**CRITERION, "id": "c1"}]}),
        ("criterion_id_malformed", {"criteria": [{**CRITERION, "id": None}]}),
        ("criterion_id_repeated", {"criteria": [CRITERION, {**CRITERION, "description": "Asks back."}]}),
        ("description_empty", {"criteria": [{**CRITERION, "description": " "}]}),
        ("description_empty", {"criteria": [{**CRITERION, "description": None}]}),
        (
            "description_repeated",
            {
                "criteria": [
                    CRITERION,
                    {**CRITERION, "id": "b" * 32, "description": " names a depth in CENTIMETRES."},
                ]
            },
        ),
        ("weight_not_finite", {"criteria": [CRITERION, {**CRITERION, "id": "b" * 32, "weight": 0.0}]}),
        ("weight_not_finite", {"criteria": [CRITERION, {**CRITERION, "id": "b" * 32, "weight": math.nan}]}),
        ("no_positive_weight", {"criteria": [{**CRITERION, "weight": -1.0}]}),
        ("criterion_kind_unknown", {"criteria": [{**CRITERION, "kind": "wish"}]}),
        ("check_unknown", {"criteria": [{**CRITERION, "check": "guess"}]}),
        ("criterion_source_unknown", {"criteria": [{**CRITERION, "source": "thin air"}]}),
        ("program_missing", {"criteria": [{**CRITERION, "check": "program"}]}),
        ("program_missing", {"criteria": [{**CRITERION, "program": "{}"}]}),
        ("complaint_without_feedback", {"criteria": [{**CRITERION, "feedback_ids": []}]}),
        ("separation_outside", {"separation": 1.1}),
        ("separation_outside", {"separation": math.nan}),
        ("redundancy_outside", {"redundancy": -0.1}),
        ("coverage_outside", {"coverage": 2.0}),
        ("balance_outside", {"balance": -1.0}),
    ],
    "preferences": [
        ("id_malformed", {"id": None}),
        ("split_unknown", {"split": None}),
        ("prompt_id_malformed", {"prompt_id": "a"}),
        ("preferences_empty", {"preferences": []}),
        ("preferences_empty", {"preferences": None}),
        ("preferences_empty", {"preferences": ["is short", " "]}),
        ("preferences_empty", {"preferences": ["is short", None]}),
        ("target_negative", {"target_index": -1}),
        ("target_negative", {"target_index": None}),
        ("feedback_ids_empty", {"feedback_ids": []}),
        ("feedback_ids_empty", {"feedback_ids": None}),
        ("method_unknown", {"method": "magic"}),
        ("prompt_version_null", {"prompt_version": None}),
        ("conversation_id_malformed", {"conversation_id": None}),
    ],
    "responses": [
        *BAD_UNSIGNALLED,
        ("id_malformed", {"id": None}),
        ("split_unknown", {"split": "dev"}),
        ("completion_empty", {"completion": turns(("assistant", " "))}),
        ("completion_empty", {"completion": None}),
        ("completion_not_a_reply", {"completion": [*GOOD_REPLY, *ASKED]}),
        ("role_unknown", {"role": "teacher"}),
        ("role_unknown", {"role": None}),
        ("model_null", {"model": None}),
        ("guided_null", {"guided": None}),
    ],
    "judgments": [
        ("id_malformed", {"id": None}),
        ("split_unknown", {"split": None}),
        ("item_id_malformed", {"item_id": None}),
        ("kind_unknown", {"kind": "tournament"}),
        ("verdict_unknown", {"verdict": "inconsistent"}),
        ("verdict_unknown", {"verdict": None}),
        ("verdict_not_of_its_kind", {"verdict": "rated"}),
        ("verdict_not_of_its_kind", {"kind": "pointwise"}),
        ("verdict_not_of_its_kind", {"kind": "listwise", "verdict": "rated"}),
        ("judge_null", {"judge": None}),
        ("judge_null", {"model": None}),
        ("prompt_version_null", {"prompt_version": None}),
        ("protocol_malformed", {"protocol": "both_orders"}),
        ("order_is_no_permutation", {"order": [0, 0]}),
        ("order_is_no_permutation", {"order": [1, 2]}),
        ("order_is_no_permutation", {"order": [0]}),
        ("order_is_no_permutation", {"order": [0, None]}),
        ("order_is_no_permutation", {"order": None}),
        ("replies_not_of_the_kind", {"response_ids": ["2" * 32]}),
        ("replies_not_of_the_kind", {"kind": "pointwise", "verdict": "rated"}),
        ("replies_not_of_the_kind", {"kind": "listwise", "response_ids": []}),
        ("replies_not_of_the_kind", {"response_ids": None}),
        ("replies_repeated", {"response_ids": ["2" * 32, "2" * 32]}),
        ("scores_missing", {"scores": None}),
        ("scores_missing", {"scores": [8.0]}),
        ("scores_of_a_failure", {**FAILED, "scores": [-1.0, -1.0]}),
        ("verdict_against_scores", {"verdict": "loss"}),
        ("verdict_against_scores", {"verdict": "tie"}),
        ("verdict_against_scores", {"scores": [3.0, 3.0]}),
        ("reason_missing", {**FAILED, "reason": None}),
        ("method_unknown", {"method": "magic"}),
        ("conversation_id_malformed", {"conversation_id": None}),
    ],
    "ratings": [
        *BAD_UNSIGNALLED,
        ("id_malformed", {"id": None}),
        ("split_unknown", {"split": None}),
        ("completion_empty", {"completion": []}),
        ("completion_not_a_reply", {"completion": ASKED}),
        ("attributes_empty", {"attributes": []}),
        ("attributes_empty", {"attributes": None}),
        ("attribute_not_finite", {"attributes": [{"name": "honesty", "rating": None}]}),
        ("attribute_not_finite", {"attributes": [{"name": "honesty", "rating": math.nan}]}),
        ("rating_not_finite", {"rating": None}),
        ("rating_not_finite", {"rating": math.nan}),
        ("rating_is_not_the_mean", {"rating": 4.0}),
        ("response_id_malformed", {"response_id": None}),
        ("judgment_ids_empty", {"judgment_ids": []}),
        ("judgment_ids_empty", {"judgment_ids": None}),
    ],
    "evaluation": [
        *BAD_PROMPT,
        ("id_malformed", {"id": None}),
        ("split_unknown", {"split": None}),
        ("checklist_empty", {"checklist": []}),
        ("checklist_empty", {"checklist": [""]}),
        ("reference_not_a_reply", {"reference": ASKED}),
        ("reference_not_a_reply", {"reference": None}),
        ("cluster_negative", {"cluster": -1}),
        ("cluster_negative", {"cluster": None}),
        ("distance_outside", {"distance": -0.1}),
        ("distance_outside", {"distance": 2.1}),
        ("distance_outside", {"distance": math.nan}),
        ("in_training", {"split": "train"}),
    ],
    "quarantine": [
        ("id_malformed", {"id": None}),
        ("source_null", {"source": None}),
        ("stage_null", {"stage": None}),
        ("key_null", {"key": None}),
        ("reason_unknown", {"reason": "because"}),
        ("source_rows_negative", {"source_rows": None}),
        ("payload_too_large", {"payload": "é" * (PAYLOAD_BYTES // 2 + 1)}),
        ("detail_too_long", {"detail": "x" * (DETAIL_CHARS + 1)}),
    ],
}
CASES = [(table, flag, change) for table, cases in BAD.items() for flag, change in cases]


def rows(table: str, *changes: dict[str, Any]) -> pl.DataFrame:
    """Rows of `table`: the good row with each of these changes."""
    schema = polars_schema(table)
    made = [{**dict.fromkeys(schema), **GOOD[table], **change} for change in changes]
    return conform(pl.DataFrame(made, schema=schema), table)


@pytest.mark.parametrize("table", TABLES)
def test_good_row_has_no_defect(table: str) -> None:
    """A row as the pipeline makes it raises no flag."""
    counts = measure(table, rows(table, {})).counts
    assert [flag for flag in CONTRACTS[table].defects if counts[flag]] == []


@pytest.mark.parametrize(("table", "flag", "change"), CASES)
def test_flag_goes_bad_on_a_bad_row(table: str, flag: str, change: dict[str, Any]) -> None:
    """Each flag is raised by a row that is bad in its way, and by that row alone."""
    slim = CONTRACTS[table].project(rows(table, {}, change, {}))
    assert slim.get_column(flag).to_list() == [False, True, False]


@pytest.mark.parametrize("table", TABLES)
def test_every_flag_is_proven(table: str) -> None:
    """No defect is without a row that proves it can be found."""
    assert {flag for flag, _ in BAD[table]} == set(CONTRACTS[table].defects)


def test_reactions_need_no_words() -> None:
    """A reaction is put on the turn it is about and has no evidence: that is no defect."""
    reaction = {"method": "reaction", "message_index": 1, "evidence": [], "dialogue_state": None}
    counts = measure("feedback", rows("feedback", {**reaction, "labels": ["thumbs_up"]})).counts
    assert [flag for flag in CONTRACTS["feedback"].defects if counts[flag]] == []


@pytest.mark.parametrize(
    "row",
    [
        FAILED,
        {"verdict": "tie", "scores": [5.0, 5.0]},
        {"verdict": "loss", "scores": [2.0, 5.0], "order": [0, 1]},
        {"kind": "pointwise", "verdict": "rated", "scores": [4.0], "order": [0], "response_ids": ["2" * 32]},
        {"kind": "listwise", "verdict": "ranked", "scores": [None, 2.0]},
    ],
)
def test_judgments_of_every_kind_pass(row: dict[str, Any]) -> None:
    """A failure without scores, a tie, a rating and a list with what could not be rated are no defects."""
    counts = measure("judgments", rows("judgments", row)).counts
    assert [flag for flag in CONTRACTS["judgments"].defects if counts[flag]] == []


def test_the_place_that_a_judge_prefers_is_counted() -> None:
    """What was shown first and won, what was shown second and won; a tie and a failure prefer no place."""
    lost = {"verdict": "loss", "scores": [3.0, 8.0]}
    shown = [{}, {"order": [0, 1]}, lost, {**lost, "order": [0, 1]}, {**lost, "order": [0, 1]}]
    tie = {"verdict": "tie", "scores": [5.0, 5.0]}
    counts = measure("judgments", rows("judgments", *shown, tie, FAILED)).counts
    assert (counts["first_shown_preferred"], counts["second_shown_preferred"]) == (2, 3)
    assert (counts["tie"], counts["failed"]) == (1, 1)


def test_pairs_that_no_judge_saw_need_no_judgments() -> None:
    """Judgments are asked of pairs that judges decided, feedback of those that rest on it."""
    judged = {"origin": "rated", "feedback_ids": None, "judgment_ids": ["3" * 32]}
    counts = measure("pairs", rows("pairs", judged, {"origin": "human_rank", "feedback_ids": []})).counts
    assert [flag for flag in CONTRACTS["pairs"].defects if counts[flag]] == []


def test_logged_replies_may_be_of_an_unknown_model() -> None:
    """A log need not say which model answered; a reply that was asked for says it."""
    logged = {"role": "logged", "model": None, "guided": False, "flags": None}
    assert measure("responses", rows("responses", logged)).counts["model_null"] == 0


def test_offsets_count_characters() -> None:
    """Evidence offsets are in characters, not in bytes."""
    quote = {"evidence": [{"label": "gratitude", "text": "größe 🌱", "start": 0, "end": 7}]}
    assert measure("feedback", rows("feedback", quote)).counts["evidence_does_not_resolve"] == 0


def test_slim_rows_hold_no_text() -> None:
    """What goes on to the audit is booleans and numbers, whatever the table."""
    for table, contract in CONTRACTS.items():
        kinds = contract.project(rows(table, {})).schema.values()
        assert all(kind == pl.Boolean or kind.is_numeric() for kind in kinds), table


def test_metrics_are_what_they_say() -> None:
    """Counts, shares, extremes and means of a small table are the ones worked out by hand."""
    two = rows("unpaired", {"weight": 0.25}, {"label": False, "completion": turns(("assistant", "no"))})
    row = measure("unpaired", two).row()
    wanted = {
        "rows": 2,
        "labelled_true": 1,
        "labelled_true_share": 0.5,
        "weight_min": 0.25,
        "weight_max": 0.8,
    }
    assert {name: row[name] for name in wanted} == wanted
    assert (row["completion_chars_min"], row["completion_chars_mean"]) == (2, 9)


def test_no_rows_have_no_shares() -> None:
    """Of nothing there is no share, no mean and no extreme; counts are zero."""
    row = measure("pairs", empty("pairs")).row()
    assert (row["rows"], row["near_equal"], row["near_equal_share"], row["margin_min"]) == (0, 0, None, None)


@st.composite
def tables_with_cuts(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]], list[int]]:
    table = draw(st.sampled_from(list(TABLES)))
    changes = draw(st.lists(st.sampled_from([{}, *(change for _, change in BAD[table])]), max_size=12))
    measured = {"feedback": "strength", "pairs": "margin", "unpaired": "weight", "ratings": "rating"}
    number = measured.get(table)
    if number:
        changes = [{**change, number: draw(st.floats() | st.none())} for change in changes]
    return table, changes, sorted(draw(st.lists(st.integers(0, len(changes)), max_size=4)))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(tables_with_cuts())
def test_parts_add_up_to_the_whole(drawn: tuple[str, list[dict[str, Any]], list[int]]) -> None:
    """Measuring parts and merging is exactly measuring everything, wherever the cuts are."""
    table, changes, cuts = drawn
    whole = rows(table, *changes)
    bounds = [0, *cuts, whole.height]
    parts = [whole[start:end] for start, end in itertools.pairwise(bounds)]
    assert merge(measure(table, part) for part in parts) == measure(table, whole)
    assert merge(measure(table, part) for part in reversed(parts)) == measure(table, whole)
