"""The step that chooses evaluation prompts: nothing that is trained on, in whatever table, has one of them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tilth.schemas.ids import content_id
from tilth.transforms.model_steps import Represent
from tilth.transforms.parts import Shard, read_part, write_part
from tilth.transforms.selection.representatives import Representatives
from tilth.transforms.stage import Output, Task


def part(frame: pl.DataFrame, folder: Path, name: str) -> tuple[Shard, ...]:
    return (write_part(frame, str(folder / f"{name}.parquet")),)


def held_out(*prompts: str) -> pl.DataFrame:
    """Criticised replies of the test split, as `Compare` writes them."""
    rows = [
        {
            "prompt": [{"role": "user", "content": f"How does one {prompt} in winter?"}],
            "prompt_id": content_id(prompt),
            "feedback_ids": ["f" * 32],
            "conversation_id": content_id(prompt, "logged"),
            "split": "test",
            "checklist": ["Be brief."],
            "reference": [{"role": "assistant", "content": "Hm."}],
        }
        for prompt in prompts
    ]
    return pl.DataFrame(rows)


@pytest.mark.parametrize("table", ["pairs", "unpaired", "preferences"])
@pytest.mark.parametrize(("split", "wanted"), [("train", {"plough"}), ("test", {"plough", "harvest"})])
def test_a_prompt_that_is_trained_on_is_not_evaluated_on(
    tmp_path: Path, table: str, split: str, wanted: set[str]
) -> None:
    """In a pair, as a label alone, or as a wish that pairs are made of; in a held-out split it may stand."""
    seen = pl.DataFrame({"prompt_id": [content_id("harvest")], "split": [split]})
    inputs = {name: tuple[Shard, ...]() for name in ("pairs", "unpaired", "preferences")}
    inputs |= {table: part(seen, tmp_path, table)}
    inputs |= {"held_out": part(held_out("plough", "harvest"), tmp_path, "held_out")}
    if table != "preferences":  # there are always some
        inputs |= {"preferences": part(seen.with_columns(split=pl.lit("test")), tmp_path, "preferences")}
    out = Output("000000", {}, str(tmp_path / "out"))
    Represent(Representatives(clusters=2)).run(Task("000000", inputs=inputs), out)
    made = pl.concat([read_part(shard) for shard in out.outputs["evaluation"]])
    assert set(made["prompt_id"]) == {content_id(prompt) for prompt in wanted}
