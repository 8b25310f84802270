"""The recipe `spur` from labelled conversations to scores, with a model that reads plainly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import polars as pl
import pytest

from tilth.pipelines.means import Means
from tilth.pipelines.spur import learn, score
from tilth.schemas import PL_MESSAGES, TilthError
from tilth.transforms.feedback.spur_rubric import SpurConfig
from tilth.transforms.inference.ask import Ask
from tilth.transforms.inference.requests import Completion, to_frame, to_requests
from tilth.transforms.parts import read_part, write_part
from tilth.transforms.stage import Manifest, Output, Stage, Step, Task, run_stage, run_tasks, title

CONFIG = SpurConfig(batch=4, trial_share=0.5)
SIGNS = {
    "thanks": ("Gratitude", "sat"),
    "lovely": ("Praise", "sat"),
    "wrong": ("Complaint", "dsat"),
    "again": ("Repetition", "dsat"),
}


@dataclass(frozen=True, slots=True)
class PlainReader:
    """Answers as a model that goes by four words; of a conversation with "mute" it says nothing that fits."""

    identity: str
    purpose: str
    calls: list[str]
    silent: str = ""
    name: ClassVar[str] = "ask"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        requests = to_requests(pl.concat([read_part(shard) for shard in task.inputs["requests"]]))
        told: list[tuple[str, str]] = []
        for request in requests:
            schema = json.loads(request.schema or "{}")
            self.calls.append(schema["title"])
            said = request.messages[-1]["content"]
            if schema["title"] != self.silent:
                told.append(
                    (
                        request.id,
                        "{}"
                        if "mute" in said
                        else json.dumps(_answer(schema, request.messages[0]["content"], said)),
                    )
                )
        ids = [id_ for id_, _ in told]
        out.write(
            "completions", to_frame(ids, [Completion(text, "stop", 1, 1) for _, text in told], self.identity)
        )
        failed = [
            {
                "source": "requests",
                "stage": self.purpose,
                "reason": "timed_out",
                "key": f"requests#id={r.id}",
                "detail": "too slow",
                "payload": "",
                "source_rows": 0,
            }
            for r in requests
            if r.id not in ids
        ]
        if failed:
            out.write("quarantine", pl.DataFrame(failed, schema_overrides={"source_rows": pl.Int32}))


def _answer(schema: Mapping[str, Any], system: str, said: str) -> dict[str, Any]:
    words = [word for word in SIGNS if word in said]
    if schema["title"] == "tilth.spur.extract":
        return {"reasons": [f"Says {word}." for word in words]}
    if schema["title"] == "tilth.spur.merge":
        return {"items": [{"name": SIGNS[word][0], "description": f"Says {word}."} for word in words]}
    names = {
        item: re.search(rf"{item}: <<material \w+>>\n(.*?)\n<<", system) for item in schema["properties"]
    }
    by_name = {name: word for word, (name, _) in SIGNS.items()}
    signs = {item: by_name[found[1]] for item, found in names.items() if found}
    return {
        item: {"present": word in said, "impact": 7 if word in said else 0} for item, word in signs.items()
    }


def means_in(folder: Path, calls: list[str], silent: str = "") -> Means:
    """Runs steps in this process, under `folder`; every model is a plain reader."""

    def execute(stage: Stage, tasks: Sequence[Task]) -> None:
        run_tasks(tasks, stage)

    def conduct(step: Step, tasks: Sequence[Task]) -> list[Manifest]:
        return run_stage(Stage(step, f"{folder}/{title(step)}"), tasks, execute)

    return Means(conduct, lambda purpose, _: cast("Ask", PlainReader("reader@1", purpose, calls, silent)))


def talks(texts: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """Conversations whose last turn is the text, with their labels."""
    rows = [
        {
            "id": f"c{at:03d}",
            "messages": [
                {"role": "user", "content": f"Question {at}?"},
                {"role": "assistant", "content": "It is four."},
                {"role": "user", "content": text},
            ],
            "label": label,
        }
        for at, (text, label) in enumerate(texts)
    ]
    return pl.DataFrame(rows, schema={"id": pl.String, "messages": PL_MESSAGES, "label": pl.String})


TALKS = [
    *([("thanks", "SAT"), ("thanks, lovely", "SAT"), ("wrong", "DSAT"), ("wrong again", "DSAT")] * 4),
    *([("and then?", "neutral")] * 4),
]


def learned(folder: Path, rows: pl.DataFrame, calls: list[str], silent: str = "") -> Any:
    return learn((write_part(rows, f"{folder}/labelled.parquet"),), CONFIG, means_in(folder, calls, silent))


def test_a_rubric_is_learned_and_scores_what_it_has_not_seen(tmp_path: Path) -> None:
    """Signs become items of their side, thresholds part the labels, and new conversations get the right ones."""
    calls: list[str] = []
    found = learned(tmp_path, talks(TALKS), calls)
    rubric = found.rubric
    assert {item.name for item in rubric.satisfaction} == {"Gratitude", "Praise"}
    assert {item.name for item in rubric.dissatisfaction} == {"Complaint", "Repetition"}
    assert (rubric.model, rubric.learned_from["weighted_f1"]) == ("reader@1", 1.0)
    assert len(rubric.prompts) == 3
    assert found.set_aside.is_empty()
    assert calls.count("tilth.spur.extract") == 8
    assert calls.count("tilth.spur.merge") == rubric.learned_from["merge_calls"] == 4
    assert calls.count("tilth.spur.score") == 10
    new = talks([("lovely", "?"), ("wrong, do it again", "?"), ("hm", "?"), ("mute", "?")])
    shard = write_part(new, f"{tmp_path}/new.parquet")
    (made,) = score({"one": {"conversations": (shard,)}}, rubric, CONFIG, means_in(tmp_path, calls)).values()
    scores = read_part(made.outputs["scores"][0])
    assert scores.select("conversation_id", "score", "label").rows() == [
        ("c000", 7, "SAT"),
        ("c001", -14, "DSAT"),
        ("c002", 0, "neutral"),
    ]
    assert read_part(made.outputs["set_aside"][0]).rows()[0][:2] == ("c003", "malformed_output")


def test_the_order_of_conversations_changes_nothing(tmp_path: Path) -> None:
    """The same labelled conversations, turned around, make the same rubric."""
    one = learned(tmp_path / "one", talks(TALKS), []).rubric
    assert learned(tmp_path / "two", talks(TALKS)[::-1], []).rubric == one


def test_a_merge_without_an_answer_ends_the_run(tmp_path: Path) -> None:
    """A rubric that misses reasons is not made, nor one without any."""
    with pytest.raises(TilthError, match="could not be merged"):
        learned(tmp_path / "a", talks(TALKS), [], silent="tilth.spur.merge")
    with pytest.raises(TilthError, match="nothing to make a rubric of"):
        learned(tmp_path / "b", talks(TALKS), [], silent="tilth.spur.extract")


def test_conversations_that_the_model_does_not_read_are_told(tmp_path: Path) -> None:
    """Trials without an answer are no thresholds: where none is left, that is an error."""
    with pytest.raises(TilthError, match="no conversation could be scored"):
        learned(tmp_path, talks(TALKS), [], silent="tilth.spur.score")
