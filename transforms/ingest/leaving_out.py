"""Leaving users and conversations out of what a stream of runs has read, whose files may be gone."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import fsspec
import polars as pl

from tilth.schemas import empty, fingerprint
from tilth.transforms.hygiene import keys
from tilth.transforms.ingest.batches import Batch, without
from tilth.transforms.parts import Shard, read_part, write_bytes
from tilth.transforms.stage import Manifest, Output, Stage


def leave_out(stage: Stage, users: Collection[str], conversations: Collection[str]) -> int:
    """Makes the finished tasks of an ingest stage what they would be had they left these out; how many it changed.

    Manifests keep their names, so that later runs find the tasks done; their parts are new files, and the old ones of
    the stage are deleted. As where logs are read (`without`), what could not be read loses its payload. Killed in
    between, the same call goes on. Once done, it costs one look.
    """
    if not users and not conversations:
        return 0
    mark, asked = f"{stage.directory}/left_out", fingerprint([sorted(users), sorted(conversations)])
    fs, path = fsspec.core.url_to_fs(mark)
    if fs.exists(path) and fs.cat_file(path).decode() == asked:
        return 0
    changed = sum(
        _changed(stage, manifest, uri, users, conversations, asked) for uri, manifest in _finished(stage)
    )
    write_bytes(asked.encode(), mark)
    return changed


def _finished(stage: Stage) -> Iterator[tuple[str, Manifest]]:
    fs, folder = fsspec.core.url_to_fs(f"{stage.directory}/done")
    for path in sorted(fs.glob(f"{folder}/*.json")):
        yield fs.unstrip_protocol(path), Manifest.from_json(fs.cat_file(path))


def _changed(
    stage: Stage,
    manifest: Manifest,
    uri: str,
    users: Collection[str],
    conversations: Collection[str],
    asked: str,
) -> bool:
    out = Output(f"{manifest.task}-{manifest.key[:12]}-{asked[:8]}", stage.places, stage.directory)
    kept: dict[str, list[Shard]] = {"conversations": [], "keys": [], "quarantine": []}
    old: list[Shard] = []
    read = zip(manifest.outputs.get("conversations", []), manifest.outputs.get("keys", []), strict=True)
    for number, (part, its_keys) in enumerate(read):
        whole = Batch(read_part(part), empty("quarantine").drop("id"), 0)
        batch = without(whole, users, conversations, f"{manifest.task}.{number}")
        if batch.conversations.height == whole.conversations.height:
            kept["conversations"].append(part)
            kept["keys"].append(its_keys)
            continue
        old += [part, its_keys]
        kept["conversations"] += _written(out, "conversations", batch.conversations)
        kept["keys"] += _written(out, "keys", keys(batch.conversations))
        kept["quarantine"] += _written(out, "quarantine", batch.quarantine)
    counts = {name: manifest.counts.get(name, 0) + more for name, more in out.counts.items()}
    for part in manifest.outputs.get("quarantine", []):
        rows = read_part(part)
        if rows.get_column("payload").null_count() < rows.height:
            silent = rows.drop("id").with_columns(payload=pl.lit(None, pl.String))
            kept["quarantine"] += _written(out, "quarantine", silent)
            old.append(part)
        else:
            kept["quarantine"].append(part)
    if not old:
        return False
    outputs = {name: shards for name, shards in kept.items() if shards}
    write_bytes(Manifest(manifest.task, manifest.key, outputs, {**manifest.counts, **counts}).to_json(), uri)
    _delete([shard.uri for shard in old], stage.directory)
    return True


def _written(out: Output, table: str, frame: pl.DataFrame) -> list[Shard]:
    """The parts that are written of a frame: one, or none of a frame without rows."""
    before = len(out.outputs.get(table, ()))
    out.write(table, frame)
    return out.outputs.get(table, [])[before:]


def _delete(uris: Collection[str], directory: str) -> None:
    """Deletes intermediates; parts of a final table may belong to versions, and are the catalog's to delete."""
    for uri in uris:
        if uri.startswith(f"{directory}/"):
            fs, path = fsspec.core.url_to_fs(uri)
            fs.rm(path)
