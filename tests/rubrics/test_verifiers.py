"""Verifiers: each says what it counts, takes any text, never raises, and is linear; programs are canonical data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput
from tilth.transforms.rubrics.criteria import CRITERIA, GRADES, REPLIES, criteria_rows
from tilth.transforms.rubrics.verifier_code import MAX_DEPTH
from tilth.transforms.rubrics.verifiers import (
    VERIFIERS,
    Argument,
    describe,
    grade_by_program,
    library,
    parse_program,
    passes,
    program_from_proposal,
    program_of,
    proposal_schema,
    verdict,
)

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "verifiers.md"
LIST = "Here you go:\n\n1. Wash\n   - hands\n   - feet\n2. Rinse\n3. Dry\n"
TABLE = "| Name | Age |\n|---|:--|\n| Ann | 3 |\n| Bo | 4 |\n"
CODE = "Run this:\n\n```python\nprint('hi there')\n```\nDone."
ENGLISH = "The cat sat on the mat because it was warm and the sun was in the room."
FRENCH = "Le chat est sur la chaise et il ne veut pas partir, mais nous avons une idée pour lui."


def example(argument: Argument) -> object:
    """A value that an argument takes."""
    return {
        "integer": max(3, argument.low),
        "text": "pear",
        "texts": ["pear", "plum"],
        "choice": argument.choices[0] if argument.choices else "",
    }[argument.type]


def programs() -> list[str]:
    """One program of each verifier, choices spelt out."""
    made: set[str] = set()
    for verifier in VERIFIERS.values():
        whole = {name: example(one) for name, one in verifier.arguments.items()}
        made.add(program_of(verifier.name, whole))
        for name, one in verifier.arguments.items():
            made.update(program_of(verifier.name, {**whole, name: choice}) for choice in one.choices)
    return sorted(made)


PROGRAMS = programs()


@pytest.mark.parametrize(
    ("verifier", "arguments", "reply", "expected"),
    [
        ("exact_words", {"count": 5}, "One, two - three well-known it's", True),
        ("exact_words", {"count": 3}, "- one\n- two\n1. three", True),
        ("exact_words", {"count": 4}, "我们去吧", True),
        ("exact_words", {"count": 10, "tolerance": 2}, "a b c d e f g h", True),
        ("exact_words", {"count": 10, "tolerance": 1}, "a b c d e f g h", False),
        ("max_characters", {"limit": 3}, "  abc \n", True),
        ("exact_sentences", {"count": 2}, "Dr. Smith paid 3.5 euros, e.g. for tea. He left!", True),
        ("exact_sentences", {"count": 1}, '"Stop!" he said', True),
        ("exact_sentences", {"count": 3}, "# Title\n\n- one\n- two\n\nAnd three", True),
        ("exact_sentences", {"count": 2}, "これはペンです。あれは本です。", True),
        ("exact_paragraphs", {"count": 2}, "# T\n\nOne\nstill one.\n\n---\n\nTwo.\n\n- item", True),
        ("exact_lines", {"count": 3}, "a\n\nb\n \nc\n", True),
        ("exact_list_items", {"count": 3}, LIST, True),
        ("exact_bullets", {"count": 2}, LIST, True),
        ("exact_numbered_items", {"count": 3}, LIST, True),
        ("exact_bullets", {"count": 2}, "- a\n    - b\n    - c\n- d", True),
        ("max_list_items", {"limit": 0}, "No list.\n\n* * *\n\n**Bold** text", True),
        ("max_list_items", {"limit": 0}, "A\n* b", False),
        ("exact_headings", {"count": 2}, "## One\ntext\n**Two:**\ntext #three", True),
        ("max_headings", {"limit": 0}, "```\n# a comment\n```", True),
        ("min_code_blocks", {"limit": 1}, CODE, True),
        ("min_code_blocks", {"limit": 2}, "```a\nx", False),
        ("code_block", {"language": "py"}, CODE, True),
        ("code_block", {"language": "rust"}, CODE, False),
        ("code_parses", {"language": "python"}, CODE, True),
        ("code_parses", {"language": "python"}, "```python\nprint('hi'\n```", False),
        ("code_parses", {"language": "yaml"}, "a: 1\nb: [2, 3]", True),
        ("code_parses", {"language": "yaml"}, "just words", False),
        ("code_parses", {"language": "yaml"}, "a: [1", False),
        ("code_parses", {"language": "xml"}, "<a><b/></a>", True),
        ("code_parses", {"language": "xml"}, "<a><b></a>", False),
        ("code_parses", {"language": "json"}, '```json\n{"a": 1}\n```', True),
        ("only_code_block", {}, "```\nx\n```\n", True),
        ("only_code_block", {}, CODE, False),
        ("valid_json", {}, ' {"a": [1, 2]} ', True),
        ("valid_json", {}, '```json\n{"a": 1}\n```', True),
        ("valid_json", {}, 'Sure: {"a": 1}', False),
        ("valid_json", {}, 'Sure:\n```json\n{"a": 1}\n```', False),
        ("valid_json", {"where": "anywhere"}, 'Sure:\n```json\n{"a": 1}\n```', True),
        ("json_keys", {"keys": ["a"]}, '[{"a": 1}, {"a": 2, "b": 3}]', True),
        ("json_keys", {"keys": ["a", "b"]}, '{"a": 1}', False),
        ("json_array_length", {"count": 2}, "[1, 2]", True),
        ("min_tables", {"limit": 1}, TABLE, True),
        ("exact_table_rows", {"count": 2}, TABLE, True),
        ("table_columns", {"columns": ["age", "Name"]}, TABLE, True),
        ("table_columns", {"columns": ["Size"]}, TABLE, False),
        ("table_column_count", {"count": 2}, TABLE, True),
        ("section_titles", {"titles": ["summary"]}, "## Summary:\nx", True),
        ("keywords_present", {"keywords": ["don't", "New  York"]}, "I don’t like new\nyork.", True),
        ("keywords_present", {"keywords": ["cat"]}, "concatenate", False),
        ("keywords_present", {"keywords": ["cat"], "match": "anywhere"}, "concatenate", True),
        ("keywords_absent", {"keywords": ["cat", "dog"]}, "a dogma", True),
        ("keywords_absent", {"keywords": ["cat", "dog"]}, "Dog!", False),
        ("min_keyword_count", {"keyword": "tea", "limit": 2}, "Tea or team or tea", True),
        ("max_keyword_count", {"keyword": "tea", "limit": 1}, "Tea or team or tea", False),
        ("starts_with", {"text": "Dear Ann"}, "**Dear Ann**,", True),
        ("starts_with", {"text": "Dear Ann"}, "Hello, dear Ann", False),
        ("ends_with", {"text": "Any questions?"}, 'So.\n\n"Any questions?"\n', True),
        ("ends_with", {"text": "the end"}, "This is THE END.", True),
        ("ends_with", {"text": "the end"}, "the end of it", False),
        ("contains_exactly", {"text": "<<x>>"}, "a <<x>> b", True),
        ("separated_by", {"text": "***"}, "a\n***\nb", True),
        ("separated_by", {"text": "***"}, "a\n***\n", False),
        ("one_of", {"options": ["yes", "no"]}, " **Yes.** ", True),
        ("one_of", {"options": ["yes", "no"]}, "Yes, it is", False),
        ("no_commas", {}, "a; b", True),
        ("lower_case", {}, "all lower, 3 words", True),
        ("lower_case", {}, "Not lower", False),
        ("upper_case", {}, "ALL UP 3", True),
        ("upper_case", {}, "123", None),
        ("title_case", {}, "The Lord of the Rings", True),
        ("title_case", {}, "The lord of the Rings", False),
        ("quoted", {}, '\n"All of it."', True),
        ("quoted", {}, '"', False),
        ("language", {"code": "fr"}, FRENCH, True),
        ("language", {"code": "fr"}, ENGLISH, False),
        ("language", {"code": "en"}, ENGLISH, True),
        ("language", {"code": "en"}, FRENCH, False),
        ("language", {"code": "fr"}, "Oui", None),
        ("language", {"code": "ja"}, "私は毎日コーヒーを飲みます。", True),
        ("language", {"code": "zh"}, "私は毎日コーヒーを飲みます。", False),
        ("language", {"code": "zh"}, "我每天早上都喝一杯咖啡。", True),
        ("language", {"code": "ja"}, "我每天早上都喝一杯咖啡。", False),
        ("language", {"code": "ru"}, "Мы каждый день пьём чай на кухне.", True),
        ("language", {"code": "uk"}, "Ми щодня п'ємо чай на кухні.", True),
        ("language", {"code": "ru"}, ENGLISH, False),
        ("language", {"code": "en"}, "Мы каждый день пьём чай на кухне у нас дома вечером.", False),
        ("ascii_only", {}, "plain", True),
        ("ascii_only", {}, "naïve", False),
        ("no_first_person", {}, "The US economy", True),
        ("no_first_person", {}, "Well, I'm here", False),
        ("min_questions", {"limit": 2}, 'Why? "How?" No.', True),
        ("max_questions", {"limit": 0}, "x?y is a ternary", True),
        ("ends_with_question", {}, 'Fine. "Shall we?"\n', True),
        ("ends_with_question", {}, "Shall we? Yes.", False),
        ("postscript", {}, "Bye\n\nP.S. Milk", True),
        ("postscript", {}, "Psst", False),
        ("min_citations", {"limit": 4}, "A [1, 2]. B (Smith et al., 2020). C https://a.org/x", True),
        ("min_citations", {"limit": 2}, "A [1]. B [1]. [link](x)", False),
        ("max_links", {"limit": 0}, "see [a](b.html)", False),
        ("exact_links", {"count": 1}, "see [a](https://b.org)", True),
        ("exact_placeholders", {"count": 2}, "[name], [your city] [1] [x] [a](b)", True),
        ("max_emojis", {"limit": 0}, "plain :)", True),
        ("exact_emojis", {"count": 2}, "Hi 🎉 🇫🇷", True),
        ("exact_highlights", {"count": 2}, "*a* and **b c** but 3*4*5", True),
        ("max_sentence_words", {"limit": 3}, "One two three. Four five.", True),
        ("max_sentence_words", {"limit": 2}, "One two three. Four five.", False),
        ("date_format", {"format": "YYYY-MM-DD"}, "On 2024-01-31.", True),
        ("date_format", {"format": "YYYY-MM-DD"}, "On 31 January 2024.", False),
        ("date_format", {"format": "DD/MM/YYYY"}, "Some day.", None),
        ("exact_entries", {"count": 3}, LIST, True),
        ("exact_entries", {"count": 2}, "### Tip 1: a\ntext\n### Tip 2: b\n- x\n- y\n- z", True),
        ("exact_entries", {"count": 3}, "Running text, nothing else.", None),
        ("min_entries", {"limit": 4}, LIST, False),
    ],
)  # fmt: skip
def test_a_verifier_says_what_it_says(
    verifier: str, arguments: dict[str, Any], reply: str, expected: bool | None
) -> None:
    """Each verifier on a reply that passes, one that fails, or one of which nothing can be told."""
    assert verdict(program_of(verifier, arguments), reply) is expected


def test_what_cannot_be_told_counts_for_the_reply() -> None:
    """`passes` fails a reply only where the program says so."""
    program = program_of("language", {"code": "fr"})
    assert passes(program, "Oui")
    assert passes(program, FRENCH)
    assert not passes(program, ENGLISH)


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=300)
    | st.text(alphabet="ab1.!?\"'()[]{}<>|-*#`~_:,&\\ \n\t\x00\ud800é漢🎉", max_size=300)
)
def test_any_text_has_a_verdict_and_the_same_one_twice(reply: str) -> None:
    """No verifier raises, whatever the reply; all are deterministic."""
    first = [verdict(program, reply) for program in PROGRAMS]
    assert first == [verdict(program, reply) for program in PROGRAMS]
    assert {*first} <= {True, False, None}


SIZE = 60_000
HOSTILE = (
    "a", "A", " ", "\n", "\t", ".", "?", "*", "#", "`", "~", "|", "-", "[", "(", "{", '"', "'", "_", "1",
    "<", ">", "&", "!", "é", "漢", "\u0301", "\x00", "* ", "- ", "1. ", "# ", "a.", "a ", "[a", "(A",
    "(A 20", "[1", "[1, ", "**a", "*a ", "A B ", "A & ", "A et al. ", "http://", "www.", "](", "|a", "|-",
    "| - |\n", "```\n", "~~~\n```\n", "a\n\n", '!\'"', "12/", "2024-01-", "Jan 1, ", "- - ", "a: ", "? ",
    "{a: ", "a:\n ", "'a': ", "&a *a ", "<a>", "<a ", "<!--", "a=1;", "1+", "not ", "lambda:", "f'{",
    "p.s", "I ", '{"a":', "🇫", "a—", "  \n", "x\r", "  - ", "=", "\\", "if a:\n", "async ", "@a\n",
    "a if b else ", "x.y", "pear ",
)  # fmt: skip
# `min_`, `max_` and `exact_` of a unit share its measure.
MEASURES = [
    program for program in PROGRAMS if not parse_program(program)[0].name.startswith(("exact_", "max_"))
] + [program_of("max_sentence_words", {"limit": 3})]


@pytest.mark.slow
def test_hostile_text_takes_no_time() -> None:
    """60,000 characters of anything that tempts a parser are judged by every verifier in under half a second each."""
    slow: list[tuple[str, str, float]] = []
    for unit in HOSTILE:
        reply = unit * (SIZE // len(unit)) + "x"
        for program in MEASURES:
            before = time.thread_time()  # other threads of the process are not of the parser
            verdict(program, reply)
            spent = time.thread_time() - before
            if spent > 0.5:
                slow.append((unit, program, spent))
    assert slow == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["[", "{", "(", "- ", "{a: ", "1+", "-", "not ", "lambda:", "f'{", "<a>", "&a ", "? "]
)
def test_hostile_code_within_the_limit_takes_no_time(unit: str) -> None:
    """Code short enough to be parsed is parsed in under a second too, however deep."""
    for language in ("python", "yaml", "xml", "json"):
        program = program_of("code_parses", {"language": language})
        for size in (50, 1_000, 20_000):
            before = time.thread_time()  # other threads of the process are not of the parser
            verdict(program, unit * (size // len(unit)))
            assert time.thread_time() - before < 1


@pytest.mark.parametrize(
    "unit",
    [
        "{a: ",
        "[x for ",
        "(lambda x: ",
        "f(x=",
        "{**",
        "print(",
        "f'{",
        "(x:=",
        "([{",
        "a[",
        "(a, b)[",
        "print (",
    ],
)
@pytest.mark.parametrize("tail", ["", "x", ":", " = 3"])
def test_code_as_deep_as_is_parsed_takes_no_time(unit: str, tail: str) -> None:
    """Brackets nested to the limit, and left open, which parsers of Python have taken exponential time for."""
    nested = unit * (MAX_DEPTH // sum(map(unit.count, "([{"))) + tail
    before = time.thread_time()  # other threads of the process are not of the parser
    for language in ("python", "yaml"):
        verdict(program_of("code_parses", {"language": language}), nested)
    assert time.thread_time() - before < 1


def test_bombs_are_refused_not_unfolded() -> None:
    """Entities of XML and merge keys of YAML that unfold to gigabytes cost nothing; nothing is fetched."""
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    laughs = f'<!DOCTYPE l [<!ENTITY e0 "ha">{entities}]><l>&e11;</l>'
    merges = "a0: &a0 {x: 1}\n" + "".join(
        f"a{n}: &a{n} {{b: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
    )
    outside = '<!DOCTYPE l SYSTEM "file:///etc/hostname"><l/>'
    assert verdict(program_of("code_parses", {"language": "xml"}), laughs) is None
    assert verdict(program_of("code_parses", {"language": "xml"}), outside) is True
    assert verdict(program_of("code_parses", {"language": "yaml"}), merges) is True


def test_code_is_parsed_and_never_run(tmp_path: Path) -> None:
    """Neither Python nor YAML tags do anything."""
    mark = tmp_path / "ran"
    python = f"```python\nopen({str(mark)!r}, 'w')\n```"
    yaml = f"a: !!python/object/apply:pathlib.Path.touch [{mark}]"
    assert passes(program_of("code_parses", {"language": "python"}), python)
    verdict(program_of("code_parses", {"language": "yaml"}), yaml)
    assert not mark.exists()


def test_a_program_is_canonical() -> None:
    """Order of arguments, order and repeats of texts, and what is left out decide nothing."""
    one = program_of("keywords_present", {"match": "word", "keywords": ["b", "a", "b "]})
    assert one == program_of("keywords_present", {"keywords": ("a", "b")})
    verifier, arguments = parse_program(one)
    assert program_of(verifier.name, arguments) == one
    assert json.loads(one) == {
        "verifier": "keywords_present",
        "arguments": {"keywords": ["a", "b"], "match": "word"},
    }


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_goes_there_and_back_and_can_be_read(program: str) -> None:
    """Parsing gives what was written; the description is one sentence with nothing left open."""
    verifier, arguments = parse_program(program)
    assert program_of(verifier.name, arguments) == program
    sentence = describe(program)
    assert sentence.endswith(".")
    assert sentence[0].isupper()
    assert not {*"{}|"} & {*sentence}


def test_descriptions_read_as_english() -> None:
    """One, none, several, tolerance, texts and languages."""
    said = [
        describe(program_of("max_words", {"limit": 1})),
        describe(program_of("max_list_items", {"limit": 0})),
        describe(program_of("exact_words", {"count": 100, "tolerance": 10})),
        describe(program_of("min_entries", {"limit": 2})),
        describe(program_of("keywords_absent", {"keywords": ["a {b}", "c"]})),
        describe(program_of("language", {"code": "fr"})),
        describe(program_of("min_keyword_count", {"keyword": "tea", "limit": 2})),
    ]
    assert said == [
        "At most 1 word.",
        "No list items.",
        "Between 90 and 110 words.",
        "At least 2 entries.",
        'Does not contain "a {b}" or "c".',
        "Is in French.",
        'Contains "tea" at least 2 times.',
    ]


@pytest.mark.parametrize(
    ("verifier", "arguments"),
    [
        ("max_wrods", {"limit": 1}),
        ("max_words", {}),
        ("max_words", {"limit": 1, "more": 2}),
        ("max_words", {"limit": 0}),
        ("max_words", {"limit": 10_000_000}),
        ("max_words", {"limit": "5"}),
        ("max_words", {"limit": True}),
        ("max_words", {"limit": 5.0}),
        ("starts_with", {"text": " "}),
        ("starts_with", {"text": "a\nb"}),
        ("starts_with", {"text": "a\ud800"}),
        ("starts_with", {"text": "a" * 201}),
        ("keywords_present", {"keywords": []}),
        ("keywords_present", {"keywords": "pear"}),
        ("keywords_present", {"keywords": ["a", 1]}),
        ("keywords_present", {"keywords": [str(n) for n in range(21)]}),
        ("language", {"code": "xx"}),
    ],
)
def test_a_program_that_does_not_fit_is_refused(verifier: str, arguments: dict[str, Any]) -> None:
    """Unknown verifiers, arguments that are missing, unknown, of the wrong type or out of bounds."""
    with pytest.raises(BadInput):
        program_of(verifier, arguments)


def test_the_refusal_names_the_nearest_verifier_and_no_text() -> None:
    """A misspelt name is met with the right one; what a user or model wrote is not repeated."""
    with pytest.raises(BadInput, match="max_words"):
        program_of("max_wrods", {"limit": 1})
    with pytest.raises(BadInput) as refused:
        program_of("starts_with", {"text": "secret\n" * 3})
    assert "secret" not in str(refused.value)
    with pytest.raises(BadInput) as refused:
        program_of("My secret!", {})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", "null", '{"verifier": 1, "arguments": {}}', '{"verifier": "no_commas"}', "[" * 100_000],
)
def test_what_is_no_program_is_refused(text: str) -> None:
    """Other JSON and other text."""
    with pytest.raises(BadInput):
        parse_program(text)


@pytest.mark.parametrize(
    ("verifier", "value", "arguments"),
    [
        ("max_words", "100", {"limit": 100}),
        ("max_words", " 1,000 ", {"limit": 1000}),
        ("exact_words", "100", {"count": 100, "tolerance": 0}),
        ("exact_words", "100; 10", {"count": 100, "tolerance": 10}),
        ("keywords_present", 'apple, "red pear"', {"keywords": ["apple", "red pear"], "match": "word"}),
        ("keywords_present", "apple; anywhere", {"keywords": ["apple"], "match": "anywhere"}),
        ("min_keyword_count", "2; tea; or coffee", {"limit": 2, "keyword": "tea; or coffee"}),
        ("starts_with", "Dear Ann; Bob,", {"text": "Dear Ann; Bob,"}),
        ("no_commas", "", {}),
        ("no_commas", "Yes", {}),
        ("valid_json", "", {"where": "whole"}),
        ("language", "fr", {"code": "fr"}),
        ("max_words", "a hundred", None),
        ("max_words", "100 words", None),
        ("max_words", "-5", None),
        ("max_words", "12,34", None),
        ("max_words", "", None),
        ("max_words", "100; 5", None),
        ("no_commas", "no", None),
        ("language", "French", None),
        ("keywords_present", "apple,, pear", None),
        ("none", "", None),
        ("run_code", "x", None),
    ],
)
def test_a_proposal_fits_or_is_nothing(verifier: str, value: str, arguments: dict[str, Any] | None) -> None:
    """A value in the documented form becomes a program; anything else becomes none, never a guess."""
    wanted = None if arguments is None else program_of(verifier, arguments)
    assert program_from_proposal(verifier, value) == wanted


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*VERIFIERS, "none", "x"]), st.text(max_size=60) | st.from_regex(r"[0-9,;a-z ]{0,20}"))
def test_any_proposal_is_a_valid_program_or_none(verifier: str, value: str) -> None:
    """Whatever a model proposes can be parsed back, or is None; nothing raises."""
    program = program_from_proposal(verifier, value)
    assert program is None or parse_program(program)[0].name == verifier


def test_the_schema_offers_the_library_and_nothing_else() -> None:
    """The enum is `none` and the verifiers; free text is bounded."""
    fragment: Any = proposal_schema()
    assert fragment["verifier"]["enum"] == ["none", *VERIFIERS]
    assert fragment["value"]["maxLength"] == 200


def test_the_reference_lists_the_library() -> None:
    """docs/reference/verifiers.md has each verifier with its value form, and no other."""
    rows = [line.split("|") for line in REFERENCE.read_text().splitlines() if line.startswith("| `")]
    shown = [(row[1].strip(" `"), row[2].strip(" `"), row[3].partition(".")[0].strip()) for row in rows]
    assert shown == [
        (entry["verifier"], entry["value"], str(entry["checks"]).partition(".")[0]) for entry in library()
    ]
    assert [name for name, _, _ in shown] == list(VERIFIERS)


# Grades


def _criteria(*rows: tuple[str, str | None]) -> pl.DataFrame:
    listed = [
        {"prompt_id": prompt, "description": f"{prompt} {program}", "program": program,
         "check": "program" if program else "judge"}
        for prompt, program in rows
    ]  # fmt: skip
    return criteria_rows(pl.DataFrame(listed, infer_schema_length=None).with_columns(weight=1.0))


def _replies(*rows: tuple[str, str, str]) -> pl.DataFrame:
    listed = [
        {"response_id": response, "prompt_id": prompt, "completion": [{"role": "assistant", "content": text}]}
        for prompt, response, text in rows
    ]
    frame = pl.DataFrame(listed)
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in REPLIES.items()
    )


SHORT = program_of("max_words", {"limit": 2})
IN_FRENCH = program_of("language", {"code": "fr"})


def test_every_criterion_meets_every_reply_of_its_prompt() -> None:
    """Programs grade the replies of their own prompt alone; criteria of judges are passed over."""
    criteria = _criteria(("p", SHORT), ("p", None), ("q", SHORT), ("q", IN_FRENCH))
    replies = _replies(("p", "r1", "one two"), ("p", "r2", "one two three"), ("q", "r3", "non"))
    grades = grade_by_program(criteria, replies)
    assert grades.schema == GRADES
    assert grades.get_column("judge").unique().to_list() == ["program"]
    told = {(row["prompt_id"], row["response_id"], row["met"]) for row in grades.iter_rows(named=True)}
    assert told == {("p", "r1", True), ("p", "r2", False), ("q", "r3", True), ("q", "r3", None)}
    assert grades.height == 4


def test_nothing_to_grade_is_an_empty_frame_of_the_right_shape() -> None:
    """No criteria, no replies."""
    assert grade_by_program(pl.DataFrame(schema=CRITERIA), pl.DataFrame(schema=REPLIES)).schema == GRADES


def test_the_last_thing_the_assistant_says_is_graded() -> None:
    """Calls of tools before the answer are not the answer."""
    replies = _replies(("p", "r", "one")).with_columns(
        completion=pl.lit(
            [
                {"role": "assistant", "content": "I will look it up now"},
                {"role": "assistant", "content": "two"},
            ],
            dtype=REPLIES["completion"],
        )
    )
    assert grade_by_program(_criteria(("p", SHORT)), replies).get_column("met").to_list() == [True]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.permutations(range(4)))
def test_order_and_duplicates_decide_no_grade(replies_at: list[int], criteria_at: list[int]) -> None:
    """Permuted and repeated rows give the same grades."""
    criteria = _criteria(("p", SHORT), ("q", SHORT), ("q", IN_FRENCH), ("p", IN_FRENCH))
    replies = _replies(*[("pq"[n % 2], f"r{n}", "mot " * n) for n in range(6)])
    expected = grade_by_program(criteria, replies)
    mixed = pl.concat([replies[replies_at], replies.head(2)])
    assert grade_by_program(pl.concat([criteria[criteria_at], criteria.tail(1)]), mixed).equals(expected)
