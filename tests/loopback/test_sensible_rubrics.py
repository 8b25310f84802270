"""The scripted model writes criteria that hold of the better reply, and grades by the word that a criterion quotes."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from loopback import Habits, Question
from loopback.sensible_rubrics import MISTAKES, meets, rubric_answer, words
from scripted import answered
from tilth.schemas import conform
from tilth.schemas.ids import content_id
from tilth.transforms.judging.items import judge_requests, judgments
from tilth.transforms.judging.protocol import Judging
from tilth.transforms.pairs.candidates import Ruled
from tilth.transforms.rubrics.criteria import prompts_of, sides_of
from tilth.transforms.rubrics.grading import criterion_items, grades_of, grading_protocol
from tilth.transforms.rubrics.orbit import Retrieving, orbit_requests
from tilth.transforms.rubrics.retrieval import Retrieval
from tilth.transforms.rubrics.seeds import SEEDS
from tilth.transforms.rubrics.verifiers import grade_by_program
from tilth.transforms.rubrics.written import criteria_of_answers, written_requests

HONEST = Habits()
ASKS = "How deep do I sow peas?"
BETTER, WEAKER = "Sow them five centimetres deep.", "Sow them on the rooftop, gladly."


def pairs(better: str = BETTER, weaker: str = WEAKER) -> pl.DataFrame:
    row = {
        "id": content_id("pair"),
        "prompt_id": content_id("prompt"),
        "prompt": [{"role": "user", "content": ASKS}],
        "chosen": [{"role": "assistant", "content": better}],
        "rejected": [{"role": "assistant", "content": weaker}],
        "margin": 1.0,
        "conversation_id": content_id("conversation"),
        "split": "train",
    }
    return conform(pl.DataFrame([row]), "pairs")


def written(rows: pl.DataFrame, source: str = "contrast") -> Ruled:
    prompts = prompts_of(rows)
    questions = written_requests(prompts, rows, source)
    said = answered(questions.requests)
    return criteria_of_answers(prompts, questions.asked, said.completions, said.failed)


def graded(criteria: pl.DataFrame, rows: pl.DataFrame, habits: Habits = HONEST) -> dict[str, dict[str, Any]]:
    """What judges and programs say, by description, then side."""
    replies, sides = sides_of(rows)
    rules = grading_protocol(Judging())
    asked = criterion_items(criteria, replies)
    questions = judge_requests(asked.items, rules)
    said = answered(questions.requests, habits)
    judged = judgments(
        asked.items, questions.asked, said.completions, said.failed, "judge", rules, "scripted@1"
    )
    grades = pl.concat([grades_of(asked.links, judged), grade_by_program(criteria, replies)])
    names = {sides["chosen_id"][0]: "chosen", sides["rejected_id"][0]: "rejected"}
    texts = dict(criteria.select("id", "description").iter_rows())
    found = dict[str, dict[str, Any]]()
    for row in grades.iter_rows(named=True):
        found.setdefault(texts[row["criterion_id"]], {})[names[row["response_id"]]] = row["met"]
    return found


def test_words_are_new_and_the_longest_come_first() -> None:
    """Marks in brackets are no words of a reply."""
    assert words("Sow peas [q=7] five centimetres deep [write=copy]", "deep") == [
        "centimetres",
        "peas",
        "five",
    ]
    assert words("", "deep") == []


def test_a_contrast_is_what_the_better_reply_has_and_the_weaker_has_not() -> None:
    """Every criterion is usable; graded, they tell the sides apart as they say."""
    ruled = written(pairs())
    assert ruled.dropped.is_empty()
    kinds = {row["description"]: (row["tags"], row["check"]) for row in ruled.kept.iter_rows(named=True)}
    assert kinds == {
        'Mentions "centimetres".': (["essential"], "judge"),
        'Mentions "five".': (["important"], "judge"),
        'Mentions "them".': (["optional"], "judge"),
        'Mentions "rooftop".': (["pitfall"], "judge"),
        "At most 10 words.": (["important"], "program"),
    }
    assert graded(ruled.kept, pairs()) == {
        'Mentions "centimetres".': {"chosen": True, "rejected": False},
        'Mentions "five".': {"chosen": True, "rejected": False},
        'Mentions "them".': {"chosen": True, "rejected": True},
        'Mentions "rooftop".': {"chosen": False, "rejected": True},
        "At most 10 words.": {"chosen": True, "rejected": True},
    }


def test_criteria_from_the_prompt_alone_are_about_its_words() -> None:
    """Nothing of the replies is in them."""
    ruled = written(pairs(), "model")
    assert ruled.dropped.is_empty()
    assert ruled.kept.sort("weight", descending=True)["description"].to_list()[0] == 'Mentions "deep".'
    assert not any("centimetres" in text for text in ruled.kept["description"])
    assert set(ruled.kept["source"]) == {"model"}


REASONS = {
    "position": {"names_position"},
    "invent": {"unknown_program"},
    "swap": {"contradictory"},
    "copy": {"duplicate"},
    "empty": {"no_criterion"},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mark_in_a_reply_makes_the_model_err(mistake: str) -> None:
    """So that a recipe sees every reason; the other criteria stay as they are."""
    ruled = written(pairs(BETTER + f" [write={mistake}]"))
    assert set(ruled.dropped["reason"]) == REASONS[mistake]
    kept, plain = set(ruled.kept["description"]), set(written(pairs()).kept["description"])
    assert not kept if mistake == "empty" else {one for one in plain if one.startswith("Mentions")} <= kept


def test_a_judge_errs_only_as_it_is_told_to() -> None:
    """Lenient: all is met. Unsure: nothing can be told. Garbled: nothing is answered."""
    criteria = written(pairs()).kept.filter(pl.col("check") == "judge")
    for habits, met in (
        (Habits(position_bias=1.0), True),
        (Habits(tie_share=1.0), None),
        (Habits(garble_share=1.0), None),
    ):
        said = graded(criteria, pairs(), habits)
        assert len(said) == 4
        assert {one for sides in said.values() for one in sides.values()} == {met}


def test_without_a_word_in_quotes_the_mark_of_a_reply_decides() -> None:
    """The better a reply is marked, the more of such criteria it meets."""
    wishes = [f"Is as wished, number {n}" for n in range(40)]
    shares = [sum(meets(f"So. [q={mark}]", wish) for wish in wishes) for mark in (1, 4, 6, 9)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 40)
    assert shares[1] < shares[2]


def test_an_orbit_rubric_has_points_of_both_signs() -> None:
    """About the conversation that is asked about, not about those shown as examples."""
    other = [{"role": "user", "content": "Which umbrella is sturdy?"}]
    seed = {
        "seed_id": content_id("s"),
        "prompt": other,
        "criteria": [{"criterion": "Names one.", "points": 5.0}],
    }
    prompts = prompts_of(pairs())
    questions = orbit_requests(prompts, pl.DataFrame([seed], schema=SEEDS), Retrieving(), Retrieval())
    (text,) = answered(questions.requests).completions["text"]
    assert 'Mentions \\"deep\\".' in text
    assert '"points":-4' in text
    assert "umbrella" not in text


def test_other_questions_are_left_to_others() -> None:
    """Ratings and comparisons are not answered here."""
    said = [{"role": "system", "content": "You rate."}, {"role": "user", "content": "Rate."}]
    for title in ("tilth.judge.pointwise", "tilth.judge.pairwise", "tilth.feedback.label"):
        assert rubric_answer(Question(said, schema={"title": title}), HONEST) is None
    assert rubric_answer(Question(said), HONEST) is None
