"""Grammars that vLLM holds answers to let a model quote what it was shown."""

from __future__ import annotations

import importlib
import json

import pytest

from tilth.transforms.inference.structured import unbounded
from tilth.transforms.rationales.written import answer_schema

pytestmark = pytest.mark.vllm


def test_a_rationale_may_quote_code_and_speech() -> None:
    """Quotation marks, line breaks and backslashes get through, escaped as JSON has them; bare ones do not."""
    xgrammar = importlib.import_module("xgrammar")
    testing = importlib.import_module("xgrammar.testing")
    grammar = xgrammar.Grammar.from_json_schema(unbounded(answer_schema("specific")))
    said = {"evidence": [{"reply": 1, "quote": 'print("a\\n")\n\tdone'}], "reason": 'It says "a".'}
    text = json.dumps(said, separators=(",", ":"))
    assert testing._is_grammar_accept_string(grammar, text)
    assert not testing._is_grammar_accept_string(grammar, text.replace("\\n", "\n"))
