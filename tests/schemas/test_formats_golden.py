"""Each training format, row for row as it is on disk, loaded by `datasets`, and read as its trainer reads it.

The files in golden/ are what trainers get of the rows below: look at a changed one before it is committed. They are
written anew by `python tests/schemas/test_formats_golden.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

from tilth.schemas import TABLES, conform
from tilth.schemas.formats import FORMATS, Made
from tilth.schemas.formats.pairs import llama_factory_entry

GOLDEN: Final = Path(__file__).parent / "golden"
FORMS: Final = [(name, table) for name, form in FORMATS.items() for table in form.of]
SEVERAL_TURNS: Final = [
    ("system", "Be brief."),
    ("user", "Hi"),
    ("assistant", "Hello."),
    ("user", "Why is it “so”?"),
]
TOOLS: Final = "a tool is called, and the format has no column for calls"
Row = dict[str, Any]


def chat(*turns: tuple[str, str]) -> list[Row]:
    return [{"role": role, "content": content} for role, content in turns]


def _pair(id_: str, prompt: list[Row], chosen: str, rejected: str, **more: Any) -> Row:
    sides = {"chosen": chat(("assistant", chosen)), "rejected": chat(("assistant", rejected))}
    scores = {"chosen_score": 4.0, "rejected_score": 2.5, "margin": 1.5, "split": "train"}
    return {"id": id_, "prompt_id": "p", "prompt": prompt, **sides, **scores, **more}


def _reply(id_: str, prompt: list[Row], completion: str, **more: Any) -> Row:
    said = {"prompt": prompt, "completion": chat(("assistant", completion)), "split": "train"}
    return {"id": id_, "prompt_id": "p", **said, **more}


def _criterion(id_: str, description: str, weight: float, program: str | None = None) -> Row:
    check = "program" if program else "judge"
    told = {
        "id": id_,
        "title": f"Title of {id_}",
        "description": description,
        "weight": weight,
        "check": check,
    }
    return {**told, "program": program, "tags": ["tone"], "kind": "principle", "source": "prompt"}


ASKED: Final = chat(("user", "Why?"))
CALLED: Final = chat(("user", "Look it up."), ("assistant", ""), ("tool", "42"), ("user", "And?"))
CALLS: Final = (
    '[{"message_index":1,"tool_calls":[{"function":{"arguments":"{}","name":"look"},"type":"function"}]}]'
)
ROWS: Final[dict[str, list[Row]]] = {
    "pairs": [
        _pair("a1", chat(*SEVERAL_TURNS), "Because.\nTruly.", "No idea."),
        _pair("a2", ASKED, "Since it is.", "Dunno.", chosen_score=5.0, margin=0.5),
        _pair("a3", ASKED, "As it was.", "Dunno.", split="test"),
        _pair("a4", CALLED, "It is 42.", "It is 41.", tool_calls_json=CALLS),
        _pair("a5", chat(("assistant", "Hello."), ("user", "Why not?")), "So.", "Hm.", margin=None),
    ],
    "unpaired": [
        _reply("b1", chat(*SEVERAL_TURNS), "Because.", label=True),
        _reply("b2", ASKED, "Since it is.", label=True),
        _reply("b3", ASKED, "Dunno.", label=False),
        _reply("b4", ASKED, "Go away.", label=False),
        _reply("b5", chat(("user", "How?")), "Like this.", label=True),
        _reply("b6", chat(("user", "Who?")), "She did.", label=True),
        _reply("b7", CALLED, "It is 42.", label=True, tool_calls_json=CALLS),
    ],
    "ratings": [
        _reply("c1", ASKED, "Since it is.", rating=4.5),
        _reply("c2", ASKED, "Dunno.", rating=1.0),
    ],
    "rubrics": [
        {
            "id": "d1",
            "prompt_id": "p",
            "prompt": chat(*SEVERAL_TURNS),
            "criteria": [
                _criterion("k1", "Says “why”.", 2.0),
                _criterion("k2", "Invents facts.", -0.5),
                _criterion("k3", "At most 9 words.", 1.0, '{"arguments":{"limit":9},"verifier":"max_words"}'),
            ],
            "split": "train",
        },
        {"id": "d2", "prompt_id": "q", "prompt": ASKED, "criteria": [_criterion("k4", "Kind.", 1.0)], "split": "test"},
    ],
    "rationales": [
        {"id": "e1", "pair_id": "a1", "kind": "general", "text": "It says why.", "order": [1, 0], "split": "train"},
        {"id": "e2", "pair_id": "a2", "kind": "user_complaint", "text": "That is no answer.", "split": "train"},
        {"id": "e3", "pair_id": "a4", "kind": "general", "text": "It is right.", "order": [0, 1], "split": "train"},
    ],
}  # fmt: skip
LEFT_OUT: Final[dict[tuple[str, str], dict[str, int]]] = {
    **{(name, "pairs"): {TOOLS: 1} for name in ("trl", "trl-implicit", "openrlhf", "nemo-rl", "open-instruct")},
    ("reward", "pairs"): {TOOLS: 1, "it has no margin": 1},
    ("kto", "unpaired"): {TOOLS: 1},
    ("sft", "pairs"): {TOOLS: 1},
    ("sft", "unpaired"): {TOOLS: 1, "its label is not good": 2},
    ("sft", "ratings"): {"another reply to its prompt is rated better": 1},
    ("llama-factory", "pairs"): {
        TOOLS: 1, "the prompt is no odd number of turns, user and assistant by turns": 1
    },
    ("llama-factory", "unpaired"): {TOOLS: 1},
    ("rationale-dpo", "rationales"): {TOOLS: 1},
    ("cut", "rationales"): {
        TOOLS: 1, "it judges no rejected reply, is blank, or says what another says of the same reply": 1
    },
}  # fmt: skip


def tables() -> dict[str, pl.DataFrame]:
    def typed(name: str, row: Row) -> pl.DataFrame:
        return conform(pl.DataFrame([row], infer_schema_length=None), name)

    return {name: pl.concat([typed(name, row) for row in rows]) for name, rows in ROWS.items()}


def made(name: str, table: str) -> Made:
    return FORMATS[name].of[table].make(table, tables())


def golden(name: str, table: str) -> Path:
    return GOLDEN / f"{name}.{table}.jsonl"


@pytest.mark.parametrize(("name", "table"), FORMS)
def test_rows_are_the_golden_ones(name: str, table: str) -> None:
    """Columns, values and their order are those of the file; what is left out is counted by reason."""
    rows, left_out = made(name, table)
    assert rows.write_ndjson().splitlines() == golden(name, table).read_text().splitlines()
    assert dict(left_out) == LEFT_OUT.get((name, table), {})


def kind_of(feature: Any) -> Any:
    """A feature of `datasets` in short: dtypes by name, a list of one, a struct as a dict."""
    if isinstance(feature, dict):
        return {key: kind_of(value) for key, value in sorted(feature.items())}
    if hasattr(feature, "feature"):
        return [kind_of(feature.feature)]
    return feature.dtype.removeprefix("large_")


CHAT: Final = [{"content": "string", "role": "string"}]
POINTS: Final = [{"criterion": "string", "points": "float64", "tags": ["string"]}]
TEXT: Final = "string"
PREFERENCE: Final = {"id": TEXT, "chosen": CHAT, "rejected": CHAT, "split": TEXT}
SFT: Final = {"id": TEXT, "prompt": CHAT, "completion": CHAT, "split": TEXT}
RUBRIC: Final = [{"description": "string", "title": "string", "weight": "float64"}]
TYPES: Final[dict[tuple[str, str], Row]] = {
    ("trl", "pairs"): {**PREFERENCE, "prompt": CHAT, "margin": "float64"},
    ("trl-implicit", "pairs"): PREFERENCE,
    ("reward", "pairs"): {**PREFERENCE, "margin": "float64"},
    ("kto", "unpaired"): {**SFT, "label": "bool"},
    ("sft", "pairs"): SFT,
    ("sft", "unpaired"): SFT,
    ("sft", "ratings"): SFT,
    ("grpo-rubric", "rubrics"): {
        "prompt": CHAT, "rubric": RUBRIC, **dict.fromkeys(("id", "ground_truth", "dataset", "programs", "split"), TEXT)
    },
    ("llama-factory", "pairs"): {**PREFERENCE, "prompt": CHAT, "chosen": CHAT[0], "rejected": CHAT[0]},
    ("llama-factory", "unpaired"): {"id": TEXT, "messages": CHAT, "label": "bool", "split": TEXT},
    ("openrlhf", "pairs"): {**PREFERENCE, "prompt": CHAT, "margin": "float64"},
    ("nemo-rl", "pairs"): {
        "context": CHAT, "completions": [{"completion": CHAT, "rank": "int64"}],
        **dict.fromkeys(("id", "task_name", "split"), TEXT),
    },
    ("open-instruct", "pairs"): PREFERENCE,
    ("open-instruct", "rubrics"): {
        "id": TEXT, "messages": CHAT, "ground_truth": TEXT, "dataset": TEXT, "split": TEXT
    },
    ("verl", "rubrics"): {
        "id": TEXT,
        "data_source": TEXT,
        "prompt": CHAT,
        "ability": TEXT,
        "reward_model": {"ground_truth": TEXT, "rubrics": POINTS, "style": TEXT},
        "extra_info": {"index": "int64", "split": TEXT},
    },
    ("verifiers", "rubrics"): {"id": TEXT, "prompt": CHAT, "answer": TEXT, "info": TEXT, "split": TEXT},
    ("healthbench", "rubrics"): {"prompt": CHAT, "prompt_id": TEXT, "rubrics": POINTS},
    ("rationale-sft", "rationales"): {**SFT, "kind": TEXT, "order": ["int32"]},
    ("rationale-dpo", "rationales"): {
        **PREFERENCE, "prompt": CHAT, "margin": "float64", "rationale": TEXT, "kind": TEXT
    },
    ("cut", "rationales"): {
        "id": TEXT,
        **dict.fromkeys(("prompt", "output", "improved", "prompt_aligned", "prompt_misaligned"), CHAT),
        **dict.fromkeys(("judgment", "polarity", "split"), TEXT),
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "table"), FORMS)
def test_files_load_with_their_types(name: str, table: str, tmp_path: Path) -> None:
    """`load_dataset` reads the Parquet file and, where trainers take it, the JSON file: same columns, same rows."""
    import datasets

    datasets.disable_progress_bars()
    rows = made(name, table).rows
    file = tmp_path / "train.parquet"
    rows.write_parquet(file)

    def load(builder: str, path: Path) -> Any:
        return datasets.load_dataset(
            builder, data_files=str(path), split="train", cache_dir=str(tmp_path / builder)
        )

    read = load("parquet", file)
    assert {column: kind_of(feature) for column, feature in read.features.items()} == TYPES[name, table]
    assert read.to_list() == rows.to_dicts()
    if ".jsonl" in FORMATS[name].forms and (name, table) != ("cut", "rationales"):
        assert load("json", golden(name, table)).to_list() == rows.to_dicts()


# What each trainer does with its columns, as its loader is written


def _openrlhf(row: Row) -> tuple[Any, Any, Any]:
    chosen, rejected = row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]
    return row["prompt"], chosen[len(row["prompt"]) :], rejected[len(row["prompt"]) :]


def _last_turn(row: Row) -> tuple[Any, Any, Any]:
    assert row["chosen"][:-1] == row["rejected"][:-1]
    return row["chosen"][:-1], row["chosen"][-1:], row["rejected"][-1:]


def _nemo_rl(row: Row) -> tuple[Any, Any, Any]:
    assert len(row["completions"]) == 2
    better, worse = sorted(row["completions"], key=lambda one: one["rank"])
    return row["context"], better["completion"], worse["completion"]


def _llama_factory(row: Row) -> tuple[Any, Any, Any]:
    columns = llama_factory_entry("pairs", "train.parquet")["columns"]
    messages, chosen, rejected = (row[columns[key]] for key in ("messages", "chosen", "rejected"))
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2) + ["user"]
    assert chosen["role"] == rejected["role"] == "assistant"
    return messages, [chosen], [rejected]


LOADERS: Final[dict[str, Callable[[Row], tuple[Any, Any, Any]]]] = {
    "trl": _openrlhf,
    "openrlhf": _openrlhf,
    "trl-implicit": _last_turn,
    "reward": _last_turn,
    "open-instruct": _last_turn,
    "nemo-rl": _nemo_rl,
    "llama-factory": _llama_factory,
}


@pytest.mark.parametrize("name", LOADERS)
def test_no_loader_sees_a_side_as_the_other(name: str) -> None:
    """What a trainer takes for prompt, better and worse reply is what the pair says, for every pair."""
    known = {row["id"]: row for row in ROWS["pairs"]}
    rows = made(name, "pairs").rows.to_dicts()
    assert len(rows) >= 3
    for row in rows:
        pair = known[row["id"]]
        assert LOADERS[name](row) == (pair["prompt"], pair["chosen"], pair["rejected"])


def test_llama_factory_reads_labelled_replies() -> None:
    """Its entry names the column of labels, and every conversation has user and assistant by turns."""
    entry = llama_factory_entry("unpaired", "train.parquet")
    assert entry["file_name"] == "train.parquet"
    for row in made("llama-factory", "unpaired").rows.to_dicts():
        messages = row[entry["columns"]["messages"]]
        assert isinstance(row[entry["columns"]["kto_tag"]], bool)
        assert len([turn for turn in messages if turn["role"] != "system"]) % 2 == 0


def test_judges_of_verifiers_have_no_weight_below_zero() -> None:
    """A mistake has its weight's size, and its best answer is "no"; programs keep their sign."""
    info = json.loads(made("verifiers", "rubrics").rows["info"][0])
    assert [(one["name"], one["weight"], one["choices"]) for one in info["criteria"]] == [
        ("k1", 2.0, ["no", "yes"]),
        ("k2", 0.5, ["yes", "no"]),
        ("k3", 1.0, ["no", "yes"]),
    ]
    assert [one["weight"] for one in info["programs"]] == [1.0]


def test_every_table_and_format_is_golden() -> None:
    """No golden file is missing and none is left over."""
    assert set(ROWS) <= set(TABLES)
    assert {path.name for path in GOLDEN.iterdir()} == {golden(name, table).name for name, table in FORMS}
    assert set(TYPES) == set(FORMS)


if __name__ == "__main__":
    for each in FORMS:
        golden(*each).write_text(made(*each).rows.write_ndjson())
