"""The cascade: who decides about a turn, that every turn is decided once, and what becomes of both sides' rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.talks import answers, entry, name, talk, talks
from tilth.schemas import ConfigError
from tilth.schemas.contracts import measure
from tilth.transforms.feedback import mine
from tilth.transforms.feedback.cascade import Cascade, Settled, joined, settle_turns
from tilth.transforms.feedback.evaluate import read_labelled
from tilth.transforms.feedback.labelling import label_requests, labelled

SAMPLE = Path(__file__).parents[2] / "samples" / "feedback_labelled.jsonl"
SURE = "No, that's completely wrong. You are useless, you didn't answer my question."
FAINT = "are you sure?"
PLAIN = "Now write the second chapter of the story, in which the two sisters meet the old man by the river."


def fate(*turns: str, config: Cascade = Cascade(), **columns: Any) -> list[str | None]:  # noqa: B008
    """Who settled each user turn of one conversation."""
    return settle_turns(talks(talk(*turns, **columns)), config).turns.get_column("settled_by").to_list()


def chances(rows: pl.DataFrame, p_sat: float, p_dsat: float) -> pl.DataFrame:
    """The same probabilities for every turn."""
    turns = settle_turns(rows).turns.select("conversation_id", "message_index")
    return turns.with_columns(p_sat=pl.lit(p_sat), p_dsat=pl.lit(p_dsat))


def asked_and_answered(rows: pl.DataFrame, settled: Settled, items: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """The feedback of all methods after every request got the same answer."""
    questions = label_requests(rows, settled.asked)
    completions = answers(dict.fromkeys(questions.requests.get_column("id"), items))
    made = labelled(rows, settled.turns, questions.asked, completions)
    return joined(settled, made.feedback, made.answered, rows)


@pytest.mark.slow
def test_rules_settle_what_they_are_sure_of() -> None:
    """A loud complaint and a plain request need no model; what is in between does; no text says nothing."""
    assert fate("q", "An answer.", SURE) == ["rules"]
    assert fate("q", "An answer.", PLAIN) == ["quiet"]
    assert fate("q", "An answer.", FAINT) == [None]
    assert fate("q", "An answer.", " \n") == ["quiet"]
    assert fate("q") == []


@pytest.mark.slow
def test_other_languages_are_left_to_the_model() -> None:
    """Rules and classifier are for English; without a model such turns are unread, and said to be."""
    spoken = ("q", "An answer.", PLAIN, "Another.", SURE)
    assert fate(*spoken, language="de") == [None, None]
    assert fate(*spoken, language="de", config=Cascade(mode="rules")) == ["unread", "unread"]
    rows = talks(talk(*spoken, language="de"))
    settled = settle_turns(rows, probabilities=chances(rows, 0.01, 0.99))
    assert (settled.asked.height, settled.feedback.height) == (2, 0)


@pytest.mark.slow
def test_the_modes_ask_about_nothing_or_about_everything() -> None:
    """Mode rules gives exactly what mining by rules gives; mode all asks about each turn with text."""
    rows = talks(talk("q", "a", SURE, "b", FAINT, "c", PLAIN))
    settled = settle_turns(rows, Cascade(mode="rules"))
    assert settled.asked.is_empty()
    assert settled.feedback.equals(mine(rows).feedback)
    assert settle_turns(rows, Cascade(mode="all")).asked.get_column("message_index").to_list() == [2, 4, 6]


@pytest.mark.slow
def test_the_documented_figures_of_the_defaults_are_those_of_the_sample() -> None:
    """What the docstring of `Cascade` says of the two folds is what comes out: settled, and settled rightly."""
    found = {}
    for fold in ("dev", "held_out"):
        rows = read_labelled(SAMPLE, fold)
        settled = settle_turns(rows)
        last = rows.select(
            truth="polarity",
            conversation_id="id",
            message_index=(pl.col("messages").list.len() - 1).cast(pl.Int32),
        )
        key = ["conversation_id", "message_index"]
        said = settled.feedback.select(*key, "polarity").unique(key)
        judged = last.join(settled.turns, on=key).join(said, on=key, how="left")
        right = pl.col("polarity").fill_null("none") == pl.col("truth")
        by = judged.group_by("settled_by").agg(pl.len(), right.sum().alias("right"))
        found[fold] = {who: (n, good) for who, n, good in by.iter_rows() if who}
    assert found == {
        "dev": {"rules": (60, 57), "quiet": (69, 66)},
        "held_out": {"rules": (27, 24), "quiet": (37, 31)},
    }


@pytest.mark.slow
def test_every_turn_has_one_fate_and_the_counts_add_up() -> None:
    """Turns are settled or asked; conversations in which nothing is asked are calls saved."""
    rows = talks(talk("q", "a", SURE, "b", FAINT, called="x"), talk("q", "a", PLAIN, called="y"))
    counts = settle_turns(rows).counts
    assert counts == {
        "conversations": 2,
        "conversations_without_call": 1,
        "turns": 3,
        "settled_by_rules": 1,
        "settled_as_quiet": 1,
        "settled_by_classifier": 0,
        "unread": 0,
        "asked": 1,
    }


def test_a_turn_that_paths_share_is_settled_once() -> None:
    """It counts once, whichever path is read first, and only its owner asks about it."""
    one = talk("q", "a", FAINT, "b", FAINT, called="one", record="tree")
    two = talk("q", "a", FAINT, "c", FAINT, called="two", record="tree", owned_from=3)
    for rows in (talks(one, two), talks(two, one)):
        settled = settle_turns(rows)
        assert settled.counts["turns"] == 3
        asked = settled.asked.select("conversation_id", "message_index").rows()
        assert sorted(asked) == sorted([(name("one"), 2), (name("one"), 4), (name("two"), 4)])


@pytest.mark.slow
def test_a_shared_turn_whose_owner_is_gone_is_asked_about_all_the_same() -> None:
    """A duplicate path that was set aside takes no turn with it."""
    rows = talks(talk("q", "a", FAINT, "c", FAINT, called="two", record="tree", owned_from=3))
    assert settle_turns(rows).asked.get_column("message_index").to_list() == [2, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("p_sat", "p_dsat", "settled_by", "polarities"),
    [
        (0.01, 0.01, "classifier", []),
        (0.97, 0.01, "classifier", ["positive"]),
        (0.01, 0.97, "classifier", ["negative"]),
        (0.5, 0.01, None, ["negative"]),
        (0.97, 0.97, None, ["negative"]),
    ],
)
def test_only_the_uncertain_band_of_a_classifier_goes_to_the_model(
    p_sat: float, p_dsat: float, settled_by: str | None, polarities: list[str]
) -> None:
    """Sure either way it decides, against weak signals of the rules too; in between, or of both sides, the model does.

    The rules have a weak complaint here, which stands until somebody knows better.
    """
    rows = talks(talk("q", "An answer.", FAINT))
    settled = settle_turns(rows, Cascade(), probabilities=chances(rows, p_sat, p_dsat))
    assert settled.turns.get_column("settled_by").to_list() == [settled_by]
    assert settled.feedback.get_column("polarity").to_list() == polarities


def test_a_classifiers_own_row_keeps_the_contract_and_names_no_label_it_cannot_know() -> None:
    """Its strength is the probability, its evidence the turn, its label the widest of the side."""
    rows = talks(talk("q", "a", "hmm, let us look at the other thing 🙂"))
    given_ = chances(rows, 0.01, 0.96)
    settled = settle_turns(rows, Cascade(evidence_chars=20), probabilities=given_, classifier="abc")
    (row,) = settled.feedback.iter_rows(named=True)
    assert (row["labels"], row["strength"], row["method"]) == (["negative_feedback"], 0.96, "model")
    assert row["evidence"][0]["text"] == "hmm, let us look at "
    assert row["method_version"] == "classifier abc"
    counts = measure("feedback", settled.feedback.drop("owned")).counts
    assert [flag for flag, count in counts.items() if count] == []


@pytest.mark.slow
def test_the_rules_are_sure_before_a_classifier_is_asked() -> None:
    """A strong signal of the rules stands, whatever the classifier says."""
    rows = talks(talk("q", "a", SURE))
    settled = settle_turns(rows, probabilities=chances(rows, 0.99, 0.01))
    assert settled.feedback.get_column("polarity").to_list() == ["negative"]


def test_where_the_model_answered_its_labels_stand_in_place_of_the_rules() -> None:
    """Its row replaces the weak one, and its silence too; one that failed or was refused leaves the rules' row."""
    rows = talks(talk("q", "An answer.", FAINT))
    settled = settle_turns(rows)
    assert settled.feedback.get_column("method").to_list() == ["rules"]

    def after(*items: dict[str, Any]) -> list[tuple[object, ...]]:
        return asked_and_answered(rows, settled, items).select("method", "polarity").rows()

    assert after(entry(2, "are you", dissatisfaction=["factual_error"])) == [("model", "negative")]
    assert after(entry(2, "sure", satisfaction=["praise"])) == [("model", "positive")]
    assert after(entry(2)) == []
    assert after() == [("rules", "negative")]
    assert after(entry(2, "not there", satisfaction=["praise"])) == [("rules", "negative")]


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.lists(st.sampled_from((SURE, FAINT, PLAIN, "thanks", "", "so?")), max_size=4),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(("rules", "cascade", "all")),
    st.sampled_from((None, (0.01, 0.01), (0.01, 0.99), (0.5, 0.5))),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_no_turn_counts_twice_and_the_order_of_rows_changes_nothing(
    talked: list[list[str]], mode: Any, sides: tuple[float, float] | None, displeased: bool, chance: Any
) -> None:
    """One row per turn and polarity whoever decided; permuted conversations give the same turns and rows."""
    rows = talks(
        *(
            talk("q", *[part for w in words for part in ("a", w)], called=str(n))
            for n, words in enumerate(talked)
        )
    )
    order = list(range(rows.height))
    chance.shuffle(order)
    given_ = None if sides is None else chances(rows, *sides)
    made = []
    for conversations in (rows, rows[order]):
        settled = settle_turns(conversations, Cascade(mode=mode), probabilities=given_)
        assert settled.counts["turns"] == sum(len(words) for words in talked)
        items = [entry(2, "a", dissatisfaction=["style"] if displeased else [])]
        made.append((settled.turns, asked_and_answered(conversations, settled, items)))
    assert made[0][0].equals(made[1][0])
    assert made[0][1].equals(made[1][1])
    assert not made[0][1].select("conversation_id", "message_index", "polarity").is_duplicated().any()


@pytest.mark.parametrize("wrong", [{"mode": "none"}, {"low": 0.5, "high": 0.5}, {"high": 1.5}])
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    """An unknown mode, and a band without inside."""
    with pytest.raises(ConfigError):
        Cascade(**wrong)
