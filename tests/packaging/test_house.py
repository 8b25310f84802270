"""The house itself: layers, doors, light imports, and a wheel that holds what the repository holds."""

from __future__ import annotations

import importlib
import resource
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("pipelines", "transforms", "schemas", "flows", "catalog")
_DATA = {"apache_beam", "prefect", "great_expectations", "datasets", "pyiceberg", "duckdb", "pandas"}
_MODELS = {"openai", "aiohttp", "sqlalchemy", "jinja2", "jsonschema", "tokenizers", "vllm", "torch"}
_STATISTICS = {"sklearn", "scipy", "matplotlib", "krippendorff"}
HEAVY = _DATA | _MODELS | _STATISTICS
LIGHT_DOORS = (
    "tilth",
    "tilth.schemas",
    "tilth.transforms",
    "tilth.transforms.inference",
    "tilth.catalog",
    "tilth.flows.cli",
)


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print('\\n'.join({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("door", LIGHT_DOORS)
def test_doors_load_nothing_heavy(door: str) -> None:
    """Importing a door loads none of the heavy packages."""
    assert not _loaded_by(f"import {door}") & HEAVY


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_refuse_to_be_imported_under_another_name(room: str) -> None:
    """`import flows` fails loudly, so that no module exists twice."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {room}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"tilth.{room}" in done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_links_are_relative_and_lead_to_the_rooms(room: str) -> None:
    """src/tilth holds five relative links and nothing of its own."""
    link = ROOT / "src" / "tilth" / room
    assert link.is_symlink()
    assert str(link.readlink()) == f"../../{room}"


@pytest.mark.parametrize(
    "room",
    [
        "schemas",
        "transforms.ingest",
        "transforms.feedback",
        "transforms.pairs",
        "transforms.inference",
        "catalog",
    ],
)
def test_doors_are_curated(room: str) -> None:
    """Each door lists at most fifteen or so names, none twice, and every one is there."""
    module = importlib.import_module(f"tilth.{room}")
    names = list(module.__all__)
    assert 0 < len(names) <= 18
    assert len(set(names)) == len(names)
    assert all(hasattr(module, name) for name in names)


def test_layers_hold() -> None:
    """flows -> pipelines -> transforms -> schemas and flows -> catalog -> schemas, checked by import-linter."""
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_help_is_instant() -> None:
    """`tilth --help` takes under half a second of CPU."""
    program = [sys.executable, "-m", "tilth.flows.cli", "--help"]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(program, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def _sources() -> set[str]:
    kept = {".py", ".yaml", ".jsonl", ".json", ".md", ".typed"}
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    return {
        name for name in listed if name.partition("/")[0] in {*ROOMS, "samples"} and Path(name).suffix in kept
    }


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_the_repository_holds(tmp_path: Path) -> None:
    """Every source file of the rooms and the samples is in the wheel and in the sdist, and nothing else is."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is no list of files to compare with")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, capture_output=True, check=True)
    wheel = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        sdist = {name.partition("/")[2] for name in archive.getnames()}
    wanted = _sources()
    in_wheel = {
        f"tilth/{name}" if not name.startswith("samples/") else f"tilth/flows/{name}" for name in wanted
    }
    assert in_wheel <= wheel
    assert wanted <= sdist
    extra = {n for n in wheel if n.endswith(".py")} - in_wheel - {"tilth/__init__.py"}
    assert not extra


def test_lock_names_hashes_and_no_host() -> None:
    """requirements.lock pins every package with hashes and names no package host."""
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "--index-url" not in text
    pinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert pinned
    assert all("==" in line and line.endswith("\\") for line in pinned)
