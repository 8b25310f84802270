"""The seed pool: what is read, what is refused and how it is told, which seeds are the case that is asked about."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput, NotFound, conform
from tilth.schemas.ids import content_id
from tilth.transforms.rubrics.seeds import (
    SEEDS,
    criterion_pool,
    digest_of,
    read_seeds,
    same_cases,
)

SAMPLES = Path(__file__).resolve().parents[2] / "samples/rubrics/seeds.jsonl"


def row(called: str = "a", **fields: Any) -> dict[str, Any]:
    """One row in HealthBench's form."""
    return {
        "prompt_id": called,
        "prompt": [{"role": "user", "content": f"question {called}"}],
        "rubrics": [{"criterion": f"Answers {called}.", "points": 5, "tags": []}],
        **fields,
    }


def pool(tmp_path: Path, *rows: Mapping[str, Any] | str) -> str:
    """A file of these rows."""
    path = tmp_path / "seeds.jsonl"
    lines = [one.encode() if isinstance(one, str) else orjson.dumps(one) for one in rows]
    path.write_bytes(b"\n".join(lines))
    return str(path)


def seeds(**rubrics: dict[str, float]) -> pl.DataFrame:
    """`SEEDS` of cases by name, each with criteria and their points."""
    rows = [
        (name, [{"role": "user", "content": name}], [{"criterion": c, "points": p} for c, p in one.items()])
        for name, one in rubrics.items()
    ]
    return pl.DataFrame(rows, schema=SEEDS, orient="row")


def test_the_sample_pool_is_whole() -> None:
    """The pool that the samples hold has twelve cases, each with wanted things and with mistakes."""
    found = read_seeds(str(SAMPLES))
    assert found.schema == SEEDS
    assert found.height == 12
    points = found.select(pl.col("criteria").list.eval(pl.element().struct.field("points"))).to_series()
    assert all(min(one) < 0 < max(one) and 5 <= len(one) <= 25 for one in points)
    assert criterion_pool(found).height == sum(len(one) for one in points)


def test_the_samples_phrase_mistakes_as_something_that_is_seen() -> None:
    """No mistake says what a reply fails to do: its sign would be read both ways."""
    texts = read_seeds(str(SAMPLES)).explode("criteria").unnest("criteria").filter(pl.col("points") < 0)
    assert (
        not texts.get_column("criterion").str.contains(r"(?i)^(fails|does not|doesn't|lacks|omits)\b").any()
    )


def test_rows_come_back_sorted_and_other_fields_are_passed_over(tmp_path: Path) -> None:
    """Tags, example tags and blank lines do no harm, and no order of lines decides anything."""
    path = pool(tmp_path, row("b", example_tags=["theme:x"]), "", row("a"))
    assert read_seeds(path).get_column("seed_id").to_list() == ["a", "b"]
    assert read_seeds(path).equals(read_seeds(pool(tmp_path, row("a"), row("b"))))


def _rubric(*points: object) -> list[dict[str, object]]:
    return [{"criterion": f"Does {n}.", "points": one} for n, one in enumerate(points)]


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"rubrics": _rubric(3, 0)}, "rubrics.1.points"),
        ({"rubrics": _rubric(11)}, "rubrics.0.points"),
        ({"rubrics": _rubric(-10.5, 1)}, "rubrics.0.points"),
        ({"rubrics": _rubric("5")}, "rubrics.0.points"),
        ({"rubrics": _rubric(True)}, "rubrics.0.points"),
        ({"rubrics": _rubric(None)}, "rubrics.0.points"),
        ({"rubrics": _rubric(-3, -4)}, "rubrics"),
        ({"rubrics": []}, "rubrics"),
        ({"rubrics": None}, "rubrics"),
        ({"rubrics": [{"criterion": " ", "points": 1}]}, "rubrics.0.criterion"),
        ({"rubrics": [{"points": 1}]}, "rubrics.0.criterion"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "hello"}, "prompt"),
        ({"prompt": [{"role": "assistant", "content": "SECRET"}]}, "prompt"),
        ({"prompt": [{"role": "user", "content": " "}]}, "prompt"),
        ({"prompt": [{"role": "narrator", "content": "SECRET"}]}, "prompt.0.role"),
        ({"prompt_id": None}, "prompt_id"),
    ],
)
def test_what_is_wrong_is_told_by_line_and_field(tmp_path: Path, bad: dict[str, Any], field: str) -> None:
    """The error names the file's line and the field, and holds no text of the row."""
    path = pool(tmp_path, row("fine"), {**row("bad"), **bad})
    with pytest.raises(BadInput) as caught:
        read_seeds(path)
    assert f"seeds.jsonl, line 2, {field}" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "question" not in str(caught.value)


def test_lines_that_are_no_rows_and_ids_that_repeat_are_refused(tmp_path: Path) -> None:
    """Broken JSON, a list in place of an object, the same id again, an empty file, no file."""
    for broken in ("{", "[1]"):
        with pytest.raises(BadInput, match="line 2"):
            read_seeds(pool(tmp_path, row("a"), broken))
    with pytest.raises(BadInput, match="line 2, prompt_id"):
        read_seeds(pool(tmp_path, row("a"), row("a")))
    with pytest.raises(BadInput, match="without a case"):
        read_seeds(pool(tmp_path, ""))
    with pytest.raises(NotFound):
        read_seeds(str(tmp_path / "none.jsonl"))
    with pytest.raises(NotFound):
        digest_of(str(tmp_path / "none.jsonl"))


def _rubrics() -> pl.DataFrame:
    def one(name: str, split: str) -> dict[str, Any]:
        criteria = [{"id": content_id(name), "description": f"Answers {name}.", "weight": 0.7}]
        prompt = [{"role": "user", "content": f"question {name}"}]
        return {
            "id": content_id(name),
            "prompt_id": name,
            "prompt": prompt,
            "criteria": criteria,
            "split": split,
        }

    return conform(pl.DataFrame([one("a", "train"), one("b", "test")]), "rubrics")


def test_rubrics_of_our_own_are_seeds_of_the_training_split_alone(tmp_path: Path) -> None:
    """Parquet and JSONL of the table give the same seeds; what is evaluated on is none; weights are scaled."""
    frame = _rubrics()
    frame.write_parquet(tmp_path / "r.parquet")
    frame.write_ndjson(tmp_path / "r.jsonl")
    found = read_seeds(str(tmp_path / "r.parquet"), scale=10)
    assert found.select("seed_id", points=pl.col("criteria").list.first().struct.field("points")).rows() == [
        ("a", pytest.approx(7.0))
    ]
    assert read_seeds(str(tmp_path / "r.jsonl"), scale=10).equals(found)
    with pytest.raises(BadInput, match="points"):
        read_seeds(str(tmp_path / "r.parquet"), scale=20)
    with pytest.raises(BadInput, match="scale"):
        read_seeds(str(tmp_path / "r.parquet"), scale=0)


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    """Another file is another run."""
    before = digest_of(pool(tmp_path, row("a")))
    assert before == digest_of(pool(tmp_path, row("a"))) != digest_of(pool(tmp_path, row("b")))


def test_a_criterion_stands_in_the_pool_once() -> None:
    """Case, white space and the full stop aside; the cases that hold it are named, the sum of points says its sign."""
    found = criterion_pool(
        seeds(a={"Says  Yes.": 3, "Shouts": -2}, b={"says yes": 5, "Names it": 1}, c={"SHOUTS.": 1})
    )
    by_text = {text: (wanted, ids) for text, wanted, ids in found.drop("criterion_id").iter_rows()}
    assert by_text == {
        "Says  Yes.": (True, ["a", "b"]),
        "SHOUTS.": (False, ["a", "c"]),
        "Names it": (True, ["b"]),
    }


# The same case

TEN = "one two three four five six seven eight nine ten"


def _same(prompt: str, seed: str, **how: Any) -> bool:
    asked = pl.DataFrame({"prompt_id": ["p"], "prompt": [[{"role": "user", "content": prompt}]]})
    known = pl.DataFrame(
        [("s", [{"role": "user", "content": seed}], [{"criterion": "x", "points": 1.0}])],
        schema=SEEDS,
        orient="row",
    )
    return same_cases(asked, known, **how).height == 1


@pytest.mark.parametrize(
    ("prompt", "seed", "same"),
    [
        (TEN, TEN, True),
        (TEN.upper() + "!", f"“{TEN}”", True),
        ("ﬁne", "fine", True),  # a ligature: the same in NFKC
        ("one two", "one two three", False),  # too short for runs: only equal words are the same
        ("", "?", True),
        # the first 8 of 10 words: .8 of them
        (
            TEN,
            "one two three four five six seven eight but then something else and more of other words",
            True,
        ),
        # the seed stands whole in a long prompt
        (TEN, f"{TEN} " + " ".join(f"w{n}" for n in range(90)), True),
        (" ".join(f"w{n}" for n in range(90)) + f" {TEN}", TEN, True),
        # 8 of 16 words on both sides: exactly .5 is not more than .5
        (
            TEN[: TEN.index(" nine")] + " a b c d e f g h",
            TEN[: TEN.index(" nine")] + " i j k l m n o p",
            False,
        ),
        # the same words in another order share no run
        (TEN, " ".join(reversed(TEN.split())), False),
    ],
)
def test_which_prompts_are_the_same_case(prompt: str, seed: str, same: bool) -> None:
    """Equal words, or more than half of either side inside runs of eight that the other has too."""
    assert _same(prompt, seed) is same


def test_the_bar_for_the_same_case_can_be_moved() -> None:
    """With a larger share or a longer run the near copy is no longer one; the equal text always is."""
    near = "one two three four five six seven eight but then"
    assert _same(TEN, near)
    assert not _same(TEN, near, coverage=0.8)
    assert not _same(TEN, near, ngram=9)
    assert _same(TEN, TEN, coverage=1.0)


def test_runs_of_two_seeds_do_not_add_up() -> None:
    """The share is of one document: a prompt that has half of its words with each of two seeds is neither."""
    words = [f"w{n}" for n in range(16)]
    prompt = pl.DataFrame({"prompt_id": ["p"], "prompt": [[{"role": "user", "content": " ".join(words)}]]})
    other = [f"x{n}" for n in range(8)]
    rows = [
        (name, [{"role": "user", "content": " ".join(part + other)}], [{"criterion": "x", "points": 1.0}])
        for name, part in (("s", words[:8]), ("t", words[8:]))
    ]
    assert same_cases(prompt, pl.DataFrame(rows, schema=SEEDS, orient="row")).is_empty()


def test_only_what_the_user_says_counts() -> None:
    """A system message that many cases share makes them no same case."""
    system = {"role": "system", "content": TEN}
    asked = pl.DataFrame({"prompt_id": ["p"], "prompt": [[system, {"role": "user", "content": "alpha"}]]})
    known = pl.DataFrame(
        [("s", [system, {"role": "user", "content": "beta"}], [{"criterion": "x", "points": 1.0}])],
        schema=SEEDS,
        orient="row",
    )
    assert same_cases(asked, known).is_empty()


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=14), st.randoms())
def test_a_prompt_is_always_the_same_case_as_itself_whatever_the_order(
    words: list[str], order: random.Random
) -> None:
    """An equal seed is found among others, and no order of seeds changes what is found."""
    texts = [" ".join(words), "quite another text", " ".join(words[::-1])]
    rows = [
        (str(n), [{"role": "user", "content": text}], [{"criterion": "x", "points": 1.0}])
        for n, text in enumerate(texts)
    ]
    asked = pl.DataFrame({"prompt_id": ["p"], "prompt": [[{"role": "user", "content": texts[0]}]]})
    found = same_cases(asked, pl.DataFrame(rows, schema=SEEDS, orient="row"))
    assert "0" in found.get_column("seed_id").to_list()
    order.shuffle(rows)
    assert (
        same_cases(asked, pl.DataFrame(rows, schema=SEEDS, orient="row"))
        .sort("seed_id")
        .equals(found.sort("seed_id"))
    )
