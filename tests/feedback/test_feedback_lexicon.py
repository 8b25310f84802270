"""The lexicon: every pattern finds its examples and leaves its counter-examples alone."""

from __future__ import annotations

import doctest
import re
from importlib import resources

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import ConfigError
from tilth.transforms.feedback import DSAT, SAT, FeedbackRules, matching, patterns, prefilter
from tilth.transforms.feedback.patterns import CONTEXTS, Pattern, lexicon
from tilth.transforms.feedback.speech import spoken


def hits(texts: list[str], facts: tuple[str, ...] = ()) -> pl.DataFrame:
    """Everything the lexicon finds in `texts`."""
    turns = pl.DataFrame(
        {
            "turn": pl.Series(range(len(texts)), dtype=pl.UInt32),
            "spoken": spoken(pl.Series(texts), FeedbackRules()),
        }
    )
    return matching.matches(turns.with_columns(pl.lit(name in facts).alias(name) for name in CONTEXTS))


def found_by(pattern: Pattern, texts: tuple[str, ...]) -> list[bool]:
    turns = pl.DataFrame(
        {
            "turn": pl.Series(range(len(texts)), dtype=pl.UInt32),
            "spoken": spoken(pl.Series(texts), FeedbackRules()),
        }
    ).with_columns(pl.lit(name in pattern.when).alias(name) for name in CONTEXTS)
    found = {turn for hits in matching.matches_of([pattern], turns) for turn in hits.get_column("turn")}
    return [at in found for at in range(len(texts))]


@pytest.mark.slow
@pytest.mark.parametrize("label", [*SAT, *DSAT])
def test_examples_beside_each_pattern(label: str) -> None:
    """A pattern finds each `match` and no `no_match`, and has at least one of either."""
    for pattern in lexicon()[label]:
        assert pattern.match
        assert pattern.no_match
        expected = [True] * len(pattern.match) + [False] * len(pattern.no_match)
        assert (pattern.index, found_by(pattern, pattern.match + pattern.no_match)) == (
            pattern.index,
            expected,
        )


def test_every_label_has_patterns_in_a_packaged_file() -> None:
    """Eighteen labels, one data file each, read as package data."""
    files = {file.name for file in resources.files("tilth.transforms.feedback").joinpath("lexicon").iterdir()}
    assert {f"{label}.yaml" for label in (*SAT, *DSAT)} <= files
    assert all(lexicon()[label] for label in (*SAT, *DSAT))


@pytest.mark.slow
def test_the_prefilter_never_hides_a_match() -> None:
    """Whatever a pattern matches holds one of the words that the prefilter asks for."""
    for pattern in prefilter.patterns():
        words = prefilter.required_words(pattern.regex)
        texts = spoken(pl.Series(pattern.match), FeedbackRules())
        assert not words or all(any(word in text for word in words) for text in texts), (
            pattern.label,
            pattern.index,
        )


ATOMS = st.sampled_from(
    ["a", "b", "c", " ", "x", "[ab]", r"\.", "(?:ab|c)", "(?:a)?", "b*", "c+", "(?:a|bc){1,2}"]
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(ATOMS, min_size=1, max_size=5), min_size=1, max_size=3), st.text("abcx .", max_size=12)
)
def test_required_words_are_required(options: list[list[str]], text: str) -> None:
    """No text without one of the required words matches, for regular expressions of any shape in use."""
    regex = f"({'|'.join(''.join(option) for option in options)})"
    words = prefilter.required_words(regex)
    assert not (words and re.search(regex, text) and not any(word in text for word in words))


def test_doctests_hold() -> None:
    """The example in the prefilter is true."""
    assert doctest.testmod(prefilter).failed == 0


def test_a_negated_match_is_no_match() -> None:
    """Words that take a complaint back do so; a comma ends their reach."""
    assert hits(["i don't think that's wrong"]).is_empty()
    assert not hits(["no, that's wrong"]).is_empty()


@pytest.mark.parametrize(
    "entry",
    [
        {"pattern": "x", "weight": 2, "scope": "anywhere", "match": ["x"], "no_match": ["y"]},
        {"pattern": "x", "weight": 0.5, "scope": "somewhere", "match": ["x"], "no_match": ["y"]},
        {"pattern": "x", "weight": 0.5, "scope": "anywhere", "match": ["x"]},
        {
            "pattern": "x",
            "weight": 0.5,
            "scope": "anywhere",
            "match": ["x"],
            "no_match": ["y"],
            "when": ["bored"],
        },
        {
            "pattern": "x",
            "weight": 0.5,
            "scope": "anywhere",
            "match": ["x"],
            "no_match": ["y"],
            "colour": "red",
        },
    ],
)
def test_a_broken_entry_is_refused(entry: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight, scope, fact or key that does not exist, or a missing example, is an error that names the entry."""
    load = patterns.load
    monkeypatch.setattr(patterns, "load", lambda name: [entry] if name == "praise" else load(name))
    with pytest.raises(ConfigError, match="entry 0 of praise"):
        patterns.lexicon.__wrapped__()


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1))
def test_spoken_text_keeps_every_place(texts: list[str]) -> None:
    """Blanking and lower case never move a character."""
    rules = FeedbackRules(long_chars=40, edge_chars=10)
    assert [len(text) for text in spoken(pl.Series(texts), rules)] == [len(text) for text in texts]
