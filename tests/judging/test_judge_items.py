"""What judges are asked, and how answers become judgments: by id alone, both orders, scores back at their replies."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import Reason, TilthError
from tilth.schemas.contracts import measure
from tilth.transforms.inference.prompts import Prompt, restore
from tilth.transforms.inference.requests import COMPLETIONS, to_requests
from tilth.transforms.inference.structured import parse_schema
from tilth.transforms.judging.aggregate import by_panel
from tilth.transforms.judging.items import (
    ASKED,
    ITEMS,
    Questions,
    answer_schema,
    items,
    judge_requests,
    judgments,
    orders,
)
from tilth.transforms.judging.protocol import Judge, Judging, Protocol
from tilth.transforms.judging.votes import votes_of

INJECTIONS: Final = Path(__file__).parents[1] / "inference" / "injections.jsonl"
LINES: Final = [json.loads(line) for line in INJECTIONS.read_text(encoding="utf-8").splitlines()]
TEXTS: Final = [line["text"] * line.get("repeat", 1) for line in LINES]
BLOCK: Final = re.compile(r"<<material (\w+)(?: (\w+))?>>\n(.*?)\n<</material \1>>", re.DOTALL)
NOTHING: Final = pl.DataFrame(schema={"id": pl.String, "reason": pl.String})
PAIRWISE: Final = Judging().pairwise()
ASPECTS: Final = (("honesty", "Says what is so."), ("helpfulness", "Does what was asked."))


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def row(
    name: str, replies: list[str], checklist: list[str] | None = None, ask: str = "Why?"
) -> dict[str, Any]:
    return {
        "prompt": [said("user", ask)],
        "replies": [[said("assistant", reply)] for reply in replies],
        "response_ids": [f"{name} reply {n}" for n in range(len(replies))],
        "checklist": checklist or [],
        "prompt_id": name.ljust(32, "0"),
        "conversation_id": name.ljust(32, "c"),
        "split": "train",
    }


def listed(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows as `ITEMS`."""
    schema = pl.Schema({name: kind for name, kind in ITEMS.items() if name != "item_id"})
    return items(pl.DataFrame(list(rows), schema=schema))


def shuffled(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    return frame.sample(fraction=1.0, shuffle=True, seed=seed)


def completions(answers: dict[str, dict[str, Any]]) -> pl.DataFrame:
    """What was answered, by the id of the request."""
    rows = [(id_, orjson.dumps(said).decode(), "stop", None, 1, 1, "m@1") for id_, said in answers.items()]
    return pl.DataFrame(rows, schema=COMPLETIONS, orient="row")


def compared(first: int, second: int, verdict: str = "", evidence: str = "because") -> dict[str, Any]:
    meant = "1" if first > second else "2" if first < second else "tie"
    return {"evidence": evidence, "score_1": first, "score_2": second, "verdict": verdict or meant}


def worth(known: dict[str, int], questions: Questions) -> pl.DataFrame:
    """A judge that knows what each reply is worth, and says so wherever the reply stands."""
    answers: dict[str, dict[str, Any]] = {}
    for one in to_requests(questions.requests):
        texts = [restore(block[2]) for block in BLOCK.findall(one.messages[-1]["content"])]
        shown = [known[text] for text in texts if text in known]
        fields = parse_schema(one.schema or "")["properties"]
        if "score_1" in fields:
            answers[one.id] = compared(shown[0], shown[1])
        else:
            answers[one.id] = {"evidence": "", **{f"rating_{n + 1}": at for n, at in enumerate(shown)}}
    return completions(answers)


def judged(
    of: pl.DataFrame, asked: pl.DataFrame, answers: pl.DataFrame, protocol: Protocol = PAIRWISE
) -> pl.DataFrame:
    return judgments(of, asked, answers, NOTHING, "judge", protocol, "m@1")


# Items


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@given(
    one=st.tuples(st.lists(texts, max_size=3), st.lists(texts, max_size=3)),
    other=st.tuples(st.lists(texts, max_size=3), st.lists(texts, max_size=3)),
)
@settings(max_examples=60, deadline=None)
def test_an_item_is_known_by_its_replies_and_checklist(
    one: tuple[list[str], list[str]], other: tuple[list[str], list[str]]
) -> None:
    """Other replies or another checklist are another item, however their texts are cut; equal ones are one."""
    rows = [{**row("a", []), "response_ids": ids, "checklist": wishes} for ids, wishes in (one, other)]
    assert listed(*rows).height == (1 if one == other else 2)


def test_lists_that_read_the_same_when_joined_are_two_items() -> None:
    """No wish and a blank wish, or a wish in the place of a reply, are items of their own."""
    cases = [([], [""]), (["r", "s"], []), (["r"], ["s"]), ([], ["r", "s"]), ([], ["r\0s"])]
    rows = [{**row("a", []), "response_ids": ids, "checklist": wishes} for ids, wishes in cases]
    assert listed(*rows).height == len(cases)


@given(seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_items_and_orders_follow_from_content_alone(seed: int) -> None:
    """The same rows in another order, some of them twice, are the same items, shown in the same orders."""
    rows = [row(name, ["good", "bad", "worse"], ["Be brief."]) for name in "abcde"]
    again = rows + rows[:2]
    random.Random(seed).shuffle(again)
    one, two = listed(*rows), listed(*again)
    assert one.equals(two)
    protocol = Judging(rotations=3).rating(ASPECTS)
    assert judge_requests(one, protocol).asked.equals(judge_requests(two, protocol).asked)


@pytest.mark.slow
@given(
    replies=st.integers(1, 5),
    rotations=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    name=st.text(max_size=8),
)
@settings(deadline=None)
def test_listwise_orders_are_different_rotations(replies: int, rotations: int, seed: int, name: str) -> None:
    """Each order shows every reply once; no two orders of an item are equal; no reply stands first twice."""
    drawn = orders(Judging(rotations=rotations).rating(ASPECTS, seed), name, replies)
    assert len(drawn) == min(rotations, replies)
    assert all(sorted(order) == list(range(replies)) for order in drawn)
    assert len({order[0] for order in drawn}) == len(drawn)


@given(seed=st.integers(0, 2**31), name=st.text(max_size=8))
@settings(deadline=None)
def test_pairs_are_shown_in_both_orders(seed: int, name: str) -> None:
    """Whatever the seed and the item."""
    assert orders(Judging().pairwise(seed), name, 2) == [[0, 1], [1, 0]]


# Asking


@given(
    pairs=st.integers(0, 6),
    evidences=st.integers(1, 3),
)
@settings(max_examples=20, deadline=None)
def test_every_pair_is_asked_in_both_orders_as_often_as_wanted(pairs: int, evidences: int) -> None:
    """Each item has `evidences` requests an order, each sample with a seed of its own."""
    protocol = Judging(evidences=evidences, temperature=1.0).pairwise()
    asked = judge_requests(listed(*(row(f"{n}", ["x", "y"]) for n in range(pairs))), protocol)
    shown = Counter(
        (item, tuple(order)) for item, order in asked.asked.select("item_id", "order").iter_rows()
    )
    assert len(shown) == 2 * pairs
    assert set(shown.values()) <= {evidences}
    assert set(asked.asked["id"]) == set(asked.requests["id"])
    assert asked.requests["seed"].n_unique() == asked.requests.height


def test_replies_stand_where_the_order_says() -> None:
    """Reply 1 of a request is the reply that its order names first."""
    one = listed(row("a", ["left", "right"]))
    questions = judge_requests(one, PAIRWISE)
    joined = questions.asked.join(questions.requests, on="id")
    assert joined.height == 2
    for order, messages in joined.select("order", "messages").iter_rows():
        shown = [block[2] for block in BLOCK.findall(messages[-1]["content"])]
        assert shown == ["Why?", *(["left", "right"][place] for place in order)]


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_text_of_users_and_models_stays_material(text: str) -> None:
    """A reply, a wish or a turn that gives orders stands in one block of its own, and nothing of it outside."""
    plain = judge_requests(listed(row("a", ["one", "two"], ["three"], "four")), PAIRWISE).requests
    asked = judge_requests(listed(row("a", [text, "two"], [text], text)), PAIRWISE).requests
    for usual, hostile in zip(plain["messages"], asked["messages"], strict=True):
        content = hostile[-1]["content"]
        assert hostile[0] == usual[0]
        assert BLOCK.sub("block", content) == BLOCK.sub("block", usual[-1]["content"])
        assert [restore(block[2]) for block in BLOCK.findall(content)].count(text) == 3


def test_what_an_attribute_means_is_no_material() -> None:
    """The descriptions of attributes are ours: they are part of the question."""
    asked = judge_requests(listed(row("a", ["one", "two", "three"])), Judging().rating(ASPECTS)).requests
    systems = asked.get_column("messages").list.first().struct.field("content")
    assert all("<<material CODE>>" in text and len(BLOCK.findall(text)) == 0 for text in systems)
    assert systems.str.contains("Says what is so.", literal=True).sum() == asked.height // 2


@pytest.mark.parametrize(
    ("protocol", "replies"),
    [
        (PAIRWISE, ["one"]),
        (PAIRWISE, ["one", "two", "three"]),
        (Judging().rating(ASPECTS), []),
        (Protocol(PAIRWISE.prompt, (Judge("judge"),), "pointwise", attributes=ASPECTS), ["one", "two"]),
    ],
)
def test_an_item_of_another_size_is_refused(protocol: Protocol, replies: list[str]) -> None:
    """A pair has two replies, a list at least one, a point one: else nothing is asked."""
    with pytest.raises(TilthError, match=protocol.kind):
        judge_requests(listed(row("a", replies)), protocol)


def test_the_shape_of_an_answer_has_evidence_first() -> None:
    """Evidence, then scores on the scale, then the verdict; nothing else, nothing left out, nothing endless."""
    schema = parse_schema(answer_schema(Judging(low=0, high=4).pairwise(), 2))
    assert list(schema["properties"]) == ["evidence", "score_1", "score_2", "verdict"]
    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False
    assert schema["title"] == "tilth.judge.pairwise"
    assert "maxLength" in schema["properties"]["evidence"]
    assert (schema["properties"]["score_1"]["minimum"], schema["properties"]["score_2"]["maximum"]) == (0, 4)
    assert list(parse_schema(answer_schema(Judging().rating(ASPECTS), 3))["properties"]) == [
        "evidence",
        "rating_1",
        "rating_2",
        "rating_3",
    ]


# Answers


@pytest.mark.slow
@given(
    values=st.lists(st.integers(1, 10), min_size=2, max_size=12),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=30, deadline=None)
def test_order_of_rows_changes_no_judgment(values: list[int], seed: int) -> None:
    """Items, asked and completions in any order of rows give the same judgments, and each its reply's scores."""
    known = {f"reply {n} worth {value}": value for n, value in enumerate(values)}
    names = list(known)
    of = listed(*(row(f"{n}", [names[n - 1], names[n]]) for n in range(1, len(names))))
    questions = judge_requests(of, PAIRWISE)
    answers = worth(known, questions)
    made = judged(of, questions.asked, answers)
    assert made.equals(
        judged(shuffled(of, seed), shuffled(questions.asked, seed + 1), shuffled(answers, seed + 2))
    )
    told = made.join(of.select("item_id", "replies"), on="item_id")
    for scores, verdict, replies in told.select("scores", "verdict", "replies").iter_rows():
        mine, other = (known[reply[0]["content"]] for reply in replies)
        assert scores == [mine, other]
        assert verdict == ("win" if mine > other else "loss" if mine < other else "tie")
    assert not any(
        measure("judgments", made).counts[name] for name in ("verdict_against_scores", "id_malformed")
    )


@pytest.mark.slow
@given(values=st.permutations([1, 3, 5, 7, 9]), count=st.integers(1, 5), rotations=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_ratings_go_back_to_their_replies(values: list[int], count: int, rotations: int) -> None:
    """Of lists of up to five, in every rotation, a rating is that of the reply, not of the place."""
    known = {f"reply {n} worth {value}": value for n, value in enumerate(values[:count])}
    protocol = Judging(rotations=rotations).rating(ASPECTS)
    of = listed(row("a", list(known)))
    questions = judge_requests(of, protocol)
    made = judged(of, questions.asked, worth(known, questions), protocol)
    assert made.height == min(rotations, count) * len(ASPECTS)
    assert made["scores"].to_list() == [[float(value) for value in known.values()]] * made.height
    assert set(made["verdict"]) == {"ranked"}
    assert sorted(set(made["attribute"])) == ["helpfulness", "honesty"]


def test_a_reply_that_cannot_be_rated_has_no_rating() -> None:
    """A rating of null stays null, at the place of its reply."""
    protocol = Judging(rotations=3).rating(ASPECTS[:1])
    of = listed(row("a", ["x", "y", "z"]))
    questions = judge_requests(of, protocol)
    told = {
        id_: {
            "evidence": "",
            **{f"rating_{n + 1}": None if place == 1 else 5 for n, place in enumerate(order)},
        }
        for id_, order in questions.asked.select("id", "order").iter_rows()
    }
    made = judged(of, questions.asked, completions(told), protocol)
    assert made["scores"].to_list() == [[5.0, None, 5.0]] * 3


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [(7, 3, "2"), (3, 7, "1"), (7, 3, "tie"), (5, 5, "1"), (5, 5, "2")],
)
def test_a_verdict_that_its_scores_contradict_is_failed(first: int, second: int, verdict: str) -> None:
    """It is neither what it says nor what its scores say, nor a tie; its words are kept."""
    of = listed(row("a", ["x", "y"]))
    asked = judge_requests(of, PAIRWISE).asked
    told = completions({id_: compared(first, second, verdict, "words") for id_ in asked["id"]})
    made = judged(of, asked, told)
    assert made.select("verdict", "scores", "reason", "text").unique().rows() == [
        ("failed", None, Reason.CONTRADICTORY.value, "words")
    ]
    verdicts = by_panel(votes_of(made), PAIRWISE.aggregation, PAIRWISE.weights)
    assert verdicts["verdict"].to_list() == ["failed"]


def test_a_request_without_an_answer_is_failed_for_its_reason() -> None:
    """One order answered and one not: a judgment each, and a verdict that rests on neither."""
    of = listed(row("a", ["x", "y"]))
    asked = judge_requests(of, PAIRWISE).asked
    answered, silent = asked["id"]
    failed = pl.DataFrame({"id": [silent], "reason": [Reason.TIMED_OUT.value]})
    made = judgments(of, asked, completions({answered: compared(9, 1)}), failed, "judge", PAIRWISE, "m@1")
    assert dict(made.select("verdict", "reason").iter_rows()) == {"win": None, "failed": "timed_out"}
    verdicts = by_panel(votes_of(made), PAIRWISE.aggregation, PAIRWISE.weights)
    assert verdicts["verdict"].to_list() == ["failed"]


def _doubled(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame, frame.head(1)])


def _foreign(answers: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([answers, answers.head(1).with_columns(id=pl.lit("another.0"))])


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda i, a, c: (i, a, c.tail(-1)), id="an answer is missing"),
        pytest.param(lambda i, a, c: (i, a, _doubled(c)), id="an answer stands there twice"),
        pytest.param(lambda i, a, c: (i, a, _foreign(c)), id="an answer to nothing"),
        pytest.param(lambda i, a, c: (i, a.tail(-1), c), id="an answer to what was not asked"),
        pytest.param(lambda i, a, c: (i, _doubled(a), c), id="asked twice"),
        pytest.param(lambda i, a, c: (i.tail(-1), a, c), id="an item is missing"),
        pytest.param(lambda i, a, c: (_doubled(i), a, c), id="an item stands there twice"),
    ],
)
def test_answers_that_do_not_match_are_refused(broken: Any) -> None:
    """Nothing is lost or counted twice in silence."""
    known = {"x": 3, "y": 5}
    of = listed(row("a", ["x", "y"]), row("b", ["y", "x"]))
    questions = judge_requests(of, PAIRWISE)
    with pytest.raises(TilthError):
        judged(*broken(of, questions.asked, worth(known, questions)))


def test_a_request_with_an_answer_and_a_reason_is_refused() -> None:
    """It cannot be both."""
    of = listed(row("a", ["x", "y"]))
    questions = judge_requests(of, PAIRWISE)
    failed = pl.DataFrame({"id": questions.asked["id"][:1], "reason": ["timed_out"]})
    answers = worth({"x": 3, "y": 5}, questions)
    with pytest.raises(TilthError, match="do not match"):
        judgments(of, questions.asked, answers, failed, "judge", PAIRWISE, "m@1")


def test_no_items_are_no_judgments() -> None:
    """Nothing asked, nothing answered: empty frames of the right shape."""
    of = pl.DataFrame(schema=ITEMS)
    questions = judge_requests(of, PAIRWISE)
    assert (questions.requests.height, questions.asked.height) == (0, 0)
    assert questions.asked.schema == ASKED
    assert judged(of, questions.asked, pl.DataFrame(schema=COMPLETIONS)).height == 0


def test_judgments_of_two_judges_have_ids_of_their_own() -> None:
    """The same answers of two members of a panel are two judgments of one item."""
    of = listed(row("a", ["x", "y"]))
    questions = judge_requests(of, PAIRWISE)
    answers = worth({"x": 3, "y": 5}, questions)
    made = [
        judgments(of, questions.asked, answers, NOTHING, name, PAIRWISE, "m@1") for name in ("one", "two")
    ]
    both = pl.concat(made)
    assert both["id"].n_unique() == 4
    assert both["item_id"].n_unique() == 1


def test_another_prompt_is_another_protocol_for_the_same_items() -> None:
    """A change of the judge's prompt changes protocol, judgments' ids and requests; items stay what they are."""
    changed = Protocol(
        Prompt("judge/pairwise", "2", PAIRWISE.prompt.messages), PAIRWISE.judges, seed=PAIRWISE.seed
    )
    of = listed(row("a", ["x", "y"]))
    known = {"x": 3, "y": 5}
    made = [
        judged(of, questions.asked, worth(known, questions), protocol)
        for protocol in (PAIRWISE, changed)
        for questions in [judge_requests(of, protocol)]
    ]
    assert made[0]["protocol"][0] != made[1]["protocol"][0]
    assert set(made[0]["id"]).isdisjoint(made[1]["id"])
    assert made[0]["item_id"].equals(made[1]["item_id"])
