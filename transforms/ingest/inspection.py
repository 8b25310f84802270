"""A look at one file before a run: its shape, its first conversations, what would be set aside."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Final

from tilth.transforms.ingest.batches import read
from tilth.transforms.ingest.planning import plan, sniff
from tilth.transforms.ingest.record import ReadConfig
from tilth.transforms.ingest.sources import SourceFile, expand

_SAMPLE_ROWS: Final = 5_000
_ROWS_SHOWN: Final = 3
_SHOWN: Final = ("source_id", "started_at", "model", "language", "messages", "tool_calls_json", "reactions")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a file seems to hold. `rows` are the first conversations; counts are over the first `rows_read` rows."""

    uri: str
    shape: str
    confidence: float
    reasons: tuple[str, ...]
    rows_read: int
    conversations: int
    rows: tuple[dict[str, Any], ...]
    quarantined: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def inspect(source: str | SourceFile, shape: str | None = None, mapping: str | None = None) -> Inspection:
    """Reads about the first 5,000 rows of a file; of a glob or a directory, of its first file.

    Raises as `expand` and `plan` do. The last tree of the sample may be incomplete.
    """
    file = expand([source])[0] if isinstance(source, str) else source
    tasks = plan([file], shape, mapping)
    found = sniff(tasks[0]["files"][0]) if tasks else None
    batches = [batch for task in tasks[:1] for batch in read(task, ReadConfig(), limit=_SAMPLE_ROWS)]
    shown = (row for batch in batches for row in batch.conversations.select(_SHOWN).iter_rows(named=True))
    asides = (
        pair for batch in batches for pair in batch.quarantine.select("reason", "source_rows").iter_rows()
    )
    reasons: Counter[str] = Counter()
    for reason, rows in asides:
        reasons[reason] += rows
    return Inspection(
        file.uri,
        shape=str(tasks[0]["shape"]) if tasks else "unknown",
        confidence=max(found.confidence, 0.0) if found and not (shape or mapping) else 1.0,
        reasons=found.reasons if found and not (shape or mapping) else ("named by the user",),
        rows_read=sum(batch.rows_in for batch in batches),
        conversations=sum(batch.conversations.height for batch in batches),
        rows=tuple(islice(shown, _ROWS_SHOWN)),
        quarantined={reason: rows for reason, rows in reasons.most_common() if rows},
    )
