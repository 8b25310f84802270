"""Commands that pages show exist: their names, their options, and how many arguments they take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any  # Any: typer's own click is not typed for us

import pytest
from typer.main import get_command

from tilth.flows.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
_BLOCK = re.compile(r"^```(?:sh|console|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INNER = re.compile(r"\$\([^()]*\)")


def _commands(page: Path) -> Iterator[str]:
    """The `tilth …` in a page's blocks of shell, without what other programs make of them."""
    for block in _BLOCK.findall(page.read_text()):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            line = line.partition("$(for ")[0]
            for piece in (_INNER.sub("WORD", line), *_INNER.findall(line)):
                if found := re.match(r"(?:\$ |\$\()?tilth (.*)$", piece):
                    yield found[1]


def _helped(at: Any = None, name: str = "") -> Iterator[tuple[str, str]]:
    """Every command with its help."""
    at = at or get_command(app)
    yield name or "tilth", at.help or ""
    for own, command in getattr(at, "commands", {}).items():
        yield from _helped(command, f"{name} {own}".strip())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_exist(page: Path) -> None:
    """A page shows no command that the program would refuse to read."""
    refused = {command: said for command in _commands(page) if (said := _refused(command))}
    assert not refused


@pytest.mark.parametrize(("name", "text"), [pytest.param(*one, id=one[0]) for one in _helped()])
def test_examples_of_a_help_exist(name: str, text: str) -> None:
    """`--help` shows no command that the program would refuse to read."""
    shown = re.findall(r"^\s+tilth (.+)$", text, re.MULTILINE)
    refused = {command: said for command in shown if (said := _refused(command))}
    assert not refused, name


def _refused(command: str) -> str | None:
    """What the program says of a command's words, if it does not take them."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|;&)>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|;&)>"):
            break
        words.append(word)
    raw = re.sub(r"'[^']*'|\"[^\"]*\"", "", command.partition(" #")[0].partition("|")[0])
    if "*" in raw:
        return "the shell makes several words of a pattern that is not in quotes"
    at: Any = get_command(app)
    while hasattr(at, "commands"):
        if not words or words[0] not in at.commands:
            return f"no command {words[:1]}"
        at = at.commands[words.pop(0)]
    if "…" in words:
        words.remove("…")
    try:
        at.make_context("tilth", words, resilient_parsing="…" in command)
    except Exception as error:
        return getattr(error, "message", None) or str(error) or type(error).__name__
    return None
