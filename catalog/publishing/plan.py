"""What a publication would hold, and what forbids it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final  # Any: JSON values

from tilth.catalog.audit import AuditReport, Check, audit_version
from tilth.catalog.names import check_family, not_found, ordinal
from tilth.catalog.store import Catalog
from tilth.catalog.versions import Version
from tilth.schemas import TABLES, BadInput, ChecksFailed, ConfigError, TilthError
from tilth.schemas.licences import UNDECLARED, Combined, Licence, Reach, combine, licence

NEVER: Final = ("quarantine",)  # what could not be read, or is no data
ONLY_WHEN_NAMED: Final = ("conversations",)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be published, and under which conditions.

    Args:
        tables: of a family; by default all but conversations and quarantine. private: nobody but the owner's own
            people can read the target. drop_pii: leave out rows with personal data rather than refuse.
        allow_failed: metrics whose critical checks may fail; the card says so. licence: of sources that declare
            none. qualified: configs are named `family.table`, so that several families can share a repository.
    """

    tables: tuple[str, ...] = ()
    private: bool = False
    drop_pii: bool = False
    allow_failed: tuple[str, ...] = ()
    licence: str | None = None
    qualified: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A release, or one dataset of it, as it would be published."""

    name: str  # `family`, or `family.table` where one dataset is named
    label: str
    versions: tuple[Version, ...]  # those with rows, in the order of TABLES
    choice: Choice
    checks: Mapping[str, tuple[Check, ...]]  # table -> what its audit said
    licences: Mapping[str, int]  # licence -> source files
    terms: Combined
    earlier: Mapping[str, tuple[Version, ...]]  # table -> versions before this one, newest first
    conversations: tuple[str, ...]  # the parts of the conversations of its release

    @property
    def family(self) -> str:
        """The recipe that made it."""
        return self.name.partition(".")[0]

    @property
    def title(self) -> str:
        """The version by its name."""
        return f"{self.name}@{self.label}"

    @property
    def tag(self) -> str:
        """The tag of this version on the Hub; another family or another dataset of it has another."""
        return f"{self.name}-{self.label}"

    def config(self, version: Version) -> str:
        """What the Hub calls this dataset."""
        return version.name if self.choice.qualified else version.table

    @property
    def failed(self) -> tuple[Check, ...]:
        """Every check that failed, of any severity."""
        return tuple(check for checks in self.checks.values() for check in checks if check.success is False)

    def refusals(self) -> list[TilthError]:
        """What forbids to publish, whatever the rows hold."""
        found: list[TilthError | None] = [_bad_audit(self), _bad_licence(self)]
        return [error for error in found if error]


def plan(catalog: Catalog, name: str, choice: Choice) -> Plan:
    """What publishing `name` would hold: `family[@version]` or `family.table[@version]`.

    Reads the stored audit; a version without one is audited. Raises `NotFound` for an unknown name, `BadInput` when
    there is nothing that may be published, `ConfigError` for an unknown licence.
    """
    dataset, _, wanted = name.partition("@")
    versions = _one(catalog, name, choice) if "." in dataset else _family(catalog, dataset, wanted, choice)
    label = versions[0].version
    licences = _licences(versions, choice)
    reports: dict[str, AuditReport] = {}
    return Plan(
        name=dataset,
        label=label,
        versions=tuple(versions),
        choice=choice,
        checks={version.table: _checks(catalog, version, reports) for version in versions},
        licences=licences,
        terms=combine(licences),
        earlier={version.table: tuple(catalog.earlier(version)[:5]) for version in versions},
        conversations=tuple(
            uri
            for version in catalog.release(versions[0])
            if version.table == "conversations"
            for uri in version.files
        ),
    )


def _one(catalog: Catalog, name: str, choice: Choice) -> list[Version]:
    if choice.tables:
        do = "name the family alone, or leave out the tables"
        raise BadInput("tables of one dataset", found=name, wanted="FAMILY[@VERSION]", do=do)
    version = catalog.resolve(name)
    if version.table in NEVER:
        raise BadInput(f"{version.name} is not published", wanted="another table")
    if not version.rows:
        raise BadInput("nothing to publish", found=f"{version.name}@{version.version} has no rows")
    return [version]


def _family(catalog: Catalog, family: str, wanted: str, choice: Choice) -> list[Version]:
    there = catalog.release(_newest(catalog, family, wanted))
    asked = choice.tables or tuple(table for table in TABLES if table not in (*NEVER, *ONLY_WHEN_NAMED))
    known = [version.table for version in there if version.table not in NEVER]
    if unknown := [table for table in choice.tables if table not in known]:
        raise BadInput(f"tables of {family}", found=", ".join(unknown), wanted=f"some of {', '.join(known)}")
    chosen = [version for version in there if version.table in asked and version.rows]
    if not chosen:
        raise BadInput("nothing to publish", found=f"{family}@{there[0].version} has no rows in its tables")
    return chosen


def _newest(catalog: Catalog, family: str, wanted: str) -> Version:
    """A version of the release that is meant: of the latest one, without `wanted`."""
    check_family(family)
    everything = catalog.datasets()
    own = [dataset for dataset in everything if dataset.startswith(f"{family}.")]
    if not own:
        raise not_found("dataset family", family, sorted({name.partition(".")[0] for name in everything}))
    if not wanted:
        return max(
            map(catalog.resolve, own), key=lambda version: (version.created_at, ordinal(version.version))
        )
    # Not every table of the family need be part of the release: the last one's error is the answer.
    for dataset in own[:-1]:
        try:
            return catalog.resolve(f"{dataset}@{wanted}")
        except FileNotFoundError:
            continue
    return catalog.resolve(f"{own[-1]}@{wanted}")


def _checks(catalog: Catalog, version: Version, reports: dict[str, AuditReport]) -> tuple[Check, ...]:
    uri = version.properties.get("tilth.audit_uri", "")
    if uri not in reports and (stored := version.stored_audit()):
        reports[uri] = stored
    report = reports.get(uri) or audit_version(catalog, f"{version.name}@{version.version}")
    return tuple(check for check in report.checks if check.table == version.table)


def _licences(versions: Sequence[Version], choice: Choice) -> dict[str, int]:
    """The licences of the sources of all these versions, with the number of source files."""
    found: Counter[str] = Counter()
    for version in versions:
        stored: dict[str, int] = json.loads(version.properties.get("tilth.licences", "{}"))
        for name, files in (stored or {UNDECLARED: 0}).items():
            own = choice.licence if choice.licence and name == UNDECLARED else name
            # The tables of one release have the same sources: files are not added up over tables.
            found[licence(own).id] = max(found[licence(own).id], files)
    return dict(found)


def _bad_audit(one: Plan) -> ChecksFailed | None:
    critical = [check for check in one.failed if check.severity == "critical"]
    failed = [check for check in critical if check.column not in one.choice.allow_failed]
    if not failed:
        return None
    named = "; ".join(f"{check.table}: {check.column} is {check.observed}" for check in failed[:5])
    do = f"mend the source and run again, or add --allow-failed {failed[0].column}; the card will say so"
    return ChecksFailed(
        f"the audit of {one.title} is not green", found=named, wanted="no critical failure", do=do
    )


def _bad_licence(one: Plan) -> ConfigError | None:
    what, wanted = f"the licence of {one.title}", "one that lets everybody have what is made from the sources"
    found = ", ".join(
        f"{name} ({files} source files)" if files else name for name, files in sorted(one.licences.items())
    )
    terms = one.terms.licence
    if terms is None:
        do = "leave these sources out and run again"
        return ConfigError(what, found=f"{one.terms.refusal} ({found})", wanted=wanted, do=do)
    if terms.redistribute is Reach.ANYONE or one.choice.private:
        return None
    return ConfigError(what, found=found, wanted=wanted, do=_declare(terms))


def _declare(terms: Licence) -> str:
    if terms.id == UNDECLARED:
        return "declare it with --licence (or `licence` in the settings, and run again), or publish with --private"
    return "publish with --private, where only your own people can read"
