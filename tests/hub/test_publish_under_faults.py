"""Publishing with the Hub's real client: whatever fails, is lost, is killed or races, one commit and one tag."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub.server import Fault, LoopbackHub
from hub.under_faults import FAULTS

TESTS = Path(__file__).resolve().parents[1]
BOTH = {
    "create": "POST /api/repos/create",
    "refs": "GET .*/refs",
    "history": "GET .*/commits/main",
    "files": "GET .*/tree/",
    "readme": "GET .*/resolve/.*/README.md",
    "preupload": "POST .*/preupload/main",
    "yaml": "POST /api/validate-yaml",
    "commit": "POST .*/commit/main",
    "tag": "POST .*/tag/",
}
STEPS = {
    "lfs": {**BOTH, "batch": "POST .*/objects/batch", "put": "PUT /lfs/", "verify": "POST /lfs/.*/verify"},
    "xet": {**BOTH, "xet": "GET .*/xet-write-token/main"},
}


def run(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def under_faults(mode: str) -> dict[str, Any]:
    done = subprocess.run(
        run("hub.under_faults", mode), cwd=TESTS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def every_request_can_fail(told: dict[str, Any], mode: str) -> None:
    for step, pattern in STEPS[mode].items():
        assert any(re.fullmatch(pattern + ".*", one) for one in told["requests"]), step
    assert len(told["cases"]) == len(FAULTS[mode]) * len(told["requests"])
    assert [case for case in told["cases"] if case["wrong"] or case["runs"] > 2 or not case["struck"]] == []
    # Some faults cost an attempt, some are the client's own to overcome: both were seen.
    assert {case["runs"] for case in told["cases"]} == {1, 2}


@pytest.mark.slow
def test_any_failed_request_leaves_one_commit_and_one_tag_by_lfs() -> None:
    """Each request of a publication fails in five ways, before or after it is acted upon; a second run completes it.

    Then, in the same world: one call overcomes each lost answer by itself; of two publishers of one version one makes
    the commit and the other finds it; a commit that somebody makes meanwhile is kept; and `load_dataset` at either tag
    gives the rows of that version.
    """
    told = under_faults("lfs")
    every_request_can_fail(told, "lfs")
    assert told["in_one_call"] == [None] * len(told["requests"])
    assert told["races"]["publisher"] == {"told": ["already published"], "wrong": None, "kept": False}
    assert told["races"]["person"] == {"told": ["published"], "wrong": None, "kept": True}
    assert told["equal"] is True


@pytest.mark.slow
def test_any_failed_request_leaves_one_commit_and_one_tag_by_xet() -> None:
    """The same where large files go through xet, with its own client."""
    every_request_can_fail(under_faults("xet"), "xet")


@pytest.mark.slow
def test_a_killed_publisher_leaves_nothing_that_the_next_trips_over() -> None:
    """Killed while it sends the second file, then killed after its commit and before its tag; the third run tags it."""
    with LoopbackHub() as hub:
        for number, pattern in ((2, "PUT /lfs/"), (1, "POST .*/commit/")):
            hold = Fault(number, "hold", after=True, matches=pattern)
            hub.faults.append(hold)
            publisher = subprocess.Popen(run("hub.publisher", hub.url), cwd=TESTS, stdout=subprocess.DEVNULL)
            assert hold.struck.wait(60)
            publisher.kill()
            publisher.wait()
            hold.released.set()
        assert hub.repos["org/garden"].tags == {}
        last = subprocess.run(
            run("hub.publisher", hub.url), cwd=TESTS, capture_output=True, text=True, check=True
        )
        assert last.stdout == "published"
        repo = hub.repos["org/garden"]
        assert len(repo.published) == 1
        assert repo.tags == {"observed-2026.11.21.1": repo.main}
        # What had arrived was not sent again: two files, sent once each, over three runs.
        assert sum(request.startswith("PUT") for request in hub.requests) == 2
