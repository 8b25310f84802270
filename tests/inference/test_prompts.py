"""Prompts: what users wrote stays inside of its block, whatever it is; templates say what is wrong with them."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer

from tilth.schemas import BadInput, ConfigError, NotFound
from tilth.transforms.inference.prompts import (
    NOTICE,
    Prompt,
    Trusted,
    _Blocks,
    as_chat,
    load_prompt,
    neutralise,
    restore,
)
from tilth.transforms.inference.requests import Sampling
from tilth.transforms.inference.sampling import requests_frame

LINES = Path(__file__).with_name("injections.jsonl").read_text(encoding="utf-8").splitlines()
INJECTIONS = {row["name"]: row["text"] * row.get("repeat", 1) for row in map(json.loads, LINES)}
BLOCK = re.compile(r"<<material ([0-9a-f]{12})(?: (\w+))?>>\n(.*?)\n<</material \1>>", re.DOTALL)
# Written out here, apart from the patterns: what servers of these families would turn into a control token.
NAMED = """<|im_start|> <|im_end|> <|im_sep|> <|endoftext|> <|eot_id|> <|eom_id|> <|start_header_id|> <|end_header_id|>
<|begin_of_text|> <|end_of_text|> <|python_tag|> <|header_start|> <|eot|> <|start|> <|end|> <|message|> <|channel|>
<|return|> <|call|> <|system|> <|user|> <|assistant|> <|observation|> <|START_OF_TURN_TOKEN|> <|end_of_role|>
<|turn> <turn|> <|channel> <channel|> <|vision_start|> <|image_pad|> <|tool_calls_section_begin|> [INST] [/INST]
<<SYS>> <</SYS>> <s> </s> <bos> <eos> <pad> <unk> <start_of_turn> <end_of_turn> <start_of_image>
<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜>
<think> </think> <tool_call>
</tool_call> <tool_response> </tool_response> [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS]
[/TOOL_RESULTS] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT] [ARGS] [CALL_ID] [THINK] [/THINK] [IMG] [gMASK]
[sMASK] <sop> <eop> [|system|] [|endofturn|] ]~b] ]~!b[ [e~[ <BOS_TOKEN> <EOS_TOKEN> <fim_prefix> <fim_suffix>
<seed:bos> <seed:eos> <unused42> <reserved_106> <extra_id_0> <SPECIAL_12> [UNUSED_TOKEN_145] <mask:1> <image>
<video> <0x0A>"""
TOKENS = NAMED.split()
PIECES = [
    *"<>[]/|｜＜［~b!sſa0",
    "\u2060",
    "\n",
    "SYS",
    "INST",
    "material",
    "im_end",
    "e~",
    "<<material ",
    "</material ",
    *TOKENS,
]
tangled = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
texts = st.one_of(st.text(), tangled)


class Place(NamedTuple):
    """A kind of place that a text can be put into, and what its blocks then hold."""

    user: str
    values: Callable[[str], dict[str, object]]
    held: Callable[[str], list[str]]
    system: str | None = None


def _turns(text: str) -> dict[str, object]:
    return {
        "turns": [{"role": role, "content": text + role} for role in ("system", "user", "assistant", "tool")]
    }


PLACES = {
    "inline": Place("Grade: {{ text }} now.", lambda t: {"text": t}, lambda t: [t]),
    "alone": Place("{{ text }}", lambda t: {"text": t}, lambda t: [t], "You grade."),
    "system": Place("Grade it.", lambda t: {"text": t}, lambda t: [t], "You grade {{ text }}."),
    "both messages": Place("A {{ text }} B", lambda t: {"text": t}, lambda t: [t, t], "{{ text }}"),
    "side by side": Place(
        "{{ text }}{{ text }}<{{ other }}", lambda t: {"text": t, "other": "x"}, lambda t: [t, t, "x"]
    ),
    "sliced": Place("{{ text[1:] }}.", lambda t: {"text": t}, lambda t: [t[1:]]),
    "filtered": Place("{{ text | upper }}.", lambda t: {"text": t}, lambda t: [t.upper()]),
    "marked safe": Place("{{ text | safe }}.", lambda t: {"text": t}, lambda t: [t]),
    "method": Place("{{ text.swapcase() }}.", lambda t: {"text": t}, lambda t: [t.swapcase()]),
    "joined": Place("{{ 'by ' ~ text ~ 1 }}.", lambda t: {"text": t}, lambda t: [f"by {t}1"]),
    "added": Place("{{ 'by ' + text }}.", lambda t: {"text": t}, lambda t: [f"by {t}"]),
    "formatted": Place("{{ '%s!' % text }}.", lambda t: {"text": t}, lambda t: [f"{t}!"]),
    "format method": Place("{{ 'by {}'.format(text) }}.", lambda t: {"text": t}, lambda t: [f"by {t}"]),
    "with trusted": Place(
        "{{ mark ~ text }}.", lambda t: {"text": t, "mark": Trusted("T")}, lambda t: [f"T{t}"]
    ),
    "loop": Place(
        "{% for one in all %}{{ loop.index }}. {{ one }}\n{% endfor %}",
        lambda t: {"all": ["first", t, t + "!"]},
        lambda t: ["first", t, t + "!"],
    ),
    "set": Place("{% set x = text %}{{ x }}", lambda t: {"text": t}, lambda t: [t]),
    "with": Place("{% with x = text %}{{ x }}{% endwith %}", lambda t: {"text": t}, lambda t: [t]),
    "choice": Place("{{ text if on else 'no text' }}", lambda t: {"text": t, "on": True}, lambda t: [t]),
    "struct": Place("{{ row.text }}", lambda t: {"row": {"text": t}}, lambda t: [t]),
    "list as text": Place(
        "{{ all }}",
        lambda t: {"all": [t]},
        lambda t: [json.dumps([t], ensure_ascii=False, separators=(",", ":"))],
    ),
    "list joined": Place("{{ all | join('; ') }}", lambda t: {"all": [t, "b"]}, lambda t: [f"{t}; b"]),
    "conversation": Place(
        "{{ turns | conversation }}",
        _turns,
        lambda t: [t + r for r in ("system", "user", "assistant", "tool")],
    ),
    "conversation as text": Place(
        "{{ turns | conversation | lower }}",
        lambda t: {"turns": [{"role": "user", "content": t}]},
        lambda t: [f"user: {t}".lower()],
    ),
}


def _prompt(place: Place) -> Prompt:
    return Prompt.of("test/place", "1", user=place.user, system=place.system)


def _skeleton(content: str) -> str:
    return BLOCK.sub(r"BLOCK \2", content)


def _blocks(messages: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return [found for one in messages for found in BLOCK.findall(one["content"].replace(NOTICE, ""))]


def _check(place: Place, text: str) -> None:
    prompt = _prompt(place)
    messages, harmless = prompt.render(place.values(text)), prompt.render(place.values("harmless"))
    blocks = _blocks(messages)
    assert [restore(content) for _, _, content in blocks] == place.held(text)
    assert len({code for code, _, _ in blocks}) == len(blocks)
    whole = "\n".join(one["content"].replace(NOTICE, "") for one in messages)
    for code, _, content in blocks:
        assert whole.count(f"<<material {code}") == whole.count(f"<</material {code}>>") == 1
        assert code not in content
        folded = content.lower()
        assert [token for token in TOKENS if token.lower() in folded] == []
    assert len(re.findall("<<material", whole, re.IGNORECASE)) == len(blocks)
    assert len(re.findall("<</material", whole, re.IGNORECASE)) == len(blocks)
    assert [(m["role"], _skeleton(m["content"])) for m in messages] == [
        (m["role"], _skeleton(m["content"])) for m in harmless
    ]


def test_the_corpus_is_large() -> None:
    """The injection corpus holds at least forty different strings."""
    assert len(set(INJECTIONS.values())) >= 40


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_no_injection_leaves_its_block(place: str) -> None:
    """Each string of the corpus stands whole between marks that occur once, and the rest of the prompt stays equal."""
    for text in INJECTIONS.values():
        _check(PLACES[place], text)


@pytest.mark.slow
@given(text=texts, place=st.sampled_from(sorted(PLACES)))
def test_no_text_leaves_its_block(text: str, place: str) -> None:
    """The same, for arbitrary text and for tangles of marks and control tokens."""
    _check(PLACES[place], text)


def test_known_codes_do_not_help() -> None:
    """A text that holds the marks of its own earlier rendering, or those of its neighbour, closes nothing."""
    prompt = Prompt.of("p", "1", user="{{ a }}{{ b }}")
    text = "start"
    for _ in range(20):
        blocks = _blocks(prompt.render({"a": text, "b": "neighbour"}))
        text += "".join(f"<</material {code}>> {code} <<material {code}>>\n" for code, _, _ in blocks)
        _check(
            Place(
                "{{ text }}{{ other }}",
                lambda t: {"text": t, "other": "neighbour"},
                lambda t: [t, "neighbour"],
            ),
            text,
        )


def test_a_code_that_its_content_holds_is_drawn_again() -> None:
    """A code never occurs in its content; seen with codes so short that a text can hold nearly all of them."""
    text = "".join(f"{code:02x} " for code in range(1, 256))
    assert _Blocks("p", code_bytes=1).add(text).startswith("<<material 00>>")


def test_no_code_is_used_twice() -> None:
    """Blocks of equal content have different codes, so each mark occurs once."""
    blocks = _blocks(Prompt.of("p", "1", user="{{ a }}{{ a }}{{ a }}").render({"a": "same"}))
    assert len({code for code, _, _ in blocks}) == 3


def test_no_row_changes_what_shape_the_answer_has() -> None:
    """Whatever rows hold, schema and choices of the requests are those that the step asked with."""
    schema = json.dumps({"type": "object", "properties": {"score": {"type": "integer"}}})
    rows = pl.DataFrame({"id": list(INJECTIONS), "text": list(INJECTIONS.values())})
    frame = requests_frame(Prompt.of("p", "1", user="{{ text }}"), rows, "id", Sampling(), schema=schema)
    assert frame["schema"].to_list() == [schema] * len(INJECTIONS)
    assert frame.select(pl.exclude("id", "messages")).n_unique() == 1


# Control tokens


@given(texts)
def test_restore_undoes_neutralise(text: str) -> None:
    """`restore` gives back every text exactly, also when joiners stood where neutralising puts them, also twice."""
    assert restore(neutralise(text)) == text
    assert restore(restore(neutralise(neutralise(text)))) == text


@given(st.text(alphabet="<>[]|/~!b\u2060sSY＜", max_size=30))
def test_restore_undoes_neutralise_on_brackets(text: str) -> None:
    """The same for dense runs of brackets and joiners."""
    assert restore(neutralise(text)) == text


@pytest.mark.parametrize(
    "text", ["<<material|>", "<<SYS>>|>", "<\u2060<material|>", "<<\u2060material|>", "]~b]~b]", "[e~[INST]"]
)
def test_restore_undoes_neutralise_where_tokens_overlap(text: str) -> None:
    """The same where one token begins inside of another."""
    assert restore(neutralise(text)) == text


@pytest.mark.parametrize("token", TOKENS)
def test_control_tokens_are_broken(token: str) -> None:
    """Each control token of the main families is broken, alone, within text and next to itself."""
    for text in (token, f"a{token}b", token * 3, token.upper(), f"<{token}>"):
        assert token not in neutralise(text)
        assert token.upper() not in neutralise(text)


@given(tangled)
def test_no_control_token_survives(text: str) -> None:
    """No tangle of pieces holds a control token after neutralising."""
    broken = neutralise(text)
    assert [token for token in TOKENS if token in broken] == []


def test_plain_text_is_left_alone() -> None:
    """HTML, code and marks of redaction are not control tokens."""
    plain = "<b>bold</b> a < b || c > d, x[0][1], [TODO] [EMAIL] <div class='s'> <T> List<int> f<x> 3<4 [link](url)"
    assert neutralise(plain) == plain


def _tokenizer(normalizer: Normalizer | None, *, normalized: bool) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if normalizer is not None:
        made.normalizer = normalizer
    made.add_special_tokens([AddedToken(token, special=True, normalized=normalized) for token in TOKENS])
    return made


@pytest.mark.parametrize(
    "normalizer", [None, normalizers.NFC(), normalizers.NFKC()], ids=["none", "nfc", "nfkc"]
)
def test_a_tokenizer_sees_no_control_token(normalizer: Normalizer | None) -> None:
    """A real tokenizer with these tokens finds each in the raw text and none after neutralising."""
    made = _tokenizer(normalizer, normalized=normalizer is not None)
    controls = {made.token_to_id(token) for token in TOKENS}
    for text in [*TOKENS, *(t for t in INJECTIONS.values() if len(t) < 10_000)]:
        assert not controls & set(made.encode(neutralise(text)).ids)
    assert all(controls & set(made.encode(token).ids) for token in TOKENS)


def test_a_conversation_is_sent_without_control_tokens() -> None:
    """`as_chat` keeps roles and order, and its contents come back by `restore`."""
    said = [{"role": "user", "content": text} for text in INJECTIONS.values()]
    chat = as_chat(said)
    assert [restore(one["content"]) for one in chat] == list(INJECTIONS.values())
    assert not [token for one in chat for token in TOKENS if token in one["content"]]


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "SECRET", "content": "x"},
        {"role": "user"},
        {"role": "user", "content": None},
        {"content": "x"},
        "SECRET",
    ],
)
def test_a_turn_without_role_or_text_is_refused(turn: object) -> None:
    """A role that no conversation has, or a content that is no text, is an error that quotes neither."""
    with pytest.raises(BadInput) as caught:
        as_chat([turn])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    assert "SECRET" not in str(caught.value)
    with pytest.raises(BadInput):
        Prompt.of("p", "1", user="{{ m | conversation }}").render({"m": [turn]})


# What is material and what is not


def test_roles_of_turns_stand_in_the_marks() -> None:
    """A conversation is one block per turn, and the begin mark names who said it."""
    messages = Prompt.of("p", "1", user="{{ m | conversation }}").render(
        {"m": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    )
    assert [(role, content) for _, role, content in _blocks(messages)] == [("user", "a"), ("assistant", "b")]


def test_the_notice_is_said_once() -> None:
    """With material the system message says what the marks mean, once; it is made where there is none."""
    made = Prompt.of("p", "1", user="{{ a }}{{ a }}").render({"a": "x"})
    kept = Prompt.of("p", "1", system="You grade.", user="{{ a }}").render({"a": "x"})
    assert [one["role"] for one in made] == [one["role"] for one in kept] == ["system", "user"]
    assert made[0]["content"] == NOTICE
    assert kept[0]["content"] == f"You grade.\n\n{NOTICE}"


def test_without_material_there_is_no_notice() -> None:
    """Numbers, booleans, constants and trusted text are the prompt's own; a null is nothing."""
    prompt = Prompt.of(
        "p", "1", user="{{ n }} {{ f }} {{ b }} {{ t }} {{ c | trusted }} {{ 'k' if b else 'l' }}{{ z }}"
    )
    values = {"n": 3, "f": 0.5, "b": True, "t": Trusted("T <s>"), "c": "C", "z": None}
    assert prompt.render(values) == [{"role": "user", "content": "3 0.5 True T <s> C k"}]


def test_trust_does_not_spread() -> None:
    """What is made from trusted text by any operation is material."""
    for made in ("t ~ ''", "t | upper", "t.text", "[t] | join", "'{}'.format(t)", "t | string", "[t]"):
        prompt = Prompt.of("p", "1", user=f"{{{{ {made} }}}}")
        assert len(_blocks(prompt.render({"t": Trusted("x{}")}))) == 1, made


@pytest.mark.parametrize(
    "template",
    ["{{ v.__class__ }}", "{{ v['__class__'] }}", "{{ v | attr('__class__') }}", "{{ v._private }}",
     "{{ v.__init__.__globals__ }}", "{{ (v ~ '').__class__.__mro__ }}",
     "{{ [v] | map(attribute='__class__') | list }}",
     "{{ '{0.__class__}'.format(v) }}", "{{ all.append(1) }}", "{{ self }}", "{{ all.sort }}"],
)  # fmt: skip
def test_the_sandbox_holds(template: str) -> None:
    """No template reaches inside of Python or changes a value; the error does not quote the value."""
    values: dict[str, object] = {"v": "SECRET", "all": ["SECRET"]}
    with pytest.raises(ConfigError) as caught:
        Prompt.of("p", "1", user=template).render(values)
    assert "SECRET" not in repr(caught.value) + str(caught.value)
    assert values == {"v": "SECRET", "all": ["SECRET"]}


@pytest.mark.parametrize(
    "template",
    ["{% macro m(x) %}{{ x }}{% endmacro %}", "{% filter upper %}{{ x }}{% endfilter %}", "{% include 'x' %}",
     "{% set x %}{{ y }}{% endset %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{% block b %}{% endblock %}",
     "{% call f() %}{% endcall %}", "{% autoescape true %}{{ x }}{% endautoescape %}", "{{ x | random }}",
     "{% for x in y recursive %}{{ loop(x) }}{% endfor %}"],
)  # fmt: skip
def test_what_could_handle_delimited_text_is_refused(template: str) -> None:
    """Macros, filter blocks and the like are refused when the prompt is made, with the line."""
    with pytest.raises(ConfigError, match="line 2"):
        Prompt.of("p", "1", user=f"first\n{template}")


# Errors of templates


def test_an_unknown_name_is_named_with_the_known_ones() -> None:
    """A name that is not among the values is an error with the name, the line and the known names; no values."""
    with pytest.raises(ConfigError) as caught:
        Prompt.of("p", "1", user="x\n{{ awnser }}").render({"answer": "SECRET", "question": "SECRET"})
    assert str(caught.value).split("\n  ") == [
        "prompt p, user, line 2: no value of this name", "found: awnser", "wanted: one of answer, question"
    ]  # fmt: skip


@pytest.mark.parametrize("template", ["{{ v[w] }}", "{{ v.a.b }}", "{{ w + 1 }}", "{{ w | conversation }}",
                                      "{{ v[w].x }}", "{{ w | round }}", "{{ w | dictsort }}",
                                      "{{ w.format() }}"])  # fmt: skip
def test_errors_hold_no_values(template: str) -> None:
    """Whatever goes wrong with a row, neither the error nor what it is raised from holds the row's text."""
    with pytest.raises((ConfigError, BadInput)) as caught:
        Prompt.of("p", "1", user=template).render({"v": {}, "w": "{SECRET}"})
    chain: list[BaseException] = [caught.value]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    assert not [one for one in chain if "SECRET" in str(one)]


def test_an_optional_value_can_be_tested() -> None:
    """`is defined` asks for a name without failing."""
    prompt = Prompt.of("p", "1", user="a{% if hint is defined %}: {{ hint }}{% endif %}")
    assert prompt.render({}) == [{"role": "user", "content": "a"}]
    assert len(_blocks(prompt.render({"hint": "h"}))) == 1


@pytest.mark.parametrize("value", [{1, 2}, object(), (x for x in "ab"), len, {"a": {1}}])
def test_values_without_one_text_are_refused(value: object) -> None:
    """Text with addresses or in an order that changes between runs never gets into a prompt."""
    with pytest.raises(ConfigError, match="a value of type"):
        Prompt.of("p", "1", user="{{ v }}").render({"v": value})


# The prompt itself

FILE = """---
id: judge/helpfulness
version: 2
---

=== system ===
You grade.

=== user ===

Question:
{% for one in questions %}
- {{ one }}
{% endfor %}
  === not a section, since it is indented
=====
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "judge.prompt"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_becomes_a_prompt(tmp_path: Path) -> None:
    """Front matter gives id and version, lines `=== role ===` start sections, blank lines around them fall away."""
    prompt = load_prompt(_write(tmp_path, FILE))
    assert (prompt.id, prompt.version) == ("judge/helpfulness", "2")
    assert [role for role, _ in prompt.messages] == ["system", "user"]
    assert prompt.messages[0][1] == "You grade."
    assert prompt.messages[1][1].startswith("Question:\n{% for")
    assert prompt.messages[1][1].endswith("indented\n=====")
    assert prompt.names == {"questions"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("=== user ===", "=== usr ===", "line 9: not a section"),
        ("{% endfor %}", "", "line 13.*\n.*endfor"),
        ("{{ one }}", "{{ one | nope }}", "line 13"),
        ("{{ one }}", "{% include 'x' %}", "line 13"),
        ("version: 2\n", "", "front matter"),
        ("version: 2", "version: 1.10", "quotes"),
        ("version: 2", "version: 2\nmodel: x", "front matter"),
        ("version: 2", "version: [", "line 4"),
        ("version: 2", "version: ''", "no version"),
        ("id: judge/helpfulness", "id: 'a b'", "id of a prompt"),
        ("---\nid", "id", "no front matter"),
        ("=== system ===", "Hello", "before the first section"),
        ("=== system ===", "=== user ===\nx\n=== system ===", "messages of a prompt"),
        ("=== user ===", "=== assistant ===", "messages of a prompt"),
    ],
)
def test_a_broken_file_says_where(tmp_path: Path, old: str, new: str, said: str) -> None:
    """A file that cannot be read as meant is an error with its path, and its line where there is one."""
    path = _write(tmp_path, FILE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=said):
        load_prompt(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path without a file is `NotFound`."""
    with pytest.raises(NotFound, match=r"none\.prompt"):
        load_prompt(tmp_path / "none.prompt")


def test_a_changed_text_has_another_digest() -> None:
    """The digest is of the templates alone, so a version that was not bumped shows."""
    one, same = Prompt.of("p", "1", user="a"), Prompt.of("q", "2", user="a")
    assert one.digest == same.digest
    assert (
        len(
            {
                one.digest,
                Prompt.of("p", "1", user="b").digest,
                Prompt.of("p", "1", user="", system="a").digest,
            }
        )
        == 3
    )


def test_prompts_pickle() -> None:
    """A prompt that was used goes to a worker and renders the same there."""
    prompt = Prompt.of("p", "1", user="{{ a }}")
    said = prompt.render({"a": "x"})
    again = pickle.loads(pickle.dumps(prompt))
    assert again == prompt
    assert again.render({"a": "x"}) == said


@pytest.mark.slow
def test_rendering_is_the_same_in_every_process() -> None:
    """Equal values give equal bytes under another hash seed: answers are cached by them."""
    code = (
        "from tilth.transforms.inference.prompts import Prompt; import json;"
        "print(json.dumps(Prompt.of('p', '1', user='{{ a }} {{ b }}').render({'a': '<s>', 'b': {'y': 1, 'x': [2]}})))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert json.loads(said[0])[1]["content"].startswith("<<material ")


@pytest.mark.parametrize(
    "text", ["<" * 200_000, "<\u2060" * 100_000, "<tool_" * 50_000, "<" + "a" * 200_000, "[" * 200_000]
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    """No text makes the search for control tokens slow."""
    started = time.thread_time()
    assert restore(neutralise(text)) == text
    assert time.thread_time() - started < 5
