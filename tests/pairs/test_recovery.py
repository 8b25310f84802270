"""Recoveries: when a later reply counts as better, and when not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from tilth.transforms.pairs import PairPolicy, recovery_pairs

POLICY = PairPolicy()
ASK = "What is the capital of Australia?"
FIXED = ["Sydney", "No, that's wrong.", "Canberra", "Thanks, that's it!"]
CALL = '[{"message_index": 1, "tool_calls": []}]'


def complaint(at: int = 2, **fields: Any) -> dict[str, Any]:
    return {"conversation_id": "c", "message_index": at, "polarity": "negative", **fields}


def praise(at: int = 4, **fields: Any) -> dict[str, Any]:
    return {"conversation_id": "c", "message_index": at, "polarity": "positive", **fields}


def recovered(
    build: Any, say: list[Any], signals: list[dict[str, Any]], policy: PairPolicy = POLICY, **row: Any
) -> list[tuple[str, str]]:
    """(chosen, rejected) of what is kept, or (reason, "") of what is dropped."""
    ruled = recovery_pairs(build.logged({"id": "c", "say": say, **row}), build.signals(*signals), policy)
    kept = [
        (r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in ruled.kept.iter_rows(named=True)
    ]
    return kept + [(reason, "") for reason in ruled.dropped.get_column("reason")]


def test_a_complaint_that_is_mended_gives_a_pair(build: Any) -> None:
    """The satisfying reply is preferred over the one complained about, with scores from both strengths."""
    conversations = build.logged({"id": "c", "say": [ASK, *FIXED], "model": "m7"})
    (row,) = recovery_pairs(
        conversations, build.signals(complaint(strength=0.7), praise(strength=0.8)), POLICY
    ).kept.iter_rows(named=True)
    assert row["prompt"] == [{"role": "user", "content": ASK}]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("Canberra", "Sydney")
    assert (row["chosen_score"], row["rejected_score"], row["margin"]) == (0.8, -0.7, 1.5)
    assert row["feedback_ids"] == ["c@2negative", "c@4positive"]
    assert (row["origin"], row["conversation_id"]) == ("observed_recovery", "c")
    assert row["models"] == {"chosen": "m7", "rejected": "m7"}


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param([complaint()], id="nobody praised the later reply"),
        pytest.param([praise()], id="nobody complained"),
        pytest.param([complaint(strength=0.4), praise()], id="weak complaint"),
        pytest.param([complaint(), praise(strength=0.4)], id="weak praise"),
        pytest.param([complaint(), praise(labels=["humor"])], id="a joke is no praise"),
        pytest.param(
            [complaint(method="reaction", labels=["thumbs_down"]), praise()], id="only a thumb down"
        ),
        pytest.param([complaint(4), praise(2)], id="praise came first"),
    ],
)
def test_a_later_reply_is_not_better_for_being_later(build: Any, signals: list[dict[str, Any]]) -> None:
    """Without a clear complaint and clear satisfaction about the same request there is no candidate."""
    assert recovered(build, [ASK, *FIXED], signals) == []


@pytest.mark.parametrize(
    ("signals", "reason"),
    [
        ([complaint(on_refusal=True), praise()], "correct_refusal"),
        ([complaint(), praise(2, strength=0.3), praise()], "contradictory"),
        ([complaint(), praise(), complaint(4, strength=0.3)], "contradictory"),
    ],
)
def test_candidates_with_an_objection_are_dropped(
    build: Any, signals: list[dict[str, Any]], reason: str
) -> None:
    """Complaints about refusals and any signal against a side, however weak, drop the candidate."""
    assert recovered(build, [ASK, *FIXED], signals) == [(reason, "")]


def test_faults_of_the_sides_drop_the_candidate(build: Any) -> None:
    """Near-identical sides, a prompt that a tool ends, tool results in between and tool calls never ship."""
    signals = [complaint(), praise()]
    assert recovered(build, [ASK, "Same  Answer", "Wrong.", "same answer ", "ok"], signals) == [
        ("identical_sides", "")
    ]
    assert recovered(build, [ASK, *FIXED], signals, tool_calls_json=CALL) == [("unsupported_content", "")]
    assert recovered(build, [("tool", "x"), *FIXED], signals) == [("prompt_not_from_user", "")]
    tools = [
        ASK,
        "Sydney",
        "No.",
        ("assistant", "I look"),
        ("tool", "x"),
        ("assistant", "Canberra"),
        "Thanks",
    ]
    assert recovered(build, tools, [complaint(), praise(6)]) == [("new_constraints", "")]


def test_tool_calls_of_the_prompt_come_along(build: Any) -> None:
    """`tool_calls_json` keeps the calls before the replies and no others."""
    calls = '[{"message_index":1,"tool_calls":["a"]},{"message_index":5,"tool_calls":["b"]}]'
    say = [
        ASK,
        ("assistant", "look"),
        ("user", "And?"),
        "Sydney",
        ("user", "No"),
        "Canberra",
        ("user", "Thanks"),
    ]
    signals = build.signals(complaint(4), praise(6))
    ruled = recovery_pairs(build.logged({"id": "c", "say": say, "tool_calls_json": calls}), signals, POLICY)
    assert ruled.dropped.get_column("reason").to_list() == ["unsupported_content"]
    calls = calls.replace("5", "9")
    ruled = recovery_pairs(build.logged({"id": "c", "say": say, "tool_calls_json": calls}), signals, POLICY)
    assert ruled.kept.get_column("tool_calls_json").to_list() == ['[{"message_index":1,"tool_calls":["a"]}]']


PLAIN = [
    "No, that's wrong.",
    "This is terrible. You didn't read my question at all and wasted my time, absolutely useless garbage!",
    "I asked for the capital of Australia, not for its largest city.",
    "What is the capital of Australia??? Read the question again please.",
    "That's not right, isn't it Canberra?",
]
DEMANDS = [
    "Too long. Write it as a funny poem in French with three stanzas that mention kangaroos and rugby.",
    "Wrong. Also list population, mayor, climate and the main museums in a markdown table.",
]


@pytest.mark.parametrize("turn", PLAIN)
def test_plain_complaints_repeats_and_corrections_add_no_constraints(build: Any, turn: str) -> None:
    """What only says that the reply is bad, or says the request again, leaves the pair fair."""
    say = [ASK, "Sydney is the largest city.", turn, "Canberra", "Thanks"]
    assert recovered(build, say, [complaint(), praise()]) == [("Canberra", "Sydney is the largest city.")]


@pytest.mark.parametrize("turn", DEMANDS)
def test_new_demands_make_the_pair_unfair(build: Any, turn: str) -> None:
    """A turn that asks for much that was not asked before drops the pair, and policy can allow it."""
    say = [ASK, "Sydney is the largest city.", turn, "Canberra", "Thanks"]
    signals = [complaint(), praise()]
    assert recovered(build, say, signals) == [("new_constraints", "")]
    lenient = replace(POLICY, max_new_share=1.0)
    assert recovered(build, say, signals, lenient) == [("Canberra", "Sydney is the largest city.")]


def test_demands_in_a_turn_without_any_signal_count_too(build: Any) -> None:
    """Constraints are looked for in all user turns between the replies, not only in those with feedback."""
    say = [ASK, "Sydney", "Wrong.", "Perth", DEMANDS[0], "Canberra", "Thanks"]
    assert recovered(build, say, [complaint(), praise(6)]) == [("new_constraints", "")]


def test_the_words_of_a_corrected_fact_are_not_new_constraints(build: Any) -> None:
    """The sentence of a complaint about facts may name the facts."""
    turn = "You are wrong: Burley Griffin won the 1912 contest to design Canberra near Yass. Try again."
    say = ["Who planned the capital?", "Nobody", turn, "Griffin", "Thanks"]
    evidence = [{"label": "factual_error", "text": "You are wrong", "start": 0, "end": 13}]
    corrected = complaint(labels=["factual_error"], evidence=evidence)
    assert recovered(build, say, [corrected, praise()]) == [("Griffin", "Nobody")]
    assert recovered(build, say, [complaint(evidence=evidence), praise()]) == [("new_constraints", "")]


def test_the_first_satisfying_reply_within_reach_is_chosen(build: Any) -> None:
    """Of several satisfying replies the first counts; beyond `max_turns_between` user turns none does."""
    say = [ASK, "Sydney", "Wrong", "Canberra", "Thanks", "Canberra, ACT", "Thanks a lot"]
    assert recovered(build, say, [complaint(), praise(4), praise(6)]) == [("Canberra", "Sydney")]
    far = [ASK, "a", "no", "b", "no", "c", "no", "d", "yes"]
    signals = [complaint(2), praise(8)]
    assert recovered(build, far, signals) == [("d", "a")]
    assert recovered(build, far, signals, replace(POLICY, max_turns_between=2)) == []


def test_every_complaint_before_the_recovery_gives_a_pair(build: Any) -> None:
    """Two bad replies that one good reply mends are two pairs with two prompts."""
    say = [ASK, "Sydney", "Wrong", "Perth", "Wrong", "Canberra", "Thanks"]
    pairs = recovered(build, say, [complaint(2), complaint(4), praise(6)])
    assert sorted(pairs) == [("Canberra", "Perth"), ("Canberra", "Sydney")]


def paths(build: Any, second: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two paths of one record that part after the better reply; the second ends with `second` polarity."""
    shared = {"record_id": "tree", "message_ids": None}
    conversations = build.logged(
        {"id": "c", "say": [ASK, *FIXED], **shared},
        {"id": "d", "say": [ASK, *FIXED[:3], "Hm."], "owned_from": 4, "record_rows": 0, **shared},
    )
    seen = [complaint(), complaint(conversation_id="d", id="c@2negative", owned=False), praise()]
    ends = {"conversation_id": "d", "message_index": 4, "polarity": second, "id": "end of d"}
    return conversations, build.signals(*seen, ends)


def test_two_paths_that_show_one_recovery_give_one_pair(build: Any) -> None:
    """A pair that several paths of a tree support is written once, from the first of them."""
    ruled = recovery_pairs(*paths(build, "positive"), POLICY)
    assert ruled.kept.get_column("conversation_id").to_list() == ["c"]
    assert ruled.dropped.is_empty()


def test_blame_on_another_path_of_the_record_counts(build: Any) -> None:
    """A reply that one path praises and another blames is not preferred."""
    ruled = recovery_pairs(*paths(build, "negative"), POLICY)
    assert ruled.kept.is_empty()
    assert ruled.dropped.get_column("reason").to_list() == ["contradictory"]


def test_what_is_dropped_holds_the_candidate_but_no_text_outside_the_payload(build: Any) -> None:
    """A dropped candidate is a quarantine row with its own key, its payload and no source rows."""
    (row,) = recovery_pairs(
        build.logged({"id": "c", "say": [ASK, *FIXED]}),
        build.signals(complaint(on_refusal=True), praise()),
        POLICY,
    ).dropped.iter_rows(named=True)
    assert "Canberra" in row["payload"]
    assert not any("Canberra" in str(row[name]) for name in ("key", "detail", "source"))
    assert (row["source"], row["stage"], row["source_rows"]) == ("memory://log", "pair", 0)
    assert len(row["key"]) == 32


def test_a_complaint_that_asks_for_something_must_ask_for_the_same(build: Any) -> None:
    """With a request beside the complaint, few words are enough to see that it is another request."""
    asking = [complaint(dialogue_state="new_request"), praise()]
    again = [ASK, "Sydney", "Wrong. What is the capital of Australia?", "Canberra", "Thanks"]
    assert recovered(build, again, asking) == [("Canberra", "Sydney")]
    other = [ASK, "Sydney", "Wrong. Anyway, write a poem about cats.", "Soft paws", "Thanks"]
    assert recovered(build, other, asking) == [("new_constraints", "")]


def test_a_new_request_after_a_satisfying_turn_ends_the_old_one(build: Any) -> None:
    """What is praised after "fine, now do this" was not asked for by the request that failed."""
    say = [ASK, "Sydney", "Wrong.", "Perth", "Fine. Now rivers.", "Murray", "Thanks"]
    weak = praise(4, strength=0.3)
    assert recovered(build, say, [complaint(), weak, praise(6)]) == [("Murray", "Sydney")]
    assert recovered(build, say, [complaint(), {**weak, "dialogue_state": "new_request"}, praise(6)]) == []
