"""Retrieval by TF-IDF: nearest texts, whatever the order of documents and however many queries come together."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import ConfigError, MissingExtra
from tilth.transforms.rubrics import retrieval
from tilth.transforms.rubrics.retrieval import NEAREST, Retrieval, identity, likeness, nearest, vectors
from tilth.transforms.selection.tfidf import space, user_words

DOCUMENTS = [
    "How do I plant peas in cold soil?",
    "Write a decorator in Python that logs calls.",
    "When are peas harvested?",
    "Explain Python generators to a beginner.",
    "What wine goes with lamb?",
]
WORDS = st.lists(
    st.sampled_from(["peas", "soil", "python", "call", "wine", "lamb", "write", "plant"]), max_size=6
)
TEXTS = st.lists(WORDS.map(" ".join), min_size=1, max_size=12)


def found(queries: list[str], documents: list[str], k: int, floor: float = 0.0) -> list[tuple[int, str]]:
    """Query and text of what was found, in order."""
    rows = nearest(queries, documents, k, Retrieval(min_similarity=floor))
    return [(query, documents[at]) for query, at in rows.select("query", "document").iter_rows()]


def test_like_texts_are_found_in_order() -> None:
    """The documents on a query's topic come first, with falling similarity and ranks from 1; others are not found."""
    rows = nearest(["planting peas"], DOCUMENTS, 5)
    assert rows.schema == NEAREST
    assert rows["document"].to_list() == [0, 2]
    assert rows["rank"].to_list() == [1, 2]
    assert 1 > rows["similarity"][0] > rows["similarity"][1] > 0


def test_an_equal_text_has_similarity_one() -> None:
    """Case, punctuation and white space make no other text."""
    rows = nearest(["how do i  PLANT peas in cold soil"], DOCUMENTS, 1)
    assert rows.select("document", "similarity").row(0) == (0, 1.0)


def test_a_long_text_is_like_a_short_one_in_it() -> None:
    """Weights are of counts: no word pulls a text away from another that has it too, however long either is."""
    long = "peas and beans grow best where the soil is kept moist through all of a dry summer month"
    vectored = space([long, "peas", "beans"]).vectors
    assert vectored.min() >= 0
    assert found(["peas"], [long, "lamb"], 2) == [(0, long)]


def test_wordless_texts_are_like_nothing() -> None:
    """A query without a word finds nothing, a document without one is not found, not even by itself."""
    assert nearest(["!!", ""], ["!!", "", "peas"], 3).is_empty()


def test_nothing_to_find_finds_nothing() -> None:
    """Without queries, documents or places there are no rows, of the same types."""
    for queries, documents, k in (([], ["a"], 1), (["a"], [], 1), (["a"], ["a"], 0)):
        rows = nearest(queries, documents, k)
        assert rows.is_empty()
        assert rows.schema == NEAREST


def test_equal_documents_are_all_found_in_their_order() -> None:
    """Two documents with one text are two documents, and take two of the places."""
    rows = nearest(["peas"], ["peas now", "lamb", "peas now", "peas now"], 2)
    assert rows["document"].to_list() == [0, 2]


@pytest.mark.slow
@given(TEXTS, TEXTS, st.integers(1, 5), st.randoms())
@settings(deadline=None, max_examples=40)
def test_the_order_of_documents_decides_no_text(
    queries: list[str], documents: list[str], k: int, random: Random
) -> None:
    """Shuffled documents: the same texts, with the same similarities, at the same ranks."""
    shuffled = list(documents)
    random.shuffle(shuffled)
    assert found(queries, documents, k) == found(queries, shuffled, k)


@pytest.mark.slow
@given(TEXTS, TEXTS, st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_queries_do_not_hang_on_each_other(queries: list[str], documents: list[str], k: int) -> None:
    """What is found for all queries at once is what is found for each alone."""
    alone = [(at, text) for at, query in enumerate(queries) for _, text in found([query], documents, k)]
    assert found(queries, documents, k) == alone


@pytest.mark.slow
@given(TEXTS, TEXTS, st.integers(1, 5), st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_it_agrees_with_all_comparisons(
    queries: list[str], documents: list[str], k: int, floor: float
) -> None:
    """The k best of all pairs by similarity, then text, then place; none below the floor."""
    placed = space(sorted(set(documents)))
    alike = likeness(placed.place(queries), placed.place(documents))
    for query in range(len(queries)):
        ranked = sorted(
            (-alike[query, at], text, at)
            for at, text in enumerate(documents)
            if alike[query, at] > 0 and alike[query, at] >= floor
        )
        expected = [(query, text) for _, text, _ in ranked[:k]]
        assert [one for one in found(queries, documents, k, floor) if one[0] == query] == expected


def test_blocks_make_no_difference() -> None:
    """Queries taken in blocks, so that memory is bounded, find what each finds alone."""
    documents = [f"word{n} word{n % 97}" for n in range(retrieval.CELLS // 1_000 + 1)]
    queries = [f"word{n * 3} word{n % 89}" for n in range(1_002)]
    rows = nearest(queries, documents, 2)
    assert rows["query"].is_sorted()
    for query in (0, 998, 999, 1_001):
        alone = nearest([queries[query]], documents, 2).with_columns(query=pl.lit(query, pl.UInt32))
        assert rows.filter(query=query).equals(alone)


def test_vectors_follow_their_texts() -> None:
    """Row for row, whatever the order, repeated texts included."""
    turned = [*DOCUMENTS[::-1], DOCUMENTS[0]]
    rows, others = vectors(DOCUMENTS, Retrieval()), vectors(turned, Retrieval())
    assert (rows[[4, 3, 2, 1, 0, 0]] != others).nnz == 0


def test_the_user_s_words_are_the_last() -> None:
    """Of a prompt, what users say, its last 2,000 characters."""
    turns = [("system", "s"), ("user", "x" * 3_000), ("assistant", "a"), ("user", "the end")]
    prompts = pl.DataFrame({"prompt": [[{"role": role, "content": text} for role, text in turns]]})
    (words,) = prompts.select(user_words("prompt")).to_series().to_list()
    assert len(words) == 2_000
    assert words.endswith("xx\nthe end")
    assert set(words) <= set("x\nthe end")


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    """Unknown methods, similarities beyond 1, and a model without its method or the other way round."""
    wrongs: tuple[dict[str, Any], ...] = (
        {"method": "bm25"},
        {"min_similarity": 1.5},
        {"method": "embeddings"},
        {"model": str(tmp_path)},
    )
    for wrong in wrongs:
        with pytest.raises(ConfigError):
            Retrieval(**wrong)


def test_the_identity_names_method_and_version() -> None:
    """A version's properties can tell what was retrieved with."""
    assert identity(Retrieval()).startswith("tfidf@scikit-learn 1.")


@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is not None, reason="the extra is installed"
)
def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    """Embeddings without the package: the error says which extra to install."""
    wanted = Retrieval("embeddings", str(tmp_path))
    for ask in (lambda: identity(wanted), lambda: nearest(["a"], ["b"], 1, wanted)):
        with pytest.raises(MissingExtra, match=r"tilth\[embeddings\]"):
            ask()
