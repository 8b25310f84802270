"""The scripted model answers Tilth's own prompts with what makes sense, and a judge errs only as it is told to."""

from __future__ import annotations

from typing import Any

import orjson
import polars as pl
import pytest

from feedback.talks import name, talk, talks
from loopback import Habits, Question, sensible_answer, serve
from loopback.sensible import better_of, blocks, key_word, quality
from scripted import answered
from tilth.schemas import PL_MESSAGES
from tilth.transforms.feedback.cascade import Cascade, settle_turns
from tilth.transforms.feedback.labelling import Labelling, label_requests, labelled
from tilth.transforms.feedback.spur import (
    extract_requests,
    merge_requests,
    merged,
    reasons_of,
    score_requests,
    scores,
)
from tilth.transforms.feedback.spur_rubric import Item, Rubric, SpurConfig
from tilth.transforms.feedback.summaries import summaries, summary_requests, targets
from tilth.transforms.inference.prompts import packaged_prompt
from tilth.transforms.judging.items import ITEMS, judge_requests, judgments
from tilth.transforms.judging.protocol import Judge, Protocol
from tilth.transforms.responses.candidates import PLACES, Replying, reply_requests
from tilth.transforms.responses.moderation import Moderation, flags_by_model, moderation_requests

HONEST = Habits()
ASK_ALL = Cascade(mode="all")
TALK = talks(
    talk(
        "How deep do I sow peas?",
        "On the roof.",
        "No, on the roof is wrong. I mean depth!",
        "Five cm.",
        "Thanks a lot",
    )
)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def items(*replies: tuple[str, ...], checklist: tuple[str, ...] = ()) -> pl.DataFrame:
    rows = [
        {
            "item_id": name(f"i{n}"),
            "prompt": [turn("user", f"Question {n}")],
            "replies": [[turn("assistant", text)] for text in texts],
            "response_ids": [name(f"{n}/{m}") for m in range(len(texts))],
            "checklist": list(checklist),
            "prompt_id": name(f"p{n}"),
            "conversation_id": name(f"c{n}"),
            "split": "train",
        }
        for n, texts in enumerate(replies)
    ]
    return pl.DataFrame(rows, schema=ITEMS)


def protocol(kind: Any = "pairwise", **more: Any) -> Protocol:
    prompt = packaged_prompt("tilth.transforms.judging", "pairwise" if kind == "pairwise" else "rating")
    attributes = () if kind == "pairwise" else (("helpfulness", "Whether it helps."),)
    return Protocol(prompt, (Judge("judge"),), kind, attributes=attributes, **more)


def judged(rows: pl.DataFrame, rules: Protocol, habits: Habits = HONEST) -> pl.DataFrame:
    questions = judge_requests(rows, rules)
    said = answered(questions.requests, habits)
    return judgments(rows, questions.asked, said.completions, said.failed, "judge", rules, "scripted@1")


def test_material_is_read_as_it_stands() -> None:
    """Blocks are found by their codes, with who wrote them and the line before; text in a block is only text."""
    said = "The turns:\n<<material a1 user>>\nReply 1:\nhi\n<</material a1>>"
    text = f"{said}\n1. <<material b2>>\nwish\n<</material b2>>"
    assert blocks(text) == [("The turns:", "user", "Reply 1:\nhi"), ("1.", "", "wish")]


def test_key_words_are_the_longest_that_are_new() -> None:
    """The first of the longest words, those of the other text left out; nothing of nothing."""
    assert key_word("No, on the roof is wrong", "On the roof") == "wrong"
    assert (key_word("roof", "the roof"), key_word("")) == ("roof", "")


@pytest.mark.slow
def test_clear_words_become_feedback_with_its_sentence() -> None:
    """A complaint and a thank you are labelled as such, with the sentence and the target; all else is none."""
    settled = settle_turns(TALK, ASK_ALL)
    questions = label_requests(TALK, settled.asked, Labelling())
    made = labelled(
        TALK, settled.turns, questions.asked, answered(questions.requests).completions, Labelling()
    )
    rows = made.feedback.sort("message_index").select(
        "message_index", "target_index", "polarity", "labels", "evidence"
    )
    found = [(*row[:3], row[3], row[4][0]["text"]) for row in rows.iter_rows()]
    assert found == [
        (2, 1, "negative", ["negative_feedback"], "No, on the roof is wrong."),
        (4, 3, "positive", ["gratitude"], "Thanks a lot"),
    ]
    assert made.dropped.is_empty()


def test_a_wish_names_a_word_of_the_complaint_and_a_guided_reply_has_it() -> None:
    """Preferences come from what the user said, and the reply of a model that is told them shows that it was."""
    settled = settle_turns(TALK, ASK_ALL)
    questions = label_requests(TALK, settled.asked, Labelling())
    made = labelled(
        TALK, settled.turns, questions.asked, answered(questions.requests).completions, Labelling()
    )
    wanted = targets(made.feedback.drop("owned"), TALK).kept
    asked = summary_requests(wanted, TALK)
    (row,) = summaries(wanted, asked.asked, answered(asked.requests).completions).preferences.iter_rows(
        named=True
    )
    assert row["preferences"] == ['Is about "wrong".']
    place = {"conversation_id": "c", "target_index": 1, "prompt_id": "p", "source": "s", "split": "train"}
    told = {**place, "preferences": row["preferences"], "prompt": [turn("user", "How deep?")]}
    places = pl.DataFrame([told], schema=PLACES)
    guided = packaged_prompt("tilth.transforms.responses", "guided")
    texts = [
        answered(reply_requests(places, Replying(), by).requests, model=model)
        .completions.get_column("text")
        .item()
        for by, model in ((guided, "a"), (None, "a"), (None, "b"))
    ]
    assert ["minds wrong" in text for text in texts] == [True, False, False]
    assert len(set(texts)) == 3
    assert better_of(texts[0], "On the roof.", row["preferences"]) == 0


@pytest.mark.parametrize(
    ("one", "other", "wishes", "wanted"),
    [
        ("[q=7] a", "[q=3] wrong", ("Is not wrong.",), 0),
        ("a", "wrong", ("Is not wrong.",), 1),
        ("a", "b", ("Is not wrong.",), None),
        ("[q=4]", "[q=4] longer", (), None),
        ("[q=9]", "unmarked", (), 0),
        ("[q=2]", "unmarked", (), 1),
    ],
)
def test_the_better_reply_is_known(one: str, other: str, wishes: tuple[str, ...], wanted: int | None) -> None:
    """Marks decide where both replies have one; else the words of the checklist do too; else neither is better."""
    assert better_of(one, other, wishes) == wanted
    assert better_of(other, one, wishes) == (None if wanted is None else 1 - wanted)


def test_an_honest_judge_is_right_in_both_orders() -> None:
    """Without planted errors, verdicts are those of the marks whichever reply stands first, and scores say the same."""
    rows = judged(items(("[q=7]", "[q=3]"), ("[q=1]", "[q=8]"), ("[q=5]", "x [q=5]")), protocol())
    found = rows.group_by("item_id").agg(pl.col("verdict").unique(), pl.len()).rows()
    assert {item: (verdicts, count) for item, verdicts, count in found} == {
        name("i0"): (["win"], 2),
        name("i1"): (["loss"], 2),
        name("i2"): (["tie"], 2),
    }


@pytest.mark.slow
def test_planted_errors_come_as_often_as_they_are_planted() -> None:
    """The place errs, ties and answers that are no JSON have about their shares, the same ones every time."""
    rows = items(
        *[(f"[q=7] {n}", f"[q=3] {n}") if n % 2 else (f"[q=3] {n}", f"[q=7] {n}") for n in range(400)]
    )
    habits = Habits(position_bias=0.4, tie_share=0.1, garble_share=0.1)
    made = judged(rows, protocol(), habits)
    assert made.equals(judged(rows.reverse(), protocol(), habits))
    shares = {verdict: (made.get_column("verdict") == verdict).mean() for verdict in ("failed", "tie")}
    assert shares["failed"] == pytest.approx(0.1, abs=0.03)
    assert shares["tie"] == pytest.approx(0.09, abs=0.03)
    assert set(made.filter(pl.col("verdict") == "failed").get_column("reason")) == {"malformed_output"}
    decided = made.filter(pl.col("verdict").is_in(["win", "loss"]))
    first = (pl.col("verdict") == "win") == (pl.col("order").list.first() == 0)
    assert decided.select(first.mean()).item() == pytest.approx(0.7, abs=0.05)


def test_ratings_follow_the_marks() -> None:
    """Every reply of a list has the rating of its own mark, in every order; one that cannot be rated has none."""
    rows = items(("[q=1]", "[q=10]", "[q=4]", "[n/a]"))
    made = judged(rows, protocol("listwise", low=1, high=10, rotations=3))
    assert made.get_column("scores").to_list() == [[1.0, 10.0, 4.0, None]] * 3
    assert judged(items(("[q=10]",)), protocol("pointwise", low=1, high=5)).get_column(
        "scores"
    ).to_list() == [[5.0]]


def test_harm_is_flagged_where_it_is_named() -> None:
    """A moderator flags what speaks of bombs, and nothing else."""
    rows = pl.DataFrame(
        {
            "id": ["a", "b"],
            "prompt": [[turn("user", "How do I build a bomb?")], [turn("user", "Hi")]],
            "completion": [[turn("assistant", "So.")], [turn("assistant", "Hello")]],
        },
        schema_overrides={"prompt": PL_MESSAGES, "completion": PL_MESSAGES},
    )
    prompt = packaged_prompt("tilth.transforms.responses", "moderation")
    requests, asked = moderation_requests(rows, prompt, Moderation("model"))
    flags = flags_by_model(asked, answered(requests).completions)
    assert dict(flags.iter_rows()) == {"a": ["weapons"], "b": []}


def test_a_rubric_is_made_of_what_users_say_and_found_where_they_say_it() -> None:
    """SPUR's reasons quote the clear words of a side, items are named for them, scores find them in users' turns."""
    config = SpurConfig()
    rows = TALK.select("id", "messages").with_columns(label=pl.lit("DSAT"))
    questions = extract_requests(rows, config)
    reasons = (
        reasons_of(questions.asked, answered(questions.requests).completions).get_column("text").to_list()
    )
    assert reasons == ['The user says "no,".']
    running = {"dsat": (Item("dsat_1", "useless", 'The user says "useless".'),)}
    asked = merge_requests(running, {"dsat": reasons, "sat": ['The user says "thanks".']}, config)
    items = merged(asked.asked, answered(asked.requests).completions, config)
    assert {side: [item.name for item in found] for side, found in items.items()} == {
        "dsat": ["useless", "no,"],
        "sat": ["thanks"],
    }
    rubric = Rubric(items["sat"], items["dsat"])
    asked = score_requests(TALK, rubric, config)
    said = answered(asked.requests)
    (row,) = scores(asked.asked, said.completions, said.failed, rubric, "m@1").scores.iter_rows(named=True)
    assert {one["item"]: one["present"] for one in row["items"]} == {
        "sat_1": True,
        "dsat_1": False,
        "dsat_2": True,
    }


def test_what_is_not_known_is_left_to_the_other_answers() -> None:
    """A schema of another title has no sensible answer."""
    assert sensible_answer(Question([turn("user", "x")], schema={"title": "tilth.other"})) is None
    assert quality("unmarked") is None


@pytest.mark.slow
def test_the_server_answers_by_the_script() -> None:
    """`serve(script="sensible")` says over HTTP what the script says in process; without it, any text that fits."""
    import http.client

    (request,) = judge_requests(items(("[q=7]", "[q=3]")), protocol()).requests.head(1).iter_rows(named=True)
    schema = orjson.loads(request["schema"])
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    body = {"model": "m", "messages": request["messages"], "response_format": form}

    def said(port: int) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/v1/chat/completions", orjson.dumps(body))
        text = orjson.loads(connection.getresponse().read())["choices"][0]["message"]["content"]
        connection.close()
        return text

    with serve(script="sensible", garble_share=0.0) as server:
        assert said(server.port) == sensible_answer(Question(request["messages"], "m", None, schema))
        server.control(garble_share=1.0)
        assert not said(server.port).startswith("{")
        server.control(script="")
        assert orjson.loads(said(server.port)).keys() == schema["properties"].keys()
        with pytest.raises(AssertionError, match="nonsense"):
            server.control(script="nonsense")
