"""`tilth review`: the items that judges are least sure of go out as a file, people's verdicts come back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final  # Any: JSON values

import fsspec
import polars as pl

import tilth
from tilth.catalog import Catalog, Release, Version, audit, open_catalog
from tilth.schemas import BadInput, ConfigError, NotFound, TilthError, fingerprint
from tilth.transforms.inference import tables
from tilth.transforms.judging.aggregate import by_panel
from tilth.transforms.judging.protocol import Aggregation
from tilth.transforms.judging.review import (
    Applied,
    read_verdicts,
    review_items,
    review_rows,
    turn_down,
)
from tilth.transforms.judging.votes import votes_of
from tilth.transforms.pairs.candidates import quarantined
from tilth.transforms.parts import quarantine_ids, write_bytes, write_part

FORMS: Final = {"jsonl": (".jsonl", ".ndjson"), "csv": (".csv",), "argilla": (".json",)}
_NEEDED: Final = ("judgments", "responses")
_AGENT: Final = "judges"
_FORMULA: Final = r"^([=+\-@\t\r])"  # what a spreadsheet takes for a formula, and would compute


@dataclass(frozen=True, slots=True)
class Export:
    """What one export asks for.

    Args:
        dataset: a dataset or version of the family, as `wildfeedback.pairs`.
        output: the file to write; it must not exist, because people write into such files.
        share: of all items that judges compared; `count` goes before it.
        form: jsonl, csv or argilla; by the file's name when empty.
        show_judges: whether people see what judges said.
        decided: only items that judges decided, which pairs are made of; the least sure of all are those that they
            did not decide.
    """

    dataset: str
    output: str
    share: float = 0.2
    count: int | None = None
    form: str = ""
    show_judges: bool = False
    decided: bool = False


def export(workspace: str, asked: Export) -> dict[str, Any]:
    """Writes the items that people should look at, and says how many of how many they are.

    Raises `ConfigError` for a file that is there or of another form, `NotFound` for a dataset without judgments.
    """
    form = _form(asked.output, asked.form)
    with open_catalog(workspace, create=False) as catalog:
        version = catalog.resolve(asked.dataset)
        judgments, items = _judged(catalog, version)
    votes = votes_of(judgments)
    panel = votes.get_column("judge").unique().sort().to_list()
    verdicts = by_panel(votes, Aggregation(), dict.fromkeys(panel, 1.0))
    if asked.decided:
        verdicts = verdicts.filter(pl.col("verdict").is_in(("win", "loss")))
    count = math.ceil(asked.share * verdicts.height) if asked.count is None else asked.count
    rows = review_rows(items, verdicts, count, asked.show_judges)
    write_bytes(_WRITERS[form](rows), asked.output)
    return {
        "dataset": f"{version.name}@{version.version}",
        "output": asked.output,
        "format": form,
        "items": verdicts.height,
        "exported": rows.height,
    }


def _form(output: str, form: str) -> str:
    known = [name for name, endings in FORMS.items() if output.lower().endswith(endings)]
    if form and form not in FORMS:
        raise ConfigError("the format of a review", found=form, wanted=", ".join(FORMS))
    if not known or (form and known != [form]):
        endings = FORMS[form] if form else [ending for ends in FORMS.values() for ending in ends]
        name = output.rpartition("/")[2]
        raise ConfigError(
            "the file of a review", found=name, wanted=f"a name that ends in {', '.join(endings)}"
        )
    fs, path = fsspec.core.url_to_fs(output)
    if fs.exists(path):
        do = "name another file: people may have written into this one"
        raise ConfigError("the file of a review is there already", found=output, do=do)
    return known[0]


def _judged(catalog: Catalog, version: Version) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The pairwise judgments of a release, and what they are about as `ITEMS`."""
    names = _names(catalog, version)
    frames = {table: catalog.frame(names[table]).collect() for table in _NEEDED}
    judgments = frames["judgments"].filter(pl.col("kind") == "pairwise")
    if judgments.is_empty():
        raise NotFound(
            "no pair was judged", found=version.name, do="name a dataset whose pairs judges compared"
        )
    return judgments, review_items(judgments, frames["responses"], _wishes(catalog, names))


def _names(catalog: Catalog, version: Version) -> dict[str, str]:
    """The release's datasets by table, as `family.table@version`."""
    names = {one.table: f"{one.name}@{one.version}" for one in catalog.release(version)}
    missing = [table for table in _NEEDED if table not in names]
    if missing:
        do = "name a dataset that judges had a part in, as wildfeedback.pairs"
        raise NotFound(f"{version.name} was made without judges", found=f"no {', '.join(missing)}", do=do)
    return names


def _wishes(catalog: Catalog, names: Mapping[str, str]) -> pl.DataFrame:
    """What users want of replies, where the release knows it."""
    columns = {"preferences": "preferences", "pairs": "user_preferences"}
    places = ["conversation_id", "prompt_id"]
    return pl.concat(
        [
            pl.DataFrame(schema={**dict.fromkeys(places, pl.String), "checklist": pl.List(pl.String)}),
            *(
                catalog.frame(names[table]).select(*places, checklist=pl.col(column)).collect()
                for table, column in columns.items()
                if table in names
            ),
        ]
    )


# Files


def _jsonl(rows: pl.DataFrame) -> bytes:
    return rows.write_ndjson().encode()


def _csv(rows: pl.DataFrame) -> bytes:
    """With a byte order mark, without which Excel takes UTF-8 for something else."""
    tame = rows.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'$1"))
    return b"\xef\xbb\xbf" + tame.write_csv().encode()


def _argilla(rows: pl.DataFrame) -> bytes:
    """The JSON of Argilla 2's records: `Dataset.records.from_json` reads it, `to_json` writes it with responses."""
    fields = ("conversation", "checklist", "reply_a", "reply_b")
    records = [
        {
            "id": row["item_id"],
            "fields": {name: row[name] for name in fields},
            "metadata": {},
            "suggestions": {"note": {"value": row["judges"], "score": None, "agent": _AGENT}}
            if "judges" in row
            else {},
            "responses": {},
            "vectors": {},
        }
        for row in rows.iter_rows(named=True)
    ]
    return json.dumps(records, ensure_ascii=False, indent=1).encode()


_WRITERS: Final = {"jsonl": _jsonl, "csv": _csv, "argilla": _argilla}


def _read(uri: str) -> pl.DataFrame:
    """The rows of a filled-in file: item_id, verdict, annotator. Raises `BadInput` for another form."""
    if uri.lower().endswith(FORMS["argilla"]):
        return _records(uri)
    tables.digest(uri)  # says that there is none, where there is none
    frame = pl.concat(list(tables.batches(uri, 100_000)))
    wanted = [name for name in ("item_id", "verdict", "annotator") if name in frame.columns]
    return frame.select(pl.col(wanted).cast(pl.String))


def _records(uri: str) -> pl.DataFrame:
    fs, path = fsspec.core.url_to_fs(uri)
    if not fs.isfile(path):
        raise NotFound("no such file of verdicts", found=uri, wanted="a file")
    schema: dict[str, type[pl.String]] = dict.fromkeys(("item_id", "verdict", "annotator"), pl.String)
    try:
        rows = [
            (str(record["id"]), answer["value"], str(answer["user_id"]))
            for record in json.loads(fs.cat_file(path))
            for answer in record["responses"].get("verdict", [])
        ]
        return pl.DataFrame(rows, schema=schema, orient="row")
    except (ValueError, KeyError, TypeError, AttributeError, pl.exceptions.PolarsError) as error:
        found, wanted = type(error).__name__, "records as Argilla's `to_json` writes them"
        raise BadInput(f"{uri.rpartition('/')[2]} cannot be read", found=found, wanted=wanted) from None


# Verdicts come back


@dataclass(frozen=True, slots=True)
class Import:
    """What one import asks for.

    Args:
        files: filled-in files; with several people, `annotator` says who gave a verdict.
        dataset: the dataset that they were exported from.
        output: where the gold verdicts go (`GOLD`); beside the first file when empty.
        apply: look at what the verdicts do to the family's pairs.
        commit: and publish it.
    """

    files: Sequence[str]
    dataset: str
    output: str = ""
    apply: bool = False
    commit: bool = False


def take_in(workspace: str, asked: Import) -> dict[str, Any]:
    """Reads people's verdicts, writes the gold file, and with `apply` says (with `commit`: makes) the next version.

    Raises `BadInput` for verdicts that cannot be meant, `ChecksFailed` when the next version would not pass its audit.
    """
    rows = pl.concat([_read(uri) for uri in asked.files], how="diagonal")
    output = asked.output or f"{asked.files[0].rpartition('.')[0]}.gold.jsonl"
    with open_catalog(workspace, create=False) as catalog:
        version = catalog.resolve(asked.dataset)
        judgments, _ = _judged(catalog, version)
        reviewed = read_verdicts(rows, judgments.get_column("item_id").unique())
        with tables.TableWriter(output) as writer:
            writer.write(reviewed.gold)
        name = f"{version.name}@{version.version}"
        told: dict[str, Any] = {"dataset": name, "gold": output, **reviewed.counts}
        if asked.apply or asked.commit:
            told["pairs"] = _apply(catalog, version, judgments, reviewed.gold, asked.commit)
    return told


def _apply(
    catalog: Catalog, version: Version, judgments: pl.DataFrame, gold: pl.DataFrame, commit: bool
) -> dict[str, Any]:
    names = _names(catalog, version)
    if "pairs" not in names:
        raise NotFound(f"{version.family} has no pairs", do="leave --apply away")
    run_id = f"review-{fingerprint([version.version, tilth.__version__, gold.sort('item_id').rows()])}"
    if done := catalog.find_run(version.family, run_id):
        return {"status": "unchanged", "version": done[0].version}
    pairs, responses = (catalog.frame(names[table]).collect() for table in ("pairs", "responses"))
    applied = turn_down(pairs, judgments, responses, gold)
    reasons = dict(applied.dropped.get_column("reason").value_counts().sort("reason").iter_rows())
    told = {
        "status": "forecast",
        "rows_in": pairs.height,
        "rows_out": applied.kept.height,
        "turned_down": reasons,
    }
    if not commit or applied.dropped.is_empty():
        return {**told, "status": "unchanged"} if commit else told
    _check_newest(catalog, version)
    published = _publish(catalog, version, run_id, applied, told)
    return {**told, "status": "committed", "version": published[0].version}


def _check_newest(catalog: Catalog, version: Version) -> None:
    newest = catalog.resolve(f"{version.family}.pairs").version
    if newest != version.version:
        raise TilthError(
            f"{version.name}@{version.version} is not the newest version",
            found=newest,
            do="import the file for the newest version: its judgments have the same items where they are the same",
        )


def _publish(
    catalog: Catalog, version: Version, run_id: str, applied: Applied, told: Mapping[str, Any]
) -> list[Version]:
    """The release again with the pairs that stay; tables that do not change keep their files."""
    siblings = {one.table: one for one in catalog.release(version)}
    files = {table: list(one.files) for table, one in siblings.items()}
    dropped = [applied.dropped]
    files["pairs"] = _written(catalog, version.family, "pairs", run_id, applied.kept)
    if "rationales" in siblings:
        kept, gone = _followers(
            catalog.frame(f"{version.family}.rationales@{version.version}").collect(), applied
        )
        files["rationales"] = _written(catalog, version.family, "rationales", run_id, kept)
        dropped.append(gone)
    aside = quarantine_ids(pl.concat(dropped))
    files["quarantine"] = [
        *files.get("quarantine", []),
        *_written(catalog, version.family, "quarantine", run_id, aside),
    ]
    kept_properties = {k: v for k, v in version.properties.items() if k not in _OWN}
    properties = {
        **kept_properties,
        "tilth.summary": json.dumps({"review": told}, sort_keys=True),
        "tilth.parents": json.dumps([f"{version.name}@{version.version}"]),
        "tilth.code_version": tilth.__version__,
    }
    return catalog.publish(Release(version.family, run_id, files, properties, audit(files)))


_OWN: Final = (
    "tilth.run_id",
    "tilth.version",
    "tilth.audit",
    "tilth.audit_uri",
    "tilth.summary",
    "tilth.parents",
)


def _written(catalog: Catalog, family: str, table: str, run_id: str, frame: pl.DataFrame) -> list[str]:
    if frame.is_empty():
        return []
    return [write_part(frame, f"{catalog.staging(family, table, run_id)}/000000.parquet", table).uri]


def _followers(rationales: pl.DataFrame, applied: Applied) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rationales go with their pairs, for the same reason."""
    fates = applied.dropped.select(pair_id="key", reason="reason", detail="detail")
    gone = rationales.join(fates, on="pair_id", how="inner", maintain_order="left")
    kept = rationales.join(fates, on="pair_id", how="anti", maintain_order="left")
    named = gone.with_columns(source=pl.format("conversations#id={}", "conversation_id"))
    return kept, quarantined(named, "review", ["conversation_id", "pair_id", "text"])


# What a person sees


def print_export(told: Mapping[str, Any]) -> None:
    """What an export wrote, and what to do with it."""
    from tilth.flows.show import print_rows

    row = {
        "dataset": told["dataset"],
        "items": told["items"],
        "exported": told["exported"],
        "file": told["output"],
    }
    print_rows([row], "")


def print_import(told: Mapping[str, Any]) -> None:
    """What people said, and what it does to pairs."""
    from tilth.flows.show import print_rows

    counts = {name: value for name, value in told.items() if isinstance(value, int)}
    print_rows(
        [{"": name.replace("_", " "), "count": value} for name, value in counts.items()], "", told["gold"]
    )
    if pairs := told.get("pairs"):
        rows = [{"pairs": name.replace("_", " "), "": str(value)} for name, value in pairs.items()]
        print_rows(rows, "")
        if pairs["status"] == "forecast" and pairs["turned_down"]:
            print_rows([], "nothing was published; --commit does it")
