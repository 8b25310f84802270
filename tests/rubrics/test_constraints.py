"""Constraints of a request: found with high precision, quoted verbatim, none that contradict, and as criteria."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput
from tilth.transforms.rubrics.constraints import (
    Constraint,
    constraint_criteria,
    constraints_in,
    quality,
    read_requests,
)
from tilth.transforms.rubrics.criteria import CRITERIA, PROMPTS, rubric_rows
from tilth.transforms.rubrics.verifiers import describe, parse_program, program_of

FILE = Path(__file__).parent / "requests_labelled.jsonl"
REQUESTS = read_requests(FILE)


def found(text: str) -> set[str]:
    return {constraint.program for constraint in constraints_in(text)}


def test_the_rules_are_precise_on_labelled_requests() -> None:
    """Precision of at least 0.95 and recall of at least 0.8 over all labelled requests, a half without constraints."""
    figures = quality(REQUESTS)
    assert figures.precision >= 0.95
    assert figures.recall >= 0.8
    assert figures.requests >= 120
    assert 0.4 < sum(1 for request in REQUESTS if not request.programs) / len(REQUESTS) < 0.6


def test_the_rules_hold_on_requests_that_they_were_not_made_for() -> None:
    """The fold that was written last, after the rules: what the documentation states."""
    figures = quality(request for request in REQUESTS if request.fold == "held_out")
    assert figures.precision >= 0.9
    assert figures.recall >= 0.8


def test_the_labels_are_sound() -> None:
    """No request twice; two folds; every label is a program of the library (reading it checks that)."""
    assert len({request.text for request in REQUESTS}) == len(REQUESTS)
    assert {request.fold for request in REQUESTS} == {"dev", "held_out"}


@pytest.mark.slow
def test_a_command_prints_the_figures() -> None:
    """One line for each fold, with counts, precision and recall."""
    command = [sys.executable, "-m", "tilth.transforms.rubrics.constraints", str(FILE)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in printed.splitlines()] == ["fold", "dev", "held_out"]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.text[:40])
def test_quotes_are_verbatim_and_programs_valid(request_: tuple[str, frozenset[str], str]) -> None:
    """Each constraint quotes the request, describes its program, and stands in order, once."""
    constraints = constraints_in(request_[0])
    assert constraints == sorted(constraints)
    assert len({constraint.program for constraint in constraints}) == len(constraints)
    for constraint in constraints:
        assert constraint.quote in request_[0]
        assert constraint.quote
        assert constraint.description == describe(constraint.program)


def test_a_constraint_reads_well() -> None:
    """Program, description and the user's words."""
    assert constraints_in("Explain tides in at most 100 words.") == [
        Constraint(program_of("max_words", {"limit": 100}), "At most 100 words.", "at most 100 words")
    ]


@pytest.mark.parametrize(
    "pair",
    [
        "Write at least 200 words. Use at most 100 words.",
        "Answer in French. Answer in German.",
        "Use exactly 3 bullet points. Don't use lists.",
        "Answer in all caps. Answer in lowercase.",
        "Include the word \"tea\". Don't use the word \"tea\".",
        "Start with \"Hello\". Begin your answer with \"Goodbye\".",
        "Respond only with valid JSON. Use bullet points.",
        "Write two paragraphs. Write three paragraphs.",
    ],
)  # fmt: skip
def test_of_two_that_contradict_neither_is_kept(pair: str) -> None:
    """Each is found alone; together they are not, and what stands beside them is."""
    first, _, second = pair.partition(". ")
    assert found(f"{first}.")
    assert found(second)
    assert found(f"Tell me about tea. {pair} No emojis.") == {program_of("max_emojis", {"limit": 0})}


def test_what_follows_from_another_is_not_said_twice() -> None:
    """Exactly three bullets are at least one."""
    assert found("Use bullet points. Write exactly 3 bullet points.") == {
        program_of("exact_bullets", {"count": 3})
    }


@pytest.mark.parametrize(
    ("said", "verifier", "arguments"),
    [
        ("in at most 50 words", "max_words", {"limit": 50}),
        ("in no more than fifty words", "max_words", {"limit": 50}),
        ("in 50 words or less", "max_words", {"limit": 50}),
        ("in under 50 words", "max_words", {"limit": 49}),
        ("in fewer than 1,000 words", "max_words", {"limit": 999}),
        ("in at least two hundred words", "min_words", {"limit": 200}),
        ("in more than 50 words", "min_words", {"limit": 51}),
        ("in over 50 words", "min_words", {"limit": 51}),
        ("in 50+ words", "min_words", {"limit": 50}),
        ("in 50 words", "exact_words", {"count": 50, "tolerance": 5}),
        ("in about 50 words", "exact_words", {"count": 50, "tolerance": 10}),
        ("in exactly 50 words", "exact_words", {"count": 50}),
        ("in 5 words", "exact_words", {"count": 5}),
        ("in a single sentence", "exact_sentences", {"count": 1}),
        ("in about three paragraphs", "exact_paragraphs", {"count": 3, "tolerance": 1}),
    ],
)
def test_a_limit_means_what_it_says(said: str, verifier: str, arguments: dict[str, int]) -> None:
    """Strict and weak comparisons, number words, tolerance."""
    assert found(f"Explain tides {said}.") == {program_of(verifier, arguments)}


@pytest.mark.parametrize(
    "text",
    [
        "I have to write an essay in exactly 500 words and include at least 3 sources. Please help me choose a topic.",
        "How do I explain tides in under 100 words? Give me advice.",
        "My boss told me to answer in French. Please draft an excuse.",
        "If I ask you to answer in three sentences, will you do it? Please tell me.",
        "Do you think I should write in all caps? Please tell me.",
        "Write a function that returns at most 10 words as JSON.",
        "Describe tea in sentences of 10 words each.",
        "Write a story with a title of at most 8 words.",
        "That's not a proof, that's one line. Where are the steps?",
    ],
)
def test_what_is_reported_supposed_or_about_a_part_is_no_constraint_on_the_whole(text: str) -> None:
    """What others demand, what might be asked, what a program or a part must do."""
    assert found(text) == set()


def test_only_the_start_of_a_long_request_is_read() -> None:
    """What follows 4,000 characters is pasted text."""
    stated = "Use at most 80 words."
    assert found(f"Tell me about tea. {'Tea is nice. ' * 100}{stated}")
    assert not found(f"Tell me about tea. {'Tea is nice. ' * 400}{stated}")


LEADS = (
    "Tell me about tea. {}",
    "{} What is tea?",
    "Please tell me about tea.\n\n{}",
    "{}\n\nTell me about tea.",
)
STATED = {
    "Use at most 80 words.": program_of("max_words", {"limit": 80}),
    "Answer in Spanish.": program_of("language", {"code": "es"}),
    "Do not use emojis.": program_of("max_emojis", {"limit": 0}),
    "Include the word \"kettle\".": program_of("keywords_present", {"keywords": ["kettle"]}),
    "Write exactly three sentences.": program_of("exact_sentences", {"count": 3}),
    "Respond only with JSON.": program_of("valid_json", {"where": "whole"}),
}  # fmt: skip


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("stated", STATED)
def test_where_it_stands_does_not_matter(lead: str, stated: str) -> None:
    """Before or after the question, on a line of its own or not."""
    assert STATED[stated] in found(lead.format(stated))


@pytest.mark.parametrize("stated", STATED)
@pytest.mark.parametrize(
    "frame",
    [
        "Translate to Dutch: {}",
        "Proofread this:\n\n{}",
        "What does my teacher mean by “{}”?",
        "```\n{}\n```\nWhat is this?",
        "> {}\n\nWho wrote that?",
        "Correct the text below.\n\n{}",
    ],
)
def test_what_is_quoted_or_pasted_is_no_constraint(frame: str, stated: str) -> None:
    """Text to work on constrains nothing."""
    assert found(frame.format(stated.replace('"', ""))) == set()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), st.sampled_from(sorted(STATED)))
def test_any_request_has_constraints_and_the_same_ones_twice(text: str, stated: str) -> None:
    """Nothing raises; the result is deterministic, quoted verbatim, and programs parse."""
    for request in (text, f"{text} {stated}", f"{stated}{text}"):
        constraints = constraints_in(request)
        assert constraints == constraints_in(request)
        assert all(constraint.quote in request for constraint in constraints)
        assert all(parse_program(constraint.program) for constraint in constraints)


@pytest.mark.parametrize(
    "unit",
    ["a", " ", "\n", "1", "1 ", "in ", "no ", "at most ", "use the ", "with ", "the word ", '"', "'", "`", "(", ":",
     ", ", "word, ", "write ", "json ", "list of ", "not ", "short ", "a, b and ", "table ", "columns a, ", "end with ",
     "’", "İ", "one or ", "i need to ", "- "],
)  # fmt: skip
def test_hostile_requests_take_no_time(unit: str) -> None:
    """Long requests of anything that tempts a pattern are read in under a second."""
    for request in (unit * (200_000 // len(unit)), "Write " + unit * (200_000 // len(unit)) + " words"):
        before = time.thread_time()
        constraints_in(request)
        assert time.thread_time() - before < 1


# Criteria


def prompts(*texts: str) -> pl.DataFrame:
    """Prompts whose last turn is the text."""
    rows = [
        {
            "prompt_id": f"{at:032x}",
            "prompt": [
                {"role": "user", "content": "Use at most 7 words."},
                {"role": "assistant", "content": "Use at most 9 words."},
                {"role": "user", "content": text},
            ],
            "pair_ids": [],
            "conversation_id": "0" * 32,
            "split": "train",
        }
        for at, text in enumerate(texts)
    ]
    return pl.DataFrame(rows, schema=PROMPTS)


def test_constraints_become_hard_rules() -> None:
    """Kind, check, program, source, tag, weight; of the last user turn alone."""
    made = constraint_criteria(prompts("Explain tides in at most 100 words, no emojis.", "Why?"), weight=2.0)
    assert made.schema == CRITERIA
    assert made.height == 2
    assert set(made.get_column("prompt_id")) == {"0" * 32}
    row = made.filter(pl.col("title") == "At most 100 words").to_dicts()[0]
    assert row["description"] == "At most 100 words."
    assert (row["kind"], row["check"], row["source"]) == ("hard_rule", "program", "prompt")
    assert (row["weight"], row["tags"]) == (2.0, ["constraint"])
    assert row["program"] == program_of("max_words", {"limit": 100})
    assert (row["model"], row["prompt_version"]) == (None, None)


def test_criteria_make_rubrics_by_rules() -> None:
    """What is found without a model is a rubric with the method `rules`."""
    asked = prompts("Explain tides in at most 100 words.")
    rubrics = rubric_rows(constraint_criteria(asked), asked)
    assert rubrics.get_column("method").to_list() == ["rules"]


def test_no_constraints_are_an_empty_frame_of_the_right_shape() -> None:
    """No prompts, or none that constrains."""
    assert constraint_criteria(prompts()).schema == CRITERIA
    assert constraint_criteria(prompts("Why?")).schema == CRITERIA


def test_order_of_prompts_decides_nothing() -> None:
    """The same criteria, whatever the order."""
    asked = prompts(*[request.text for request in REQUESTS[:40]])
    ordered = constraint_criteria(asked).sort("prompt_id", "id")
    assert constraint_criteria(asked.reverse()).sort("prompt_id", "id").equals(ordered)


def test_a_wrong_label_is_refused(tmp_path: Path) -> None:
    """A label that is no program of the library does not count silently."""
    file = tmp_path / "labels.jsonl"
    file.write_text(
        '{"text": "x", "fold": "dev", "programs": [{"verifier": "max_wrods", "arguments": {}}]}\n'
    )
    with pytest.raises(BadInput, match="max_words"):
        read_requests(file)
