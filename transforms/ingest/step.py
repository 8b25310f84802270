"""The step that reads sources."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tilth.transforms.hygiene import keys
from tilth.transforms.ingest.batches import read, without
from tilth.transforms.ingest.record import ReadConfig
from tilth.transforms.stage import Output, Task


@dataclass(frozen=True, slots=True)
class Ingest:
    """Reads logs into `conversations` as logged, their `keys`, and `quarantine`. Fields as in `ReadConfig`.

    Takes no inputs; the task's options come from `tilth.transforms.ingest.plan`. `keys` is what
    `tilth.transforms.hygiene.assign` compares, row for row beside each part. Counts `rows_in`, in all and by source.
    Conversations of `forgotten_users` (keys) and `forgotten_conversations` (ids) are set aside without their text.
    These are no part of what a finished task is known by: its files may be gone by now, so `leave_out` mends it.
    """

    name: ClassVar[str] = "ingest"
    version: ClassVar[str] = "1"
    user_salt: str = ""
    max_message_chars: int = 1_000_000
    on_consecutive: Literal["quarantine", "merge"] = "quarantine"
    forgotten_users: tuple[str, ...] = field(default=(), compare=False)
    forgotten_conversations: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        self.reading()

    def reading(self) -> ReadConfig:
        """The fields as the reader takes them."""
        return ReadConfig(self.user_salt, self.max_message_chars, self.on_consecutive)

    def run(self, task: Task, out: Output) -> None:
        """One task per range of a file, or per source of message rows."""
        forgotten, before = (self.forgotten_users, self.forgotten_conversations), 0
        for whole in read(task.options, self.reading()):
            batch = without(whole, *forgotten, _start(task), before)
            before += whole.conversations.height - batch.conversations.height
            out.write("conversations", batch.conversations)
            out.write("keys", keys(batch.conversations))
            out.write("quarantine", batch.quarantine)
            out.count("rows_in", batch.rows_in)
            out.count(f"rows_in@{task.options['source']}", batch.rows_in)
            out.count("with_user", batch.conversations.get_column("user_key").count())


def _start(task: Task) -> str:
    """Where in its first file a task begins to read."""
    first = task.options["files"][0]
    return str(first.get("bytes", first.get("row_groups", [0]))[0])
