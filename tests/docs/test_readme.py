"""The README's tour runs, and prints what the README says."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs.tour import ROOT, blocks, folder_with_samples, normal, run, steps


@pytest.mark.slow
def test_the_tour_prints_what_the_readme_says(tmp_path: Path) -> None:
    """Every command of the README's console blocks prints what stands under it, times and ids aside."""
    folder = folder_with_samples(tmp_path)
    commands = [step for block in blocks(ROOT / "README.md") for step in steps(block)]
    assert len(commands) >= 8
    for step in commands:
        assert normal(run(step.command, folder)) == normal(step.said), step.command
