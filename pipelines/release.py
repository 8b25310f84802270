"""What a recipe over the catalog starts from: the tables of one release, as handles on their parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilth.pipelines.means import Inputs
from tilth.schemas import ConfigError
from tilth.transforms.judging.protocol import Panel
from tilth.transforms.parts import Shard


@dataclass(frozen=True, slots=True)
class Parent:
    """The dataset that a recipe reads, with the tables that were published beside it.

    Args:
        name: the dataset with its version, `observed.pairs@2026.11.21.1`.
        tables: the parts of its release by table; tables without rows have none.
    """

    name: str
    tables: Mapping[str, tuple[Shard, ...]]

    @property
    def table(self) -> str:
        """The table that was named."""
        return self.name.partition("@")[0].partition(".")[2]

    def parts(self, *tables: str) -> Inputs:
        """All parts of these tables of the release; none of one that it does not have."""
        return {table: self.tables.get(table, ()) for table in tables}

    def by_part(self) -> dict[str, Inputs]:
        """The named table a part at a time, by the part's number."""
        return {f"{n:06d}": {self.table: (shard,)} for n, shard in enumerate(self.tables[self.table])}


def demand_no_model(judging: Panel, policy: str = "") -> None:
    """Raises `ConfigError` where a judge or a policy is named: without a model they would be passed over, unheard."""
    if policy or judging != Panel():
        found = f"policy {policy}" if policy else f"judges {', '.join(judging.judges)}"
        do = "name the model that writes too, with --model or engine.model; or leave both out"
        raise ConfigError("no model is named, but who works with it is", found=found, do=do)
