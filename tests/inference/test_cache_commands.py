"""What `tilth cache stats` and `tilth cache prune` say and do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilth.flows.cache import (
    cache_prune,
    cache_stats,
    parse_age,
    parse_size,
    print_cache_prune,
    print_cache_stats,
    say_size,
)
from tilth.schemas import ConfigError, NotFound
from tilth.transforms.inference.cache import CompletionCache
from tilth.transforms.inference.requests import Completion

AGES = {"90s": 90, "15m": 900, "12h": 43_200, "30d": 2_592_000, "4w": 2_419_200, "1.5D": 129_600, "0d": 0}
SIZES = {
    "10GB": 10**10,
    "500 mb": 5 * 10**8,
    "2GiB": 2**31,
    "1k": 1_000,
    "7": 7,
    "7B": 7,
    "0.5TB": 5 * 10**11,
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A cache with answers of three models."""
    place = f"sqlite:///{tmp_path}/cache.sqlite"
    with CompletionCache(place) as cache:
        for identity in ("org/m@1", "org/m@2 {}", "org/m-large@1"):
            for number in range(10):
                cache.put(f"{identity}{number}", identity, Completion("a" * 1_000, "stop", 11, 1))
    return place


def test_ages_and_sizes_are_read() -> None:
    """Every unit, in either case; powers of two only where asked for."""
    assert {text: parse_age(text) for text in AGES} == AGES
    assert {text: parse_size(text) for text in SIZES} == SIZES


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "30 days", "1e3d", "10XB", "nan"])
def test_what_is_no_age_is_refused(text: str) -> None:
    """The error shows what was found and an example."""
    with pytest.raises(ConfigError, match="30d"):
        parse_age(text)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "10 gigabytes", "10XB", "inf", "1,5GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """The error shows what was found and an example."""
    with pytest.raises(ConfigError, match="10GB"):
        parse_size(text)


def test_sizes_are_said_for_people() -> None:
    """Three digits and a unit."""
    said = [say_size(size) for size in (0, 999, 1_230, 45_600_000, 7.89e9, 1.2e13)]
    assert said == ["0 B", "999 B", "1.23 KB", "45.6 MB", "7.89 GB", "12 TB"]


def test_stats_are_rows_by_model(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain values, and a table with every model for people."""
    monkeypatch.setenv("COLUMNS", "200")
    stats = cache_stats(url)
    assert stats["answers"] == 30
    assert {row["model"]: row["answers"] for row in stats["models"]} == {
        "org/m@1": 10,
        "org/m@2 {}": 10,
        "org/m-large@1": 10,
    }
    print_cache_stats(stats)
    shown = capsys.readouterr().out
    assert "30 answers" in shown
    assert "org/m-large@1" in shown


def test_prune_by_model_means_its_revisions_and_no_other_model(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """org/m means org/m@1 and org/m@2, and not org/m-large; a dry run removes nothing and tells the same."""
    told = cache_prune(url, model="org/m", dry_run=True)
    print_cache_prune(told)
    assert cache_stats(url)["answers"] == 30
    done = cache_prune(url, model="org/m")
    print_cache_prune(done)
    assert (done["answers"], done["bytes"]) == (told["answers"], told["bytes"])
    assert [row["model"] for row in cache_stats(url)["models"]] == ["org/m-large@1"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("would remove 20 answers")
    assert lines[1].startswith("removed 20 answers")


def test_prune_by_age_and_size(url: str) -> None:
    """Ages and sizes of the command line reach the cache."""
    assert cache_prune(url, older_than="30d")["answers"] == 0
    assert 0 < cache_prune(url, max_size="20KB", dry_run=True)["answers"] < 30
    assert cache_prune(url, max_size="0")["answers"] == 30


def test_mistakes_are_named(url: str, tmp_path: Path) -> None:
    """An unknown model lists the known ones; nothing asked and no cache are errors, and nothing is removed or made."""
    with pytest.raises(ConfigError, match="org/m-large@1"):
        cache_prune(url, model="org")
    with pytest.raises(ConfigError, match="older-than"):
        cache_prune(url)
    assert cache_stats(url)["answers"] == 30
    with pytest.raises(NotFound):
        cache_stats(f"sqlite:///{tmp_path}/none/cache.sqlite")
    assert not (tmp_path / "none").exists()
