"""What `tilth run observed` is measured against: a script that a good polars user would write for one clean file.

The same rules and the same tables, and nothing else: no quarantine, no resume, no audit, no catalog, no versions; the
whole file is read at once.

    python benchmarks/by_hand.py .bench/logs-1000000.jsonl .bench/by-hand
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from tilth.schemas import PL_MESSAGES, conform, content_ids
from tilth.schemas.ids import messages_key
from tilth.transforms.feedback import mine, observe_reactions
from tilth.transforms.hygiene import SplitConfig, assign, keys
from tilth.transforms.pairs import PairPolicy, recovery_pairs, settle, sibling_pairs, unpaired_labels
from tilth.transforms.rationales import user_complaints
from tilth.transforms.rationales.factors import factor_rationales
from tilth.transforms.rubrics.observed import observed_rubrics

SLICE = 50_000
COLUMNS = {"id": pl.String, "user": pl.String, "model": pl.String, "messages": PL_MESSAGES}


def read(source: str) -> pl.DataFrame:
    """The file as `conversations`."""
    logged = pl.read_ndjson(source, schema=COLUMNS)
    frame = logged.select(
        pl.lit(source).alias("source"),
        pl.col("id").alias("source_id"),
        pl.col("user").alias("user_key"),
        "model",
        "messages",
        pl.lit(0).alias("owned_from"),
        pl.lit(1).alias("record_rows"),
    )
    ids = content_ids(frame, "conversations", [pl.col("source_id"), messages_key("messages")])
    return conform(frame.with_columns(ids, ids.alias("record_id")), "conversations")


def by_hand(source: str, out: Path) -> dict[str, int]:
    """Writes the seven tables below `out` and returns their rows."""
    conversations = read(source)
    assigned = assign(keys(conversations), SplitConfig())
    conversations = conversations.with_columns(assigned["split"]).filter(assigned["keep"])
    feedback, pairs, unpaired, rationales, dropped = [], [], [], [], []
    for part in conversations.iter_slices(SLICE):
        signals = pl.concat([mine(part).feedback, observe_reactions(part)])
        recovered, siblings = (
            recovery_pairs(part, signals, PairPolicy()),
            sibling_pairs(part, PairPolicy(), signals),
        )
        labels = unpaired_labels(part, signals, PairPolicy())
        found = pl.concat([recovered.kept, siblings.kept])
        feedback.append(signals.filter("owned").drop("owned"))
        pairs.append(found)
        unpaired.append(labels.kept)
        rationales.append(user_complaints(found, signals, part))
        dropped += [recovered.dropped, siblings.dropped, labels.dropped]
    settled = settle(pl.concat(pairs), pl.concat(unpaired), pl.concat(rationales), 0)
    demanded = observed_rubrics(settled.pairs, settled.rationales)
    tables = {
        "conversations": conversations,
        "feedback": pl.concat(feedback),
        "pairs": settled.pairs,
        "unpaired": settled.unpaired,
        "rationales": pl.concat([settled.rationales, factor_rationales(settled.pairs)]),
        "rubrics": demanded.rubrics,
        "quarantine": pl.concat([*dropped, settled.dropped, demanded.dropped]),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        frame.write_parquet(out / f"{name}.parquet", compression="zstd", compression_level=1)
    return {name: frame.height for name, frame in tables.items()}


if __name__ == "__main__":
    print(by_hand(sys.argv[1], Path(sys.argv[2])))
