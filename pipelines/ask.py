"""The recipe `ask`: one prompt over the rows of a table, a table with the answers.

table -> read -> render -> ask -> one file (and the rows without an answer in another)
         |       |         completions, rows set aside
         |       requests
         rows with ids
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

from tilth.pipelines.means import Conduct
from tilth.schemas import BadInput, QuarantineOverflow, TilthError
from tilth.transforms.inference.answers import PROBABILITY_COLUMNS, Answers, Part, set_aside
from tilth.transforms.inference.ask import Ask
from tilth.transforms.inference.prompts import Prompt
from tilth.transforms.inference.render import FAILED, ReadRows, Render
from tilth.transforms.inference.requests import COMPLETIONS, Sampling
from tilth.transforms.inference.tables import TableWriter
from tilth.transforms.parts import Shard, read_part
from tilth.transforms.stage import Manifest, Task, numbered, parts, total

NAME = "ask"
PROMPT_ID = "ask"


@dataclass(frozen=True, slots=True)
class AskConfig:
    """What is asked, and how; the fields are the keys of section `ask` in `tilth.yaml`."""

    prompt: str = ""  # a template: {{ column }}
    system: str = ""  # a template of the system message
    answer_schema: str = ""  # JSON Schema as text
    choices: tuple[str, ...] = ()
    probabilities: bool = False
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    answer_tokens: int = 1024
    stop: tuple[str, ...] = ()
    seed: int = 0
    key: str = ""
    part_rows: int = field(default=2000, compare=False)  # decides nothing about an answer

    @property
    def answers(self) -> Answers:
        """The columns that answers add."""
        return Answers(self.answer_schema or None, self.choices or None, self.probabilities, self.samples)

    def render(self, prompt: Prompt) -> Render:
        """The step that makes requests."""
        sampling = Sampling(self.temperature, self.top_p, self.answer_tokens, self.stop)
        asked = self.answers
        return Render(
            prompt,
            sampling,
            asked.answer_schema,
            asked.choices,
            self.samples,
            self.seed,
            self.probabilities,
        )


@dataclass(frozen=True, slots=True)
class Rendered:
    """The table in parts, and the requests of each part."""

    rows: Sequence[Shard]
    rendered: Sequence[Manifest]

    @property
    def row_count(self) -> int:
        """The rows of the table."""
        return sum(shard.rows for shard in self.rows)

    def requests(self) -> list[Shard]:
        """All parts of requests."""
        return parts(self.rendered, "requests")


@dataclass(frozen=True, slots=True)
class Written:
    """What was written. rows_in * samples == rows_out + sum of `quarantined`."""

    rows_in: int
    rows_out: int
    quarantined: dict[str, int]


def render(uri: str, digest: str, config: AskConfig, prompt: Prompt, conduct: Conduct) -> Rendered:
    """Reads the table and renders the prompt over each row. Raises `BadInput` for a table without rows."""
    reading = ReadRows(config.key, config.part_rows)
    read = conduct(reading, numbered([{"uri": uri, "digest": digest}], [{}]))
    rows = parts(read, "rows")
    if not rows:
        raise BadInput(
            "the table has no rows", found=uri.rpartition("/")[2], wanted="at least one", do="check --input"
        )
    step = config.render(prompt)
    return Rendered(rows, conduct(step, numbered([{}] * len(rows), [{"rows": (shard,)} for shard in rows])))


def tasks(rendered: Rendered) -> list[Task]:
    """What is to be asked: a task for each part that has requests."""
    asked = [tuple(parts([manifest], "requests")) for manifest in rendered.rendered]
    return [Task(f"{n:06d}", inputs={"requests": shards}) for n, shards in enumerate(asked) if shards]


def answer(rendered: Rendered, step: Ask, conduct: Conduct) -> list[Manifest | None]:
    """Asks the requests of each part; null for a part without any."""
    waiting = tasks(rendered)
    answered = dict(
        zip((task.name for task in waiting), conduct(step, waiting) if waiting else [], strict=True)
    )
    return [answered.get(f"{n:06d}") for n in range(len(rendered.rendered))]


def check_rendered(rendered: Rendered, allowed: float) -> None:
    """Raises `QuarantineOverflow` when the prompt cannot be rendered over too large a share of the rows."""
    unfit = total(rendered.rendered, "rows_unfit")
    if unfit > allowed * rendered.row_count:
        detail = read_part(parts(rendered.rendered, "failed")[0]).get_column("detail")[0]
        raise QuarantineOverflow(
            f"the prompt fits {unfit} of {rendered.row_count} rows not at all",
            found=detail,
            wanted=f"at most {allowed:.1%}",
            do="mend the prompt, or raise max_quarantine_share",
        )


def write(
    rendered: Rendered,
    answered: Sequence[Manifest | None],
    answers: Answers,
    output: str,
    quarantine: str,
    allowed: float = 1.0,
) -> Written:
    """Writes the table with its answers, and beside it what has none; each file whole or not at all.

    Raises `QuarantineOverflow`, and writes nothing, when more than the share `allowed` has no answer.
    """
    wanted = rendered.row_count * answers.samples
    reasons = _reasons(rendered, answered)
    _check_share(reasons, wanted, allowed)
    with TableWriter(output) as out, TableWriter(quarantine, keep_empty=False) as aside:
        for part in _parts(rendered, answered):
            joined = answers.join(part)
            out.write(joined.answered)
            aside.write(joined.failed)
        if out.rows + aside.rows != wanted or aside.rows != sum(reasons.values()):
            raise TilthError(
                "rows were lost between input and output",
                found=f"{out.rows} answered and {aside.rows} set aside",
                wanted=f"{wanted} in all",
                do="nothing was written; please report this",
            )
    return Written(rendered.row_count, out.rows, reasons)


def _reasons(rendered: Rendered, answered: Sequence[Manifest | None]) -> dict[str, int]:
    asked = [manifest for manifest in answered if manifest is not None]
    shards = [*parts(rendered.rendered, "failed"), *parts(asked, "quarantine")]
    if not shards:
        return {}
    counts = (
        pl.concat([read_part(shard, ["reason"]) for shard in shards])
        .get_column("reason")
        .value_counts(sort=True)
    )
    return dict(sorted(counts.iter_rows(), key=lambda pair: (-pair[1], pair[0])))


def _check_share(reasons: dict[str, int], wanted: int, allowed: float) -> None:
    failed = sum(reasons.values())
    if failed > allowed * wanted:
        raise QuarantineOverflow(
            f"{failed / wanted:.1%} of {wanted} requests have no answer",
            found=", ".join(f"{reason}: {count}" for reason, count in list(reasons.items())[:3]),
            wanted=f"at most {allowed:.1%}",
            do="answers are kept: ask the others again with --retry-failed, or raise max_quarantine_share",
        )


def _parts(rendered: Rendered, answered: Sequence[Manifest | None]) -> Iterator[Part]:
    for shard, made, told in zip(rendered.rows, rendered.rendered, answered, strict=True):
        requests = parts([made], "requests")
        columns: list[str] = [*PROBABILITY_COLUMNS]
        failed = [read_part(one) for one in parts([made], "failed")]
        completions = [pl.DataFrame(schema=COMPLETIONS)]
        if told is not None:
            failed += [set_aside(read_part(one)) for one in parts([told], "quarantine")]
            completions += [read_part(one) for one in parts([told], "completions")]
        yield Part(
            read_part(shard),
            pl.concat([read_part(one) for one in parts([made], "asked")]),
            pl.concat([read_part(one, columns) for one in requests]) if requests else pl.DataFrame(),
            pl.concat(completions),
            pl.concat([pl.DataFrame(schema=FAILED), *failed]),
        )
