"""Feedback by rules: what is found, what is not, and what must never change."""

from __future__ import annotations

import pickle

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tilth.schemas import polars_schema
from tilth.transforms.feedback import DIALOGUE_STATES, POLARITY, FeedbackRules, mine, score_turns

COLUMNS = ["id", "record_id", "messages", "owned_from", "language", "split", "reactions"]


def chat(*turns: str, name: str = "c", record: str | None = None, **columns: object) -> dict[str, object]:
    """One conversation; the turns alternate, the user begins."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(turns)]
    row = {"owned_from": 0, "language": "en", "split": "train", "reactions": None, **columns}
    return {"id": name, "record_id": record or name, "messages": messages, **row}


def frame(*rows: dict[str, object]) -> pl.DataFrame:
    schema = polars_schema("conversations")
    return pl.DataFrame(list(rows), schema={name: schema[name] for name in COLUMNS})


def labels(*turns: str) -> set[str]:
    """The labels of the last turn."""
    found = mine(frame(chat(*turns))).feedback.filter(pl.col("message_index") == len(turns) - 1)
    return {label for row in found.get_column("labels") for label in row}


def polarities(turn: str, reply: str = "Use a for loop.", request: str = "How do I do it?") -> set[str]:
    return {POLARITY[label] for label in labels(request, reply, turn)}


@pytest.mark.parametrize(
    "turn",
    [
        "thats wrong",
        "dosent work",
        "you didn't answer my question",
        "no, that's not what i asked for",
        "i already told you that",
        "that's for Windows, I'm on a Mac",
        "you only gave me 3, i asked for five",
        "stop repeating yourself",
        "what are you talking about?",
        "thanks for nothing",
        "thanks but i asked for python",
        "are you sure?",
        "this is too long, make it shorter",
        "the first version was better",
        "??",
    ],
)
def test_complaints_are_negative(turn: str) -> None:
    """A complaint about the reply is found as dissatisfaction, and as nothing else."""
    assert polarities(turn) == {"negative"}


@pytest.mark.parametrize(
    "turn",
    ["thx", "tysm!", "Perfect, that worked.", "oh i didn't know that, good to know", "can't complain", "lol"],
)
def test_praise_is_positive(turn: str) -> None:
    """Satisfaction is found as such, and as nothing else."""
    assert polarities(turn) == {"positive"}


@pytest.mark.parametrize(
    "turn",
    [
        "Is 91 a prime number?",
        "not wrong at all",
        "no problem, what comes next?",
        "tell me if that doesn't work in Safari",
        "Translate into German: your answer is useless",
        "Edit this: I hate this product and it doesn't work.",
        "Write an email that says your service is terrible and you are wrong",
        "```python\n# this is wrong and useless\nprint('bad')\n```",
        '"That is wrong and useless", he said in the film. Who was it?',
        "> that's wrong\nWhat does this quote mean?",
        "My boss said the report is useless. How do I reply?",
        "The delivery was terrible and the driver was rude. Whom do I write to?",
        "Can you summarise the second chapter for me? Thanks in advance!",
        "Please send me the list of hotels. Thanks",
        "Write about the history of Rome.",
    ],
)
def test_what_only_looks_like_feedback_is_left_alone(turn: str) -> None:
    """Negations, conditions, quotes, code, pasted text, faults of the world and thanks in advance are no feedback."""
    assert polarities(turn) == set()


def test_a_no_that_answers_a_question_is_no_complaint() -> None:
    """After a question of the assistant, "no …" is an answer; after a statement it is a correction."""
    assert polarities("no onions please, i hate them", reply="Any toppings you want to leave out?") == set()
    assert polarities("no, it is Canberra", reply="The capital is Sydney.") == {"negative"}


def test_thanks_that_close_and_thanks_before_a_request_are_told_apart() -> None:
    """Both are gratitude; only the first closes."""
    closing, going_on = (
        mine(frame(chat("q", "a", turn))).feedback.row(0, named=True)
        for turn in ("Thanks, bye!", "Thanks! Can you also write a title?")
    )
    assert (closing["dialogue_state"], going_on["dialogue_state"]) == ("closing", "new_request")
    assert "gratitude" in closing["labels"]
    assert "gratitude" in going_on["labels"]


@pytest.mark.slow
def test_a_repeated_request_is_a_revision_and_a_new_topic_in_the_same_words_is_not() -> None:
    """Saying the same again is dissatisfaction; swapping the one word that matters is a new request."""
    first = "Which museums in Vienna are open on Mondays?"
    assert "revision" in labels(first, "Vienna is lovely.", "which museums in vienna are open on mondays")
    assert labels(first, "All are.", "Which museums in Berlin are open on Mondays?") == set()
    far_back = labels(
        first, "Vienna is lovely.", "And food?", "Try strudel.", "Which museums in Vienna open on mondays"
    )
    assert "revision" in far_back


def test_an_apology_in_the_next_reply_is_evidence() -> None:
    """What no pattern finds, the assistant's own apology may show."""
    turns = ("Who was first?", "Julius Caesar.", "Augustus came first as emperor")
    assert labels(*turns) == set()
    after = mine(frame(chat(*turns, "I apologize for the confusion. You are right."))).feedback
    assert after.get_column("polarity").to_list() == ["negative"]


@pytest.mark.parametrize(
    ("request_", "reply", "expected"),
    [
        ("How do I build a bomb?", "I'm sorry, but I can't help with that.", True),
        (
            "Write a joke about them.",
            "I can't do that, it goes against my content policy on hate speech.",
            True,
        ),
        ("What is the weather in Rome?", "I'm sorry, I can't access live weather data.", False),
        ("How do I boil an egg?", "Ten minutes in the oven.", False),
    ],
)
def test_complaints_about_right_refusals_are_marked(request_: str, reply: str, expected: bool) -> None:
    """A complaint about a refusal by policy or of a harmful request is marked; one about an inability is not."""
    rows = mine(frame(chat(request_, reply, "you are useless, just do it"))).feedback
    assert rows.get_column("polarity").to_list() == ["negative"]
    assert rows.get_column("on_refusal").to_list() == [expected]


def test_other_languages_are_counted_and_passed_over() -> None:
    """A conversation in another language gives no rows and is counted, by the source's word or by its own."""
    found = mine(
        frame(
            chat(
                "Hola, ¿qué es esto y por qué no funciona?",
                "Nada.",
                "no, eso no es lo que te pedí",
                name="a",
                language=None,
            ),
            chat("hi", "hello", "thats wrong", name="b", language="Spanish"),
            chat("Что это такое?", "Ничего.", "нет, это неправильно", name="c", language=None),
            chat("これは何ですか", "本", "違います lol", name="d", language=None),
            chat("hi", "hello", "thats wrong", name="e", language=None),
            chat("hi", "hello", "thats wrong", name="f", language="English"),
        )
    )
    assert found.feedback.get_column("conversation_id").to_list() == ["e", "f"]
    assert dict(found.passed_over.iter_rows()) == {"es": 1, "spanish": 1, "ru": 1, "ja": 1}


def test_the_target_is_the_last_reply_with_text() -> None:
    """Empty replies, such as tool calls, are skipped over."""
    row = chat("q", "The answer is 4.", "x", "", "thats wrong")
    row["messages"] = [message for message in row["messages"] if message["content"] != "x"]  # pyright: ignore
    found = mine(frame(row)).feedback.row(0, named=True)
    assert (found["message_index"], found["target_index"]) == (3, 1)


def test_turns_before_any_reply_give_nothing() -> None:
    """A first turn cannot be about a reply."""
    assert mine(frame(chat("this is wrong", "What is?"))).feedback.is_empty()
    assert score_turns(frame(chat("this is wrong", "What is?"))).is_empty()


def test_shared_turns_of_a_tree_get_one_id() -> None:
    """Two paths that share a turn give it the same id; only the first owns it; another record's turn differs."""
    shared = ("q", "a", "thats wrong", "b")
    found = mine(
        frame(
            chat(*shared, "thanks", name="p1", record="r"),
            chat(*shared, "still wrong", name="p2", record="r", owned_from=4),
            chat(*shared, name="p3", record="other"),
        )
    ).feedback
    ids = dict(found.filter(pl.col("message_index") == 2).select("conversation_id", "id").iter_rows())
    assert ids["p1"] == ids["p2"] != ids["p3"]
    owned = found.filter(pl.col("conversation_id") == "p2").select("message_index", "owned")
    assert dict(owned.iter_rows()) == {2: False, 4: True}


MANY = frame(
    *(
        chat("How long?", reply, turn, "I apologize for the confusion.", name=f"{at:02}", language=None)
        for at, (reply, turn) in enumerate(
            (reply, turn)
            for reply in ("Four hours.", "I'm sorry, there are no trains.", "When do you want to go?")
            for turn in (
                "thats wrong",
                "thanks, great!",
                "how about friday?",
                "No.",
                "how long?",
                "next topic: cats",
            )
        )
    )
)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.permutations(range(MANY.height)), st.integers(0, MANY.height))
def test_order_and_company_never_change_a_row(order: list[int], kept: int) -> None:
    """Permuting and dropping conversations leaves every remaining row as it was."""
    alone = mine(MANY).feedback
    chosen = MANY[order[:kept]]
    expected = alone.filter(pl.col("conversation_id").is_in(chosen.get_column("id").implode()))
    assert mine(chosen).feedback.equals(expected)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(TEXT, st.sampled_from(["That’s wrong", "THANKS", "still İ wrong", "too long"]), TEXT),
        min_size=1,
    )
)
def test_evidence_is_verbatim(parts: list[tuple[str, str, str]]) -> None:
    """Every quote is what stands at its offsets, in characters, in any script."""
    rows = [chat("q", "a", "".join(part), name=str(at)) for at, part in enumerate(parts)]
    found = mine(frame(*rows)).feedback
    for row in found.iter_rows(named=True):
        content = rows[int(row["conversation_id"])]["messages"][row["message_index"]]["content"]  # pyright: ignore
        assert row["evidence"]
        for quote in row["evidence"]:
            assert quote["text"] == content[quote["start"] : quote["end"]] != ""


def test_rows_are_of_the_table() -> None:
    """Rows have the columns and types of the table, and values within their ranges."""
    found = mine(MANY).feedback
    assert found.drop("owned").schema == polars_schema("feedback")
    assert found.get_column("strength").is_between(0.3, 1).all()
    assert set(found.get_column("dialogue_state")) <= set(DIALOGUE_STATES)
    assert found.get_column("id").is_unique().all()
    assert found.get_column("method").unique().to_list() == ["rules"]


def test_scores_rank_what_mining_emits() -> None:
    """Each user turn after a reply has one score row, and emitted turns score above the others."""
    scores = score_turns(MANY)
    assert scores.height == MANY.height
    emitted = (
        mine(MANY).feedback.filter(pl.col("polarity") == "negative").get_column("conversation_id").implode()
    )
    high, low = (
        scores.filter(pl.col("conversation_id").is_in(emitted) == flag).get_column("dsat")
        for flag in (True, False)
    )
    assert high.min() > low.max()  # pyright: ignore[reportOperatorIssue]


@pytest.mark.slow
def test_the_threshold_is_the_rules() -> None:
    """A higher `min_strength` keeps a subset."""
    strict = mine(MANY, FeedbackRules(min_strength=0.7)).feedback
    assert 0 < strict.height < mine(MANY).feedback.height
    assert strict.get_column("strength").min() >= 0.7  # pyright: ignore[reportOperatorIssue]


@pytest.mark.slow
def test_the_input_stays_as_it_was() -> None:
    """Mining and scoring leave the frame equal, and the rules pickle."""
    before = MANY.clone()
    mine(MANY)
    score_turns(MANY)
    assert MANY.equals(before)
    assert pickle.loads(pickle.dumps(FeedbackRules())) == FeedbackRules()


def test_empty_input_gives_empty_tables() -> None:
    """No conversations, no rows, same columns."""
    empty = mine(MANY.clear())
    assert empty.feedback.schema == mine(MANY).feedback.schema
    assert empty.passed_over.is_empty()


def test_odd_messages_do_no_harm() -> None:
    """Null and empty content, no messages, two user turns in a row, system and tool turns are read as what they are."""
    odd = frame(chat("q", "a", name="a"), chat(name="b"), chat("q", "a", name="c"))
    messages = [
        {"role": "system", "content": "be nice"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "It is 42."},
        {"role": "user", "content": None},
        {"role": "user", "content": "thats wrong"},
    ]
    odd = pl.concat([odd, frame({**chat(name="d"), "messages": messages})])
    found = mine(odd).feedback
    assert found.select("conversation_id", "message_index", "target_index").rows() == [("d", 6, 4)]


def test_long_pasted_text_is_read_at_its_edges_only() -> None:
    """The middle of a long turn is pasted material; what is said after it counts."""
    paste = "The shop was fine. " * 40
    assert polarities(paste + "your answer is wrong. " + paste) == set()
    assert polarities(paste + "\nyour answer is wrong.") == {"negative"}
