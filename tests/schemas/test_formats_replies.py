"""Single replies for training: KTO's rows lie apart and shuffled, supervised ones are never what was rejected."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tilth.schemas import conform
from tilth.schemas.formats import FORMATS
from tilth.schemas.formats.replies import best_chosen, best_rated, kto, labelled_good
from tilth.schemas.ids import content_id

Reply = tuple[int, str, bool]


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def labelled(*replies: Reply) -> pl.DataFrame:
    rows = [
        {
            "id": content_id("unpaired", str(n)),
            "prompt": said("user", f"Why {ask}?"),
            "completion": said("assistant", text),
            "label": label,
            "split": "train",
        }
        for n, (ask, text, label) in enumerate(replies)
    ]
    return conform(pl.DataFrame(rows), "unpaired")


def preferred(*pairs: tuple[int, str, str, float]) -> pl.DataFrame:
    rows = [
        {
            "id": content_id("pair", str(n)),
            "prompt": said("user", f"Why {ask}?"),
            "chosen": said("assistant", chosen),
            "rejected": said("assistant", rejected),
            "chosen_score": score,
            "split": "train",
        }
        for n, (ask, chosen, rejected, score) in enumerate(pairs)
    ]
    return conform(pl.DataFrame(rows), "pairs")


def texts(rows: pl.DataFrame, column: str) -> list[str]:
    return rows[column].list.last().struct.field("content").to_list()


@pytest.mark.slow
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.randoms(use_true_random=False))
@example([0, 0, 1], None)
@example([0, 0, 0, 1, 2], None)
@example([0, 0, 1, 1], None)
@settings(max_examples=60, deadline=None)
def test_replies_to_one_prompt_are_no_neighbours(asks: list[int], draws: Any) -> None:
    """All rows are there, with their labels; no prompt follows itself unless it has more than half of the rows; the
    order of the table decides nothing."""
    rows = labelled(*((ask, f"Reply {n}.", n % 3 == 0) for n, ask in enumerate(asks)))
    made = kto(rows)
    assert made.sort("id").equals(rows.select(made.columns).sort("id"))
    prompts = texts(made, "prompt")
    crowded = {prompt for prompt in prompts if 2 * prompts.count(prompt) > len(prompts) + 1}
    assert [one for one, other in pairwise(prompts) if one == other and one not in crowded] == []
    if draws is not None:
        assert kto(rows[draws.sample(range(rows.height), rows.height)]).equals(made)


def test_labels_and_prompts_are_not_grouped() -> None:
    """Tables come grouped by prompt and label; of 400 rows no long run has one label, and replies to a prompt lie far
    apart."""
    rows = labelled(*((n // 4, f"Reply {n}.", n < 200) for n in range(400)))
    made = kto(rows)
    runs = [len(list(run)) for _, run in groupby(made["label"])]
    assert max(runs) < 15
    assert 150 < len(runs) < 250
    prompts = texts(made, "prompt")
    for prompt in set(prompts):
        places = [place for place, other in enumerate(prompts) if other == prompt]
        assert min(later - earlier for earlier, later in pairwise(places)) > 400 // 4 // 3


def test_llama_factory_has_the_order_of_kto() -> None:
    """Labelled replies are shuffled there too."""
    rows = labelled(*((n // 4, f"Reply {n}.", n < 20) for n in range(40)))
    made, _ = FORMATS["llama-factory"].of["unpaired"].make("unpaired", {"unpaired": rows})
    assert made["id"].to_list() == kto(rows)["id"].to_list()


@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcd"), st.sampled_from("abcd"), st.floats(0, 5)))
)
@settings(max_examples=60, deadline=None)
def test_no_rejected_reply_is_learnt(drawn: list[tuple[int, str, str, float]]) -> None:
    """A prompt has at most one reply, a chosen one that no pair of the prompt rejects, and the best scored of those."""
    pairs = [one for one in drawn if one[1] != one[2]]
    if not pairs:
        return
    made = best_chosen(preferred(*pairs))
    learnt = dict(zip(texts(made, "prompt"), texts(made, "completion"), strict=True))
    assert len(learnt) == made.height
    for ask in {one[0] for one in pairs}:
        lost = {rejected for about, _, rejected, _ in pairs if about == ask}
        good = {text: score for about, text, _, score in pairs if about == ask and text not in lost}
        reply = learnt.get(f"Why {ask}?")
        assert (reply is None) == (not good)
        best = max((score for about, text, _, score in pairs if about == ask and text in good), default=0)
        assert reply is None or (ask, reply, best) in {(a, c, s) for a, c, _, s in pairs}


def test_what_is_labelled_bad_is_not_learnt() -> None:
    """Replies labelled bad are left out and counted; equal good ones count once."""
    rows = labelled((0, "Good.", True), (0, "Good.", True), (0, "Fine.", True), (0, "Bad.", False))
    made, left_out = FORMATS["sft"].of["unpaired"].make("unpaired", {"unpaired": rows})
    assert sorted(texts(made, "completion")) == ["Fine.", "Good."]
    assert left_out == {"its label is not good": 1, "an equal reply to its prompt is there": 1}
    assert labelled_good(rows.filter("label")).equals(made)


def test_the_best_rated_reply_is_learnt() -> None:
    """Of the replies to a prompt the best rated; one without a rating only where no other is."""
    rows = labelled((0, "Good.", True), (0, "Best.", True), (1, "Alone.", True))
    kept = rows.select("id", "prompt", "completion", "split", rating=pl.Series([3.0, 4.5, None]))
    rated = conform(kept, "ratings")
    assert sorted(texts(best_rated(rated), "completion")) == ["Alone.", "Best."]
