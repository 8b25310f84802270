"""What `tilth cache` does: shows what the cache of answers holds, and removes what is no longer wanted."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final  # Any: cells of tables

from rich.markup import escape

from tilth.flows.show import print_rows
from tilth.schemas import ConfigError

_AGES_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_SIZES: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_SIZES: Final = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def cache_stats(url: str) -> dict[str, Any]:
    """What the cache at a URL holds, in all and by model. Raises `NotFound` where there is none."""
    from tilth.transforms.inference.cache import CompletionCache

    with CompletionCache(url, create=False) as cache:
        stats, place = cache.stats(), cache.place
    models = [
        {
            "model": one.identity,
            "answers": one.rows,
            "bytes": one.bytes,
            "prompt_tokens": one.prompt_tokens,
            "completion_tokens": one.completion_tokens,
            "first_answer": _day(one.created_at),
            "last_use": _day(one.used_at),
        }
        for one in stats.identities
    ]
    return {
        "cache": place,
        "answers": stats.rows,
        "bytes": stats.bytes,
        "disk_bytes": stats.disk_bytes,
        "models": models,
    }


def cache_prune(
    url: str,
    older_than: str | None = None,
    model: str | None = None,
    max_size: str | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Removes answers from the cache at a URL and says how many; see `CompletionCache.prune`.

    older_than: an age like 30d or 12h. max_size: a size like 10GB. model: the name of a model, with or without its
    revision; all that begin with this name are meant.
    """
    from tilth.transforms.inference.cache import CompletionCache

    age_s = None if older_than is None else parse_age(older_than)
    size = None if max_size is None else parse_size(max_size)
    with CompletionCache(url, create=False) as cache:
        known = [] if model is None else [one.identity for one in cache.stats().identities]
        named = None if model is None else _named(model, known)
        pruned = cache.prune(age_s, named, size, dry_run)
    return {"cache": cache.place, "removed": not dry_run, "answers": pruned.rows, "bytes": pruned.bytes}


def _named(model: str, known: Sequence[str]) -> list[str]:
    # After the name comes a revision or an argument, never more of the name: qwen-7b is not meant by qwen.
    found = [one for one in known if re.match(re.escape(model) + r"(?![\w./-])", one)]
    if not found:
        wanted = ", ".join(known) or "any model: the cache is empty"
        raise ConfigError("no answers of that model", found=model, wanted=wanted, do="tilth cache stats")
    return found


def parse_age(text: str) -> float:
    """Seconds from an age like 90s, 15m, 12h, 30d or 4w."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip().lower())
    if match is None:
        raise ConfigError(
            "an age cannot be read", found=text, wanted="a number and s, m, h, d or w, like 30d or 12h"
        )
    return float(match[1]) * _AGES_S[match[2]]


def parse_size(text: str) -> int:
    """Bytes from a size like 500MB or 10GB (powers of ten), 2GiB (powers of two), or a plain number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", text.strip().lower())
    if match is None:
        wanted = "a number and B, KB, MB, GB or TB, like 500MB or 10GB"
        raise ConfigError("a size cannot be read", found=text, wanted=wanted)
    units = _BINARY_SIZES if match[3] else _SIZES
    return int(float(match[1]) * units[match[2] or ""])


def print_cache_stats(stats: Mapping[str, Any]) -> None:
    """Prints what `cache_stats` gives, for people."""
    place = escape(stats["cache"])
    title = f"{place}: {stats['answers']:,} answers, {say_size(stats['disk_bytes'])} on disk"
    rows = [{**row, "bytes": say_size(row["bytes"])} for row in stats["models"]]
    print_rows(rows, f"{place}: no answers", title, hide=["first_answer"])


def print_cache_prune(result: Mapping[str, Any]) -> None:
    """Prints what `cache_prune` gives, for people."""
    verb = "removed" if result["removed"] else "would remove"
    print_rows([], f"{verb} {result['answers']:,} answers, {say_size(result['bytes'])}")


def say_size(size_bytes: float) -> str:
    """A size for people, in powers of ten: 1.2 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if size_bytes < 1_000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1_000
    return f"{size_bytes:.3g} TB"


def _day(seconds: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
