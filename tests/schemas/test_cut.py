"""CUT triples: judged replies and satisfied ones, balanced to the card's figures; no reply is both."""

from __future__ import annotations

from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput, ConfigError, conform, empty
from tilth.schemas.formats import cut_triples
from tilth.schemas.ids import content_id

# Of `train-alpaca-sample-iter{1..5}.json`: rows without a judgment of 1000, those kept, the size to train on.
PUBLISHED: Final = [(713, 71, 358), (769, 57, 288), (758, 60, 302), (755, 61, 306), (754, 61, 307)]


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def pair(
    n: int, chosen: str = "Good.", rejected: str = "Bad.", ask: int | None = None, split: str = "train"
) -> Any:
    about = n if ask is None else ask
    return {
        "id": content_id("pair", str(n)),
        "prompt_id": content_id("prompt", str(about)),
        "prompt": said("user", f"Why {about}?"),
        "chosen": said("assistant", chosen),
        "rejected": said("assistant", rejected),
        "split": split,
    }


def rationale(n: int, text: str | None = "It is wrong.", kind: str = "user_complaint", **more: Any) -> Any:
    told = {"pair_id": content_id("pair", str(n)), "kind": kind, "text": text, "split": "train", **more}
    return {"id": content_id("rationale", str(n), kind, str(text)), **told}


def table(name: str, *rows: Any) -> pl.DataFrame:
    return pl.concat([empty(name), *(conform(pl.DataFrame([row]), name) for row in rows)])


def polarities(rows: pl.DataFrame) -> dict[str, int]:
    return dict(rows.group_by("polarity").len().iter_rows())


@pytest.mark.parametrize(("nulls", "kept", "size"), PUBLISHED)
def test_the_balance_of_the_published_rounds(nulls: int, kept: int, size: int) -> None:
    """Of 1000 rows with so many null or empty judgments, a quarter as many satisfied ones as judged ones are kept."""
    texts = [None if n % 2 else "" for n in range(nulls)] + ["It is wrong."] * (1000 - nulls)
    pairs = conform(pl.DataFrame([pair(n) for n in range(1000)]), "pairs")
    rationales = conform(pl.DataFrame([rationale(n, text) for n, text in enumerate(texts)]), "rationales")
    made = cut_triples(rationales, pairs)
    assert polarities(made) == {"negative": 1000 - nulls, "positive": kept}
    assert made.height == size


def test_a_judged_reply_whole() -> None:
    """The rejected reply is the output, the chosen one improves on it, only the aligned prompt has the judgment."""
    made = cut_triples(table("rationales", rationale(0)), table("pairs", pair(0)))
    assert made.to_dicts() == [
        {
            "id": rationale(0)["id"],
            "prompt": said("user", "Why 0?"),
            "output": said("assistant", "Bad."),
            "judgment": "It is wrong.",
            "improved": said("assistant", "Good."),
            "prompt_aligned": said(
                "user", "Why 0?\n\n(Write a reply that this judgment would be true of: It is wrong.)"
            ),
            "prompt_misaligned": said("user", "Why 0?"),
            "polarity": "negative",
            "split": "train",
        }
    ]


def test_a_satisfied_reply_whole() -> None:
    """The chosen reply is the output of the request alone; nothing is judged, improved or misaligned."""
    made = cut_triples(table("rationales", rationale(0)), table("pairs", pair(0)), satisfied_share=1.0)
    (row,) = made.filter(pl.col("polarity") == "positive").to_dicts()
    assert row == {
        "id": pair(0)["id"],
        "prompt": said("user", "Why 0?"),
        "output": said("assistant", "Good."),
        "judgment": None,
        "improved": None,
        "prompt_aligned": said("user", "Why 0?"),
        "prompt_misaligned": None,
        "polarity": "positive",
        "split": "train",
    }


def test_earlier_turns_stay_as_they_are() -> None:
    """The judgment goes into the last turn of a conversation; the turns before it are the same in both prompts."""
    whole = pair(0) | {
        "prompt": [*said("system", "S"), *said("user", "Hi"), *said("assistant", "Yo"), *said("user", "So?")]
    }
    (row,) = cut_triples(table("rationales", rationale(0)), table("pairs", whole)).to_dicts()
    assert row["prompt_aligned"][:-1] == row["prompt_misaligned"][:-1] == whole["prompt"][:-1]
    assert row["prompt_misaligned"] == whole["prompt"]


def test_only_what_faults_the_rejected_reply_is_a_judgment() -> None:
    """Comparisons, measured differences, blank texts and what is said of the chosen reply make no negative row."""
    rows = [
        rationale(0, "Compares.", "general"),
        rationale(0, "Cites.", "specific"),
        rationale(0, "The better reply: 1 word against 2.", "factors"),
        rationale(0, " \n", "judgment"),
        rationale(0, "Good one.", "judgment", side="chosen"),
        rationale(0, "Weak one.", "judgment", side="rejected"),
    ]
    made = cut_triples(table("rationales", *rows), table("pairs", pair(0)))
    assert made["judgment"].to_list() == ["Weak one."]


def test_a_reply_that_some_pair_rejects_satisfies_nobody() -> None:
    """The middle of three ranked replies is chosen in one pair and rejected in another: it is no satisfied sample."""
    pairs = table("pairs", pair(0, "Best.", "Middle.", ask=9), pair(1, "Middle.", "Worst.", ask=9))
    made = cut_triples(table("rationales", rationale(1)), pairs, satisfied_share=9.0)
    positive = made.filter(pl.col("polarity") == "positive")
    assert positive["output"].to_list() == [said("assistant", "Best.")]


def test_what_is_said_of_one_reply_in_several_pairs_counts_once() -> None:
    """A complaint beside two better replies is one judged reply; a reply chosen twice is one satisfied one."""
    pairs = table(
        "pairs", pair(0, "Best.", ask=9), pair(1, "Better.", ask=9), pair(2, "Best.", "Worse.", ask=9)
    )
    made = cut_triples(table("rationales", rationale(0), rationale(1)), pairs, satisfied_share=9.0)
    assert polarities(made) == {"negative": 1, "positive": 2}


def test_each_split_is_balanced_by_itself() -> None:
    """Satisfied samples are as many as the judged ones of their own split allow."""
    pairs = [pair(n, split="train" if n < 8 else "test") for n in range(40)]
    rationales = [rationale(n, split="train" if n < 8 else "test") for n in range(12)]
    made = cut_triples(table("rationales", *rationales), table("pairs", *pairs))
    counts = dict(made.filter(pl.col("polarity") == "positive").group_by("split").len().iter_rows())
    assert counts == {"train": 2, "test": 1}


@pytest.mark.slow
@given(
    st.integers(1, 12),
    st.integers(0, 12),
    st.floats(0, 2),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_rows_in_any_order_give_the_same_draw(
    judged: int, more: int, share: float, seed: int, draws: Any
) -> None:
    """The draw follows from seed and ids; every judged reply stays, and no output is of both polarities."""
    pairs = table("pairs", *(pair(n) for n in range(judged + more)))
    rationales = table("rationales", *(rationale(n) for n in range(judged)))
    made = cut_triples(rationales, pairs, share, seed)
    order = draws.sample(range(pairs.height), pairs.height)
    assert cut_triples(rationales.reverse(), pairs[order], share, seed).equals(made)
    assert polarities(made).get("negative") == judged
    assert polarities(made).get("positive", 0) == min(int(judged * share), judged + more)
    negative, positive = (
        {row["id"] for row in made.to_dicts() if row["polarity"] == of} for of in ("negative", "positive")
    )
    assert not negative & positive


def test_another_seed_is_another_draw() -> None:
    """Seeds draw different satisfied samples, and the same number of them."""
    pairs = table("pairs", *(pair(n) for n in range(200)))
    rationales = table("rationales", *(rationale(n) for n in range(200)))
    one, other = (cut_triples(rationales, pairs, seed=seed) for seed in (1, 2))
    assert one.height == other.height == 250
    assert set(one["id"]) != set(other["id"])


def test_what_cannot_be_meant() -> None:
    """A share below 0 and rationales without their pairs are refused."""
    with pytest.raises(ConfigError):
        cut_triples(empty("rationales"), empty("pairs"), satisfied_share=-0.1)
    with pytest.raises(BadInput):
        cut_triples(table("rationales", rationale(0)), table("pairs", pair(1)))
