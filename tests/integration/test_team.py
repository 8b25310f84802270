"""What docs/how-to/teams.md says: `prefect.yaml` is deployed to a work pool, and a worker runs what comes due."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tilth.catalog import open_catalog

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group("prefect")]
ROOT = Path(__file__).resolve().parents[2]
PREFECT = Path(sys.executable).parent / "prefect"


def test_a_worker_runs_what_is_deployed(prefect_api: str, tmp_path: Path) -> None:
    """The commands of the page, with the sample `prefect.yaml`: the run finds the folder, its settings and its logs."""
    home = tmp_path / "srv"
    (home / "logs").mkdir(parents=True)
    shutil.copy(ROOT / "prefect.yaml", home)
    shutil.copy(ROOT / "samples" / "logs" / "support.openai.jsonl", home / "logs")
    (home / "tilth.yaml").write_text("sources: [logs/*.jsonl]\n")
    environment = {
        **os.environ,
        "PREFECT_API_URL": prefect_api,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "TILTH_HOME": str(home),
    }
    for words in (
        ("work-pool", "create", "tilth", "--type", "process"),
        ("--no-prompt", "deploy", "--all"),
        ("deployment", "run", "tilth-run/nightly"),
        ("worker", "start", "--pool", "tilth", "--run-once"),
    ):
        done = subprocess.run(
            [str(PREFECT), *words], cwd=home, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    with open_catalog(str(home / "tilth-workspace"), create=False) as catalog:
        made = catalog.resolve("observed.pairs")
    assert made.rows > 0
    assert made.properties["tilth.stream"].startswith("observed-")
