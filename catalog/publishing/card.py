"""The card of a publication: what the Hub reads in front, what people read below, and what others wrote is kept.

A card holds counts, names and verdicts of checks: no text of a row, and no place on the owner's machines.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Final  # Any: YAML and JSON values

from tilth.catalog.parts import read_json, scan
from tilth.catalog.publishing.shards import Bundle, Config
from tilth.catalog.versions import Version
from tilth.schemas import TABLES, ConfigError
from tilth.schemas.labels import DSAT, SAT
from tilth.schemas.licences import LICENCES, UNDECLARED, Licence, Reach, combine, licence

Meta = dict[str, Any]

_ROWS: Final = {  # table -> what one row is
    "conversations": "a conversation as it was logged",
    "feedback": "one sign of satisfaction or dissatisfaction, with the words that show it",
    "pairs": "a prompt with a preferred and a rejected reply",
    "unpaired": "a prompt with one reply, wanted or not",
    "rationales": "why the preferred reply of a pair is better",
    "rubrics": "a prompt with weighted criteria for its replies",
    "preferences": "what one user wants of a reply",
    "responses": "a reply of a model",
    "judgments": "what one judge said of replies",
    "ratings": "a reply rated by attributes",
    "evaluation": "a prompt to evaluate models with",
}
_TAGS: Final = {
    "pairs": ("preference", "dpo", "trl"),
    "unpaired": ("preference", "kto", "trl"),
    "rubrics": ("rubric", "grpo"),
    "responses": ("synthetic",),
    "judgments": ("rlaif", "llm-as-a-judge"),
    "ratings": ("rlaif", "reward-modeling"),
}
_SIZES: Final = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
)
_MEANINGS: Final = {
    "feedback": f"Signs of satisfaction: {', '.join(SAT)}. Signs of dissatisfaction: {', '.join(DSAT)}. "
    "After WildFeedback (arXiv 2408.15549) and SPUR (arXiv 2403.12388).",
    "pairs": "`origin` says where a pair comes from; `margin` is chosen_score - rejected_score.",
    "unpaired": "`label` is true for a reply that was wanted; `weight` says how clear that was.",
}
_LIMITS: Final = (
    "Feedback is what some users said. Those who say nothing, or leave, are not in it, and those who complain most are "
    "in it most.",
    "Labels are inferred from reactions, by rules or by models, and are wrong in places; `method` says by which.",
    "Personal data was looked for by patterns, which miss names, addresses and much else.",
    "Splits are by conversation and prompt; near-equal prompts of different users may stand on both sides.",
)
_JUDGED: Final = (
    "Judges are models: they have preferences for place, length and their own style. Both orders were asked, which "
    "balances place alone."
)
_TRAINERS: Final = {
    "pairs": ("DPOTrainer", ("prompt", "chosen", "rejected")),
    "unpaired": ("KTOTrainer", ("prompt", "completion", "label")),
}
_FRONT: Final = re.compile(r"\A---[ \t]*\r?\n(.*?\r?\n)?---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LANGUAGE: Final = r"^[a-z]{2,3}$"


@dataclass(frozen=True)
class Card:
    """What the README of a target says of a bundle.

    Args:
        bundle: what is published. code_version: of Tilth. title: of a new README.
        loads: the call that loads a config of exactly this version. opening: a line that it needs before it.
    """

    bundle: Bundle
    code_version: str
    title: str
    loads: Callable[[Config], str]
    opening: str = ""

    def readme(self, existing: str | None = None) -> str:
        """The whole README: `existing` with the parts that are ours renewed, or a new one.

        Raises `ConfigError` when the front matter of `existing` cannot be read, or says that a config of ours belongs
        to others.
        """
        meta, text = _apart(existing or f"\n# {self.title}\n")
        self._refuse_others(meta, text)
        return f"---\n{_yaml(self._meta(meta))}---\n{_with_section(text, self.family, self._section(text))}"

    @property
    def family(self) -> str:
        """The recipe that made it."""
        return self.bundle.plan.family

    # The front matter

    def _meta(self, meta: Meta) -> Meta:
        configs = self.bundle.configs
        infos = {config.name: _info(config) for config in configs}
        files = {
            config.name: {"config_name": config.name, "data_files": _data_files(config)} for config in configs
        }
        # What a person has set stays; licence and tags hold for old and new.
        found: Meta = {"pretty_name": self.title, "task_categories": ["text-generation"], **meta}
        found["license"] = _strictest(meta.get("license"), self._terms)
        if languages := self._languages:
            found["language"] = sorted({*_listed(meta.get("language")), *languages})
        found["tags"] = list(dict.fromkeys([*_listed(meta.get("tags")), "tilth", *self._tags]))
        found["dataset_info"] = [*_others(meta.get("dataset_info"), infos), *infos.values()]
        found["configs"] = [*_others(meta.get("configs"), files), *files.values()]
        found["size_categories"] = [_size(found["dataset_info"])]
        return found

    @property
    def _terms(self) -> Licence:
        # A refused licence has none; such a card is only ever shown, with the refusal.
        return self.bundle.plan.terms.licence or LICENCES["no-redistribution"]

    @property
    def _tags(self) -> list[str]:
        return [tag for config in self.bundle.configs for tag in _TAGS.get(config.version.table, ())]

    @cached_property
    def _languages(self) -> list[str]:
        """The languages that sources say their conversations have, if any."""
        import polars as pl

        code = pl.col("language").str.to_lowercase()
        rows = scan("conversations", self.bundle.plan.conversations).select(code.unique())
        return sorted(rows.filter(code.str.contains(_LANGUAGE)).collect().to_series())

    def _refuse_others(self, meta: Meta, text: str) -> None:
        own = _configs_of(text, self.family)
        listed = {str(one.get("config_name")) for one in _entries(meta.get("configs"))}
        taken = [
            config.name for config in self.bundle.configs if config.name in listed and config.name not in own
        ]
        if taken:
            do = "publish to another repository, or add --qualified: configs are then named FAMILY.TABLE"
            found = f"{', '.join(taken)} of another family, or made by hand"
            raise ConfigError(
                f"the configs of {self.title}", found=found, wanted="names that are free", do=do
            )

    # The section

    def _section(self, text: str) -> str:
        plan = self.bundle.plan
        configs = {**_configs_of(text, self.family), **{one.name: plan.label for one in self.bundle.configs}}
        parts = [
            f"## {plan.title}",
            self._what(configs),
            _heading("How to load it", self._how_to_load()),
            _heading("How it was made", self._how_made()),
            _heading("Where it comes from", self._provenance()),
            _heading("Labels", self._labels()),
            _heading("Checks", self._audit()),
            _heading("Versions", self._trend()),
            _heading("Limits", _items(self._limits())),
            _heading("Licence", self._licence()),
            _heading("Citation", f"Made with Tilth {self.code_version}: {plan.title}, {self.bundle.digest}."),
        ]
        body = "\n\n".join(part for part in parts if part)
        return f"{_begin(self.family)} {json.dumps(configs, sort_keys=True)} -->\n{body}\n{_end(self.family)}"

    def _what(self, configs: Mapping[str, str]) -> str:
        own = {one.name for one in self.bundle.configs}
        rows = [
            (
                f"`{one.name}`",
                _ROWS[one.version.table],
                *(str(one.rows.get(split, 0)) for split in self._splits),
            )
            for one in self.bundle.configs
        ]
        others = [f"`{name}` of {label}" for name, label in sorted(configs.items()) if name not in own]
        also = f"\n\nAlso here, of another release: {', '.join(others)}." if others else ""
        return _table(("config", "one row is", *self._splits), rows) + also

    @property
    def _splits(self) -> list[str]:
        return list(dict.fromkeys(split for config in self.bundle.configs for split in config.rows))

    def _how_to_load(self) -> str:
        lines = ["from datasets import load_dataset", "", *([self.opening] if self.opening else [])]
        tables = {one.version.table: one for one in self.bundle.configs}
        lines += [f"{table} = {self.loads(config)}" for table, config in tables.items()]
        for table, (trainer, columns) in _TRAINERS.items():
            if config := tables.get(table):
                split = next(iter(config.rows))
                chosen = f'{table}["{split}"].select_columns({json.dumps(columns)})'
                lines += ["", f"from trl import {trainer}", "", f"{trainer}(model, train_dataset={chosen})"]
        return "```python\n" + "\n".join(lines) + "\n```"

    def _how_made(self) -> str:
        said = self._properties
        config: Meta = said.get("config") or {}
        protocol: Meta = said.get("protocol") or {}
        models = {role: _shown(str(model)) for role, model in (config.get("models") or {}).items()}
        lines = [f"Recipe `{self.family}` of Tilth {said.get('code_version', self.code_version)}."]
        lines += [f"{role}: {model}" for role, model in models.items()] or [
            "By rules alone; no model was asked."
        ]
        if parents := said.get("parents"):
            lines.append(f"made from {', '.join(parents)}")
        if protocol:
            keys = ("kind", "evidences", "temperature", "low", "high", "rotations")
            told = ", ".join(f"{key} {protocol[key]}" for key in keys if protocol.get(key) is not None)
            judges = ", ".join(str(judge.get("name")) for judge in protocol.get("judges", []))
            lines.append(f"judging protocol: {told}; judges: {judges}")
        return _items(lines) + self._measured()

    def _measured(self) -> str:
        """What the run measured of its own labels."""
        said = self._properties
        found = ""
        if factors := [one for one in said.get("factors") or [] if one.get("tau") is not None]:
            rows = [(one["factor"], str(one["pairs"]), f"{one['tau']:.2f}") for one in factors]
            found += "\n\nHow far measured factors go with the label (Kendall's tau; 1: always):\n\n"
            found += _table(("factor", "pairs", "tau"), rows)
        if elo := said.get("elo"):
            found += "\n\nPolicies by their matches:\n\n"
            found += _table(tuple(elo[0]), [tuple(_number(value) for value in one.values()) for one in elo])
        return found

    @cached_property
    def _properties(self) -> Meta:
        found = self.bundle.plan.versions[0].properties
        return {name.removeprefix("tilth."): _plain(value) for name, value in found.items()}

    def _provenance(self) -> str:
        summary: Meta = self._properties.get("summary") or {}
        lines = [*self._sources()]
        if "rows_in" in summary:
            lines.append(
                f"{summary['rows_in']} rows read, {summary['rows_quarantined']} set aside as unusable"
            )
        for name, why in (("quarantined", "set aside"), ("dropped", "candidates dropped")):
            counts: Mapping[str, int] = summary.get(name) or {}
            if counts:
                lines.append(
                    f"{why}: {', '.join(f'{reason} {count}' for reason, count in sorted(counts.items()))}"
                )
        lines += [
            f"{config.left_out} rows of `{config.name}` left out because they hold personal data"
            for config in self.bundle.configs
            if config.left_out
        ]
        return _items(lines)

    def _sources(self) -> Iterator[str]:
        plan = self.bundle.plan
        files = ", ".join(f"{name} ({count} files)" for name, count in sorted(plan.licences.items()) if count)
        if files:
            yield f"licences of the sources: {files}"
        if listed := read_json(str(self._properties.get("sources_uri") or "")):
            shapes = Counter(PurePosixPath(str(one.get("uri"))).suffix or "no suffix" for one in listed)
            size = sum(int(one.get("size_bytes") or 0) for one in listed)
            yield f"{len(listed)} source files ({', '.join(sorted(shapes))}), {_bytes(size)}"
        elif sources := (self._properties.get("summary") or {}).get("sources"):
            yield f"{len(sources)} sources"

    def _labels(self) -> str:
        found: list[str] = []
        for config in self.bundle.configs:
            counted = {column: counts for column, counts in config.counted.items() if counts}
            lines = [
                f"`{config.name}.{column}`: "
                + ", ".join(f"{value} {count}" for value, count in _most(counts))
                for column, counts in counted.items()
            ]
            meaning = _MEANINGS.get(config.version.table)
            found += [*([meaning] if meaning else []), *([_items(lines)] if lines else [])]
        return "\n\n".join(found)

    def _audit(self) -> str:
        plan = self.bundle.plan
        rows = [
            (config.name, *(str(sum(c.success is v for c in checks)) for v in (True, False, None)))
            for config in self.bundle.configs
            for checks in (plan.checks[config.version.table],)
        ]
        parts = [_table(("config", "passed", "failed", "nothing to observe"), rows)]
        if plan.failed:
            told = [
                (
                    c.table,
                    c.column,
                    _number(c.observed),
                    c.wanted,
                    f"{c.severity}{self._allowed(c.column)}",
                    c.why,
                )
                for c in plan.failed
            ]
            parts.append(_table(("table", "check", "observed", "wanted", "severity", "why it matters"), told))
        everything = [
            (c.table, c.column, _number(c.observed), c.wanted)
            for config in self.bundle.configs
            for c in plan.checks[config.version.table]
        ]
        whole = _table(("table", "check", "observed", "wanted"), everything)
        return "\n\n".join([*parts, f"<details><summary>All checks</summary>\n\n{whole}\n\n</details>"])

    def _allowed(self, metric: str) -> str:
        return ", published nonetheless" if metric in self.bundle.plan.choice.allow_failed else ""

    def _trend(self) -> str:
        return _items(
            _line(config, self.bundle.plan.earlier[config.version.table]) for config in self.bundle.configs
        )

    def _limits(self) -> list[str]:
        judged = bool(self._properties.get("protocol"))
        return [*_LIMITS, *([_JUDGED] if judged else [])]

    def _licence(self) -> str:
        terms, plan = self._terms, self.bundle.plan
        lines = [f"`{terms.id}`, the strictest of the sources' licences: {', '.join(sorted(plan.licences))}."]
        if plan.choice.licence:
            lines.append(
                f"Sources without a licence of their own were declared as {plan.choice.licence} by the publisher."
            )
        if terms.redistribute is not Reach.ANYONE:
            why = "no licence was declared" if terms.id == UNDECLARED else "the licence does not allow it"
            lines.append(f"Not to be passed on: {why}.")
        if terms.attribution:
            lines.append("The authors of the sources must be named by whoever passes it on.")
        if terms.share_alike:
            lines.append("What is made from it must be under the same licence.")
        if not terms.commercial:
            lines.append("No commercial use.")
        return _items(lines)


# What the Hub reads


def _info(config: Config) -> Meta:
    """The entry of `dataset_info`, as `push_to_hub` writes it."""
    from datasets import DatasetInfo, Features, SplitInfo
    from datasets.info import DatasetInfosDict
    from datasets.splits import SplitDict
    from huggingface_hub import DatasetCardData

    splits = SplitDict()
    for split, rows in config.rows.items():
        splits.add(SplitInfo(name=split, num_bytes=config.memory_bytes[split], num_examples=rows))
    info = DatasetInfo(
        features=Features.from_arrow_schema(TABLES[config.version.table]),
        splits=splits,
        download_size=config.size_bytes,
        dataset_size=sum(config.memory_bytes.values()),
    )
    data = DatasetCardData()
    DatasetInfosDict({config.name: info}).to_dataset_card_data(data)
    return data.to_dict()["dataset_info"]


def _data_files(config: Config) -> list[dict[str, str]]:
    return [{"split": split, "path": f"{config.name}/{split}-*"} for split in config.rows]


def _size(infos: Iterable[Meta]) -> str:
    rows = sum(int(split.get("num_examples") or 0) for info in infos for split in info.get("splits") or [])
    return next((name for bound, name in _SIZES if rows < bound), "n>1B")


def _strictest(existing: Any, own: Licence) -> Any:
    """The licence of the whole repository: ours, unless what stands there already is stricter."""
    names = [str(name) for name in _listed(existing) if name != "unknown"]
    if not names:
        return own.hub_id
    try:
        both = combine([*(licence(name).id for name in names), own.id]).licence
    except ConfigError:  # one that only its owner knows
        both = None
    return both.hub_id if both else "other"


def _entries(value: Any) -> list[Meta]:
    """The entries of `configs` or `dataset_info`, which is a list, or one entry alone."""
    entries: list[Any] = value if isinstance(value, list) else [value] if value else []
    return [entry for entry in entries if isinstance(entry, dict)]


def _others(value: Any, own: Mapping[str, object]) -> list[Meta]:
    return [entry for entry in _entries(value) if entry.get("config_name") not in own]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _apart(readme: str) -> tuple[Meta, str]:
    """Front matter and text."""
    import yaml

    found = _FRONT.match(readme)
    if not found:
        return {}, readme
    try:
        meta = yaml.safe_load(found[1] or "") or {}
    except yaml.YAMLError:
        meta = None
    if not isinstance(meta, dict):
        do = "mend the part of the target's README.md between the two lines of dashes"
        raise ConfigError("the front matter of the README", found="no YAML mapping", wanted="one", do=do)
    return meta, readme[found.end() :]


def _yaml(meta: Meta) -> str:
    import yaml

    return yaml.safe_dump(meta, sort_keys=False, allow_unicode=True, width=120)


# Our part of a text


def _begin(family: str) -> str:
    return f"<!-- tilth:begin {family}"


def _end(family: str) -> str:
    return f"<!-- tilth:end {family} -->"


def _marked(family: str) -> re.Pattern[str]:
    return re.compile(
        rf"{re.escape(_begin(family))} (\{{.*?\}}) -->\n.*?{re.escape(_end(family))}", re.DOTALL
    )


def _configs_of(text: str, family: str) -> dict[str, str]:
    """The configs that this family has published here, with their versions."""
    found = _marked(family).search(text)
    try:
        return json.loads(found[1]) if found else {}
    except ValueError:  # edited by hand; the names are checked against nothing then
        return {}


def _with_section(text: str, family: str, section: str) -> str:
    marked = _marked(family)
    if marked.search(text):
        return marked.sub(lambda _: section, text, count=1)
    return f"{text.rstrip()}\n\n{section}\n"


# Markdown


def _heading(title: str, body: str) -> str:
    return f"### {title}\n\n{body}" if body else ""


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in row)} |" for row in cells)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _bytes(size: int) -> str:
    return f"{size / 10**6:.1f} MB" if size >= 10**5 else f"{size / 10**3:.1f} kB"


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:30]


def _line(config: Config, earlier: Sequence[Version]) -> str:
    now = f"{config.version.version}: {config.version.rows} rows"
    before = [f"{one.version}: {one.rows} rows" for one in reversed(earlier)]
    return f"`{config.name}`: " + "; ".join([*before, now])


def _shown(model: str) -> str:
    """A model without the folder that it lies in."""
    name = model if not model.startswith(("/", ".", "~", "file:")) else PurePosixPath(model).name
    return name if len(name) <= 120 else f"{name[:117]}..."


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
