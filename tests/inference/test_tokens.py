"""Counting prompt tokens: with a tokenizer that is built on the spot, and without one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # what a tokenizer's configuration holds

import pytest
from huggingface_hub import constants
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tilth.schemas import BadInput
from tilth.transforms.inference.tokens import EstimatedCounter, ModelCounter, counter

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
PROMPT = [
    {"role": "system", "content": "hello world"},
    {"role": "user", "content": "this is a small corpus, и немного другого"},
]
RENDERED = "<s><|system|>hello world<|user|>this is a small corpus, и немного другого<|assistant|>"


def train() -> Tokenizer:
    """A byte-level BPE tokenizer that puts `<s>` before what it encodes, as Llama's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["hello world this is a small corpus"] * 50, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train()


def save(folder: Path, tokenizer: Tokenizer, config: Mapping[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    given = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(given if config is None else config))
    return folder


def expected(tokenizer: Tokenizer, rendered: str) -> int:
    return len(tokenizer.encode(rendered, add_special_tokens=False).ids)


def test_counts_are_those_of_the_rendered_prompt(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A folder with tokenizer and template: exactly the tokens of what the template renders, `<s>` only once."""
    counts = counter(str(save(tmp_path, tokenizer)))
    assert counts.count([PROMPT, PROMPT[1:]]) == [
        expected(tokenizer, RENDERED),
        expected(tokenizer, RENDERED.replace("<|system|>hello world", "")),
    ]
    assert counts.exact
    assert counts.how == "the model's tokenizer"


def test_a_template_of_its_own_file_goes_first(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """`chat_template.jinja` is used before the entry in `tokenizer_config.json`."""
    folder = save(tmp_path, tokenizer)
    (folder / "chat_template.jinja").write_text("<s>hello")
    assert counter(str(folder)).count([PROMPT]) == [expected(tokenizer, "<s>hello")]


def test_the_default_of_several_templates_is_used(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A list of named templates: the one named `default`."""
    named = [{"name": "tool_use", "template": "wrong"}, {"name": "default", "template": "<s>hello world"}]
    folder = save(tmp_path, tokenizer, {"chat_template": named})
    assert counter(str(folder)).count([PROMPT]) == [expected(tokenizer, "<s>hello world")]


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{{ eos_token }}{{ messages[0] | tojson }}", '</s>{"role": "system", "content": "hello world"}'),
        ("{{ {'a': 'é<'} | tojson }}", '{"a": "é<"}'),
        (
            "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
            "system",
        ),
        ("  {% if true %}\nhello\n  {% endif %}\n", "hello\n"),
        ("{% generation %}hello{% endgeneration %}", "hello"),
        ("{% if tools is not none %}tools{% endif %}{{ strftime_now('%%') }}", "%"),
        ("{{ pad_token }}hello", "hello"),
    ],
)
def test_templates_find_what_they_expect(
    tmp_path: Path, tokenizer: Tokenizer, template: str, rendered: str
) -> None:
    """Special tokens, tojson without HTML escapes, loop controls, trimmed blocks, strftime_now: as in transformers."""
    config = {"eos_token": {"content": "</s>"}, "pad_token": None, "chat_template": template}
    assert counter(str(save(tmp_path, tokenizer, config))).count([PROMPT]) == [expected(tokenizer, rendered)]


def test_a_prompt_that_the_template_refuses_is_counted_and_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """One refused prompt does not end a forecast; the others stay exact."""
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
    counts = ModelCounter(save(tmp_path, tokenizer, {"bos_token": "<s>", "chat_template": template}))
    refused, taken = counts.count([PROMPT, PROMPT[1:]])
    assert counts.refused == 1
    assert refused == expected(tokenizer, "\n".join(m["content"] for m in PROMPT)) + 8
    assert taken == expected(tokenizer, RENDERED.replace("<|system|>hello world", ""))


def test_a_template_cannot_reach_out(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Templates come with models: no way out of the sandbox, no change of messages, no crash."""
    reaching = "{{ ''.__class__.mro() }}", "{{ messages.append(1) }}", "{{ messages + 1 }}"
    for template in reaching:
        counts = ModelCounter(save(tmp_path, tokenizer, {"chat_template": template}))
        counts.count([PROMPT])
        assert counts.refused == 1


def test_without_a_template_the_count_is_not_exact(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Contents by the tokenizer and four tokens a message; the forecast can say so."""
    counts = counter(str(save(tmp_path, tokenizer, {})))
    assert counts.count([PROMPT[:1]]) == [expected(tokenizer, "hello world") + 4]
    assert (counts.exact, counts.how) == (False, "the model's tokenizer, without a chat template")


def test_truncation_and_padding_of_the_file_do_not_count(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A tokenizer.json that was saved with a maximum length counts long prompts in full and short ones as they are."""
    cut = Tokenizer.from_str(tokenizer.to_str())
    cut.enable_truncation(4)
    cut.enable_padding(length=64)
    assert counter(str(save(tmp_path, cut))).count([PROMPT]) == [expected(tokenizer, RENDERED)]


def test_a_hub_name_is_found_in_the_local_cache(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was downloaded before is counted exactly, at its revision, without the network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--some--model"
    save(repo / "snapshots" / commit, tokenizer)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for revision in ("", commit):
        counts = counter("some/model", revision)
        assert counts.exact
        assert counts.count([PROMPT]) == [expected(tokenizer, RENDERED)]
    assert not counter("some/model", "other").exact
    assert not counter("other/model").exact


@pytest.mark.parametrize("model", ["", "gpt-4o", "a name/that is: none", "/no/such/folder"])
def test_an_unknown_model_is_estimated(model: str) -> None:
    """No tokenizer on this host: 4 bytes a token and 4 tokens a message, and it says that it estimates."""
    counts = counter(model)
    assert counts.count([[{"role": "user", "content": "x" * 40}]]) == [14]
    assert (counts.exact, counts.how) == (False, "an estimate of 4 bytes a token")


def test_a_folder_without_a_tokenizer_is_estimated(tmp_path: Path) -> None:
    """Weights alone do not say how to count."""
    assert not counter(str(tmp_path)).exact


def test_other_scripts_take_more_tokens_a_byte() -> None:
    """Five Cyrillic letters are ten bytes and four tokens; mixed text adds up; an empty message has its frame."""
    texts = ["привет"[:5], "привет"[:5] + "x" * 8, "", "\ud800"]
    prompts = [[{"role": "user", "content": text}] for text in texts]
    assert EstimatedCounter().count(prompts) == [4 + 4, 6 + 4, 4, 1 + 4]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", '{"version": "1.0"}'),
        ("tokenizer_config.json", "not json"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"chat_template": "{% if %}"}'),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, tokenizer: Tokenizer, name: str, content: str) -> None:
    """A tokenizer, configuration or template that cannot be read is an error that says which file, not an estimate."""
    folder = save(tmp_path, tokenizer)
    (folder / name).write_text(content)
    with pytest.raises(BadInput, match=r"tokenizer\.json|tokenizer_config\.json|chat_template") as caught:
        counter(str(folder))
    assert str(folder) in str(caught.value)


def test_no_prompts_have_no_counts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """An empty table is counted too."""
    assert counter(str(save(tmp_path, tokenizer))).count([]) == []
    assert EstimatedCounter().count([]) == []


def test_many_prompts_are_counted_in_order(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """10,000 short prompts, more than a batch at a time, are counted in the order given."""
    counts = counter(str(save(tmp_path, tokenizer)))
    prompts = [[{"role": "user", "content": "hello " * (i % 7)}] for i in range(10_000)]
    found = counts.count(prompts)
    once = [expected(tokenizer, f"<s><|user|>{'hello ' * i}<|assistant|>") for i in range(7)]
    assert found == [once[i % 7] for i in range(10_000)]
