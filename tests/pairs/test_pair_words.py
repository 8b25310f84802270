"""The lexical measures of pairing: sentences and new content words."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.transforms.pairs import sentences
from tilth.transforms.pairs.constraints import ignored_words, new_words


def held(text: str, start: int, end: int) -> str:
    frame = pl.DataFrame({"text": [text], "start": [start], "end": [end]})
    return frame.select(sentences(pl.col("text"), pl.col("start"), pl.col("end"))).item()


@pytest.mark.parametrize(
    ("text", "span", "expected"),
    [
        ("First. That is wrong, I said 3.5 not 4. Third.", "wrong", "That is wrong, I said 3.5 not 4."),
        ("That is wrong!! Do it again", "wrong", "That is wrong!!"),
        ("That is wrong. Do it again", "wrong.", "That is wrong."),
        ("see example.com/a is wrong\nnext line", "wrong", "see example.com/a is wrong"),
        ("One. Two bad. Three bad! Four.", "bad. Three bad", "Two bad. Three bad!"),
        ("wrong", "wrong", "wrong"),
        ("Ça ne va pas ! C’est faux. Oui", "faux", "C’est faux."),
    ],
)
def test_the_sentences_around_a_span(text: str, span: str, expected: str) -> None:
    """Sentences end at marks before white space and at line breaks, not inside numbers and addresses."""
    start = text.index(span)
    assert held(text, start, start + len(span)) == expected


@given(st.text("ab .!?\né", max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_sentences_are_verbatim_and_hold_their_span(text: str, one: int, other: int) -> None:
    """Whatever the text, the result is a substring of it and holds the span."""
    start, end = sorted((min(one, len(text)), min(other, len(text))))
    assert held(text, start, end) in text
    assert text[start:end].strip() in held(text, start, end)


@pytest.mark.parametrize(
    ("known", "said", "new", "share"),
    [
        ("capital of Australia", "capitals, Australia's CAPITAL!", 0, 0.0),
        ("capital of Australia", "that's wrong, please answer my question", None, None),
        ("capital of Australia", "a poem about the capital", 1, 0.5),
        ("", "under 100 words", 2, 1.0),
        ("don’t", "", None, None),
    ],
)
def test_new_words_are_content_that_was_not_there(
    known: str, said: str, new: int | None, share: float | None
) -> None:
    """Inflection, function words and words about the reply are not new; numbers are content."""
    assert new_words(pl.DataFrame({"known": [known], "said": [said], "beyond": [0]})).row(0) == (new, share)


def test_ignored_words_are_written_as_texts_are_compared() -> None:
    """Every ignored word is in lower case, occurs once, and is a single word to the measure."""
    words = ignored_words()
    assert len(words) == len(set(words)) > 300
    texts = pl.DataFrame({"known": [""] * len(words), "said": words, "beyond": [0] * len(words)})
    assert new_words(texts).get_column("new").null_count() == len(words)


def test_texts_with_few_content_words_are_not_looked_up() -> None:
    """Up to `beyond` content words cannot be too many, whatever is known."""
    rows = pl.DataFrame({"known": ["", "tea"], "said": ["tea milk", "tea milk sugar"], "beyond": [2, 2]})
    assert new_words(rows).rows() == [(None, None), (2, 2 / 3)]
