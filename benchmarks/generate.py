"""Synthetic conversation logs for benchmarks: OpenAI `messages` as JSONL, about four turns, made by polars.

The text is drawn from word and phrase lists, so it measures speed and memory and nothing about quality.

    python benchmarks/generate.py --rows 1000000 --out .bench/logs-1000000.jsonl
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

BATCH = 100_000
WORDS = [
    "the",
    "a",
    "to",
    "of",
    "and",
    "in",
    "for",
    "with",
    "on",
    "is",
    "it",
    "that",
    "this",
    "you",
    "can",
    "my",
    "your",
    "how",
    "what",
    "when",
    "please",
    "make",
    "write",
    "list",
    "plan",
    "table",
    "report",
    "python",
    "function",
    "loop",
    "train",
    "ticket",
    "hotel",
    "recipe",
    "garden",
    "invoice",
    "letter",
    "history",
    "river",
    "music",
    "travel",
    "budget",
    "chart",
    "summary",
    "lesson",
    "exercise",
    "bicycle",
    "engine",
    "market",
    "window",
    "kitchen",
    "mountain",
    "coffee",
    "weather",
    "answer",
    "question",
    "short",
    "long",
    "simple",
    "better",
    "quick",
    "steps",
    "example",
    "detail",
    "number",
    "color",
    "city",
    "country",
    "school",
    "student",
    "doctor",
    "friend",
    "weekend",
]
POSITIVE = (
    "Perfect, thank you!",
    "thanks, that works now",
    "Great, that is exactly what I needed.",
    "nice, I learned something, thanks",
    "awesome ty",
)
NEGATIVE = (
    "No, that's wrong.",
    "that doesn't work, it still gives the same error",
    "I said blue, not red.",
    "You ignored half of my question.",
    "this is too long, not what I asked for",
    "wrong again, try once more",
)
NEUTRAL = (
    "And how long does it take for two people?",
    "Now write the same for a smaller team.",
    "What about the second option, please explain it with an example.",
    "Next question: what is the difference between the two?",
)


def _sentences(rng: np.random.Generator, rows: int, words: int) -> pl.Series:
    drawn = pl.Series(np.array(WORDS)[rng.integers(0, len(WORDS), rows * words)])
    frame = pl.DataFrame({"row": np.repeat(np.arange(rows), words), "word": drawn})
    return frame.group_by("row", maintain_order=True).agg(pl.col("word").str.join(" ")).get_column("word")


def _turn(role: str, text: pl.Expr) -> pl.Expr:
    return pl.struct(pl.lit(role).alias("role"), text.alias("content"))


def batch(start: int, rows: int) -> pl.DataFrame:
    """`rows` conversations; the same `start` gives the same rows."""
    rng = np.random.default_rng(start)
    feedback = np.array([*POSITIVE, *NEGATIVE, *NEUTRAL, *NEUTRAL, *NEUTRAL])
    frame = pl.DataFrame(
        {
            "n": np.arange(start, start + rows),
            "user": rng.integers(0, 1 + start + rows, rows) // 3,
            "ask": _sentences(rng, rows, 12),
            "reply": _sentences(rng, rows, 40),
            "again": _sentences(rng, rows, 35),
            "third": feedback[rng.integers(0, len(feedback), rows)],
            "fifth": feedback[rng.integers(0, len(feedback), rows)],
            "turns": rng.choice([2, 4, 4, 4, 5, 6], rows),
        }
    )
    turns = [
        _turn("user", pl.col("ask")),
        _turn("assistant", pl.col("reply")),
        _turn("user", pl.col("third")),
        _turn("assistant", pl.col("again")),
        _turn("user", pl.col("fifth")),
        _turn("assistant", pl.lit("You are welcome. ") + pl.col("ask")),
    ]
    return frame.select(
        pl.format("c-{}", "n").alias("id"),
        pl.format("u-{}", "user").alias("user"),
        pl.lit("bench-1").alias("model"),
        pl.concat_list(turns).list.head(pl.col("turns")).alias("messages"),
    )


def generate(rows: int, out: Path) -> Path:
    """Writes `rows` conversations to `out`, unless a file of that name is there."""
    if out.exists():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_suffix(".tmp")
    with draft.open("wb") as file:
        for start in range(0, rows, BATCH):
            batch(start, min(BATCH, rows - start)).write_ndjson(file)
    return draft.rename(out)


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    print(generate(given.rows, given.out))


if __name__ == "__main__":
    main()
