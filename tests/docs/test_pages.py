"""The pages' console blocks run, and print what the pages say."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.tour import ROOT, blocks, folder_with_samples, models, normal, run, steps
from warm import warm_tilth


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/reference/feedback.md"]
    + [f"docs/how-to/{name}.md" for name in ("wildfeedback", "rationales", "rubrics", "orbit")],
)
def test_commands_print_what_the_page_says(tmp_path: Path, page: str) -> None:
    """Every command of a page's console blocks prints what stands under it, times and ids aside."""
    folder = folder_with_samples(tmp_path)
    commands = [step for block in blocks(ROOT / page) for step in steps(block)]
    assert commands
    with models(ROOT / page) as port:
        for step in commands:
            assert normal(run(step.command, folder, port, warm_tilth().parent)) == normal(step.said), (
                step.command
            )
