"""The trained classifier of user turns."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput, ConfigError, NotFound, conform
from tilth.transforms.feedback import FeedbackRules, mine
from tilth.transforms.feedback.classifier import (
    Classifier,
    ClassifierConfig,
    load_classifier,
    probabilities,
    save_classifier,
    train,
    uncertain,
)
from tilth.transforms.feedback.classifier_quality import (
    calibration_error,
    cross_validated,
    labels_of_feedback,
    labels_of_people,
    on_held_out,
)
from tilth.transforms.feedback.features import ngram_matrix, ngram_scores

CONFIG = ClassifierConfig(bits=14, rule_scores=False, folds=3)
GOOD = ("thanks, that worked", "great, thank you", "perfect answer, thanks", "lovely, this worked well")
BAD = ("no, that is wrong", "this is wrong again", "still wrong, try again", "wrong, not what i asked")
PLAIN = ("and what about spain", "list the rivers", "how long is the nile", "write a second verse")
TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30), max_size=12)


def talks(count: int = 36) -> pl.DataFrame:
    """Labelled conversations whose last turn is plainly pleased, plainly displeased, or neither."""
    rows = [
        {
            "id": f"c{at:03d}",
            "record_id": f"c{at:03d}",
            "messages": [
                {"role": "user", "content": f"Question {at}?"},
                {"role": "assistant", "content": "It is four."},
                {"role": "user", "content": f"{kind[at // 3 % 4]} {at}"},
            ],
            "owned_from": 0,
            "polarity": polarity,
        }
        for at in range(count)
        for kind, polarity in [((GOOD, "positive"), (BAD, "negative"), (PLAIN, "none"))[at % 3]]
    ]
    known = pl.DataFrame(rows)
    return conform(known.drop("polarity"), "conversations").with_columns(known.get_column("polarity"))


@pytest.fixture(scope="module")
def model() -> Classifier:
    """A classifier of `talks`."""
    return train(talks(), labels_of_people(talks()), CONFIG)


@pytest.mark.slow
@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_a_text_has_the_same_ngrams_wherever_it_stands(texts: list[str]) -> None:
    """Neighbours and order change nothing, and scores are those of the matrix."""
    series = pl.Series(texts, dtype=pl.String)
    matrix = ngram_matrix(series, 12)
    for at, text in enumerate(texts):
        alone = ngram_matrix(pl.Series([text]), 12)
        assert np.allclose(matrix[[at]].toarray(), alone.toarray())
    weights = np.random.default_rng(0).normal(size=(1 << 12, 2)).astype(np.float32)
    assert np.allclose(ngram_scores(series, weights), matrix @ weights, atol=1e-4)


def test_ngrams_are_words_pairs_of_words_and_runs_of_characters() -> None:
    """'ab cd' has 2 words, 1 pair, and 5 + 4 + 3 runs of 3, 4 and 5 characters of ' ab cd '."""
    row = ngram_matrix(pl.Series(["ab cd"]), 24)
    assert row.nnz == 2 + 1 + 5 + 4 + 3
    assert sorted(set(np.round(row.data, 5))) == sorted({round(1 / 12**0.5, 5), round(1 / 3**0.5, 5)})


def test_it_learns_what_is_plain(model: Classifier) -> None:
    """Pleased and displeased turns are told apart, in words that it has not seen in this order."""
    said = ["thanks, lovely answer that worked", "still not what i asked, wrong"]
    asked = talks(2).with_columns(
        pl.Series("messages", [_talk(text) for text in said], dtype=talks(1).schema["messages"])
    )
    pleased, displeased = probabilities(asked, model).select("p_sat", "p_dsat").rows()
    assert pleased[0] > 2 * displeased[0]
    assert displeased[1] > 2 * pleased[1]


def _talk(last: str) -> list[dict[str, str]]:
    turns = [("user", "Question?"), ("assistant", "It is four."), ("user", last)]
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.slow
@given(st.randoms(use_true_random=False))
@settings(max_examples=5, deadline=None)
def test_the_order_of_rows_changes_nothing(model: Classifier, random: Random) -> None:
    """The same labels in another order make the same model; a conversation has the same probability anywhere."""
    places = list(range(36))
    random.shuffle(places)
    rows, labels = talks()[places], labels_of_people(talks())[places[::-1]]
    assert train(rows, labels, CONFIG).version == model.version
    keys = ["conversation_id", "message_index"]
    assert probabilities(rows, model).sort(keys).equals(probabilities(talks(), model).sort(keys))


def test_the_probability_is_that_of_scikit_learn(model: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that were read out give what the fitted estimator gives."""
    from sklearn.calibration import CalibratedClassifierCV

    kept: list[tuple[CalibratedClassifierCV, np.ndarray]] = []
    fit = CalibratedClassifierCV.fit

    def remembering(self: CalibratedClassifierCV, x: object, y: object) -> object:
        fitted = fit(self, x, y)
        kept.append((self, self.predict_proba(x)[:, 1]))
        return fitted

    monkeypatch.setattr(CalibratedClassifierCV, "fit", remembering)
    again = train(talks(), labels_of_people(talks()), CONFIG)
    found = probabilities(talks(), again).select("p_sat", "p_dsat").to_numpy()
    assert np.allclose(found, np.stack([said for _, said in kept], axis=1), atol=1e-5)
    assert again.version == model.version


def test_a_file_gives_back_the_model(model: Classifier, tmp_path: Path) -> None:
    """What was saved is loaded, equal in version and in what it says; two saves are the same bytes."""
    one, two = str(tmp_path / "one.npz"), str(tmp_path / "two.npz")
    save_classifier(model, one)
    save_classifier(model, two)
    assert Path(one).read_bytes() == Path(two).read_bytes()
    loaded = load_classifier(one)
    assert loaded.version == model.version
    assert loaded.trained_on == {"turns": 36, "groups": 36, "sat": 12, "dsat": 12}
    assert probabilities(talks(), loaded).equals(probabilities(talks(), model))


def _resaved(path: Path, **changes: object) -> None:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(str(arrays.pop("header"))) | {k: v for k, v in changes.items() if k != "bias"}
    if "bias" in changes:
        arrays["bias"] = arrays["bias"] + 1
    with path.open("wb") as out:
        np.savez(out, header=np.array(json.dumps(header)), **arrays)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"form": 0}, "another version of Tilth"),
        ({"rules_version": "0"}, "another version of Tilth"),
        ({"bias": 1}, "another digest"),
        ({"version": "0"}, "another digest"),
    ],
)
def test_a_changed_or_older_file_is_refused(
    model: Classifier, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    """It never labels a row."""
    path = tmp_path / "model.npz"
    save_classifier(model, str(path))
    _resaved(path, **changes)
    with pytest.raises(BadInput, match=told):
        load_classifier(str(path))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    """Other bytes, pickled objects and missing files each have their error."""
    (tmp_path / "text.npz").write_text("not a model")
    with (tmp_path / "pickled.npz").open("wb") as out:
        np.savez(out, header=np.array([{"form": 1}], dtype=object))
    for name in ("text.npz", "pickled.npz"):
        with pytest.raises(BadInput, match=f"{name} is no classifier"):
            load_classifier(str(tmp_path / name))
    with pytest.raises(NotFound):
        load_classifier(str(tmp_path / "none.npz"))


def test_labels_that_cannot_be_meant_are_refused() -> None:
    """A turn twice, a turn that is not there, and too few labels are errors before anything is learned."""
    labels = labels_of_people(talks())
    with pytest.raises(BadInput, match="labelled twice"):
        train(talks(), pl.concat([labels, labels[:1]]), CONFIG)
    with pytest.raises(BadInput, match="no user turn"):
        train(talks(), labels.with_columns(pl.lit(1, pl.Int32).alias("message_index")), CONFIG)
    with pytest.raises(BadInput, match="too few labels to train sat"):
        train(talks(6), labels_of_people(talks(6)), CONFIG)


@pytest.mark.parametrize(
    ("changes"), [{"bits": 4}, {"strength": 0.0}, {"folds": 1}, {"low": 0.9, "high": 0.1}, {"high": 1.5}]
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, float]) -> None:
    """Each is named."""
    with pytest.raises(ConfigError):
        dataclasses.replace(CONFIG, **changes)  # pyright: ignore[reportArgumentType]


def test_the_uncertain_band_takes_either_side() -> None:
    """A turn is uncertain when one of its probabilities lies in the band, its ends included."""
    rows = pl.DataFrame({"p_sat": [0.0, 0.2, 0.5, 1.0], "p_dsat": [0.1, 0.0, 0.9, 0.81]})
    assert uncertain(rows, 0.2, 0.8).to_list() == [False, True, True, False]


def test_calibration_error_by_hand() -> None:
    """Two bins: .95 said of two of which one is true (gap .9 in sum), .05 of two that are not (.1): 1.0 over 4."""
    truth, said = np.array([True, False, False, False]), np.array([0.95, 0.95, 0.05, 0.05])
    assert calibration_error(truth, said) == pytest.approx((0.9 + 0.1) / 4)


@pytest.mark.slow
def test_a_group_is_never_split_between_training_and_testing() -> None:
    """Where the turns of a group are all but equal and its label is chance, cross-validation finds chance."""
    names = ["".join(drawn) for drawn in np.random.default_rng(3).choice(list("abcdefgh"), (40, 12))]
    rows = talks(120).with_columns(
        pl.Series("messages", [_talk(names[at % 40]) for at in range(120)], dtype=talks(1).schema["messages"])
    )
    labels = labels_of_people(rows).with_columns(
        pl.Series("group", [names[at % 40] for at in range(120)]),
        pl.Series("sat", [at % 40 % 2 == 0 for at in range(120)]),
        pl.Series("dsat", [at % 40 % 3 == 0 for at in range(120)]),
    )
    together = cross_validated(rows, labels, CONFIG, FeedbackRules())[0]
    alone = labels.with_columns(pl.col("conversation_id").alias("group"))
    assert together.auc < 0.8
    assert cross_validated(rows, alone, CONFIG, FeedbackRules())[0].auc > 0.95
    assert (together.turns, together.support) == (120, 60)


@pytest.mark.slow
def test_a_classifier_that_learned_nothing_gives_the_share_of_the_label() -> None:
    """Scores that run against the labels on unseen turns are not turned around."""
    rng = np.random.default_rng(7)
    chance = labels_of_people(talks(120)).with_columns(
        pl.Series("sat", rng.random(120) < 0.5), pl.Series("dsat", rng.random(120) < 0.5)
    )
    model = train(talks(120), chance, dataclasses.replace(CONFIG, strength=1000.0))
    assert (model.platt[:, 0] <= 0).all()
    assert on_held_out(talks(120), chance, model)[0].auc >= 0.5


def test_feedback_makes_labels_of_the_turns_that_were_read() -> None:
    """Turns with feedback bear it; others are negatives where the rules or the model read them, else left out."""
    rows = talks(6).with_columns(pl.Series("owned_from", [0, 3, 0, 0, 0, 0], dtype=pl.Int32))
    found = mine(rows.drop("polarity")).feedback.drop("owned")
    by_rules = labels_of_feedback(rows, found, CONFIG, FeedbackRules())
    # c001 owns nothing: its turn is labelled on another path of its tree.
    assert by_rules.get_column("conversation_id").to_list() == ["c000", "c002", "c003", "c004", "c005"]
    by_model = found.filter(pl.col("conversation_id") == "c000").with_columns(pl.lit("model").alias("method"))
    assert labels_of_feedback(rows, by_model, CONFIG, FeedbackRules()).rows() == [
        ("c000", 2, "c000", True, False)
    ]


def test_rules_do_not_teach_themselves() -> None:
    """Labels by the rules with the rules' scores among the features are refused; reactions label no user turn."""
    found = mine(talks(6).drop("polarity")).feedback.drop("owned")
    with pytest.raises(ConfigError, match="the rules' own"):
        labels_of_feedback(talks(6), found, ClassifierConfig(), FeedbackRules())
    reactions = found.with_columns(pl.lit("reaction").alias("method"))
    with pytest.raises(BadInput, match="without labels"):
        labels_of_feedback(talks(6), reactions, CONFIG, FeedbackRules())
