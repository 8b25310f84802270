"""A two-layer Llama of random weights with a tokenizer and a chat template of its own, built on the spot in seconds.

It writes valid JSON and keeps to choices where vLLM makes it, and else writes nonsense: enough to test an engine with.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any  # Any: tokenizers and transformers are typed in part

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = ['hello world this is a small corpus {"label": "satisfied", "score": 1}'] * 50


def build(folder: Path, *, seed: int = 0, max_length: int = 4096) -> Path:
    """Writes the model to a folder and returns it. Equal arguments give equal files. Needs torch and transformers."""
    torch, transformers = _module("torch"), _module("transformers")
    tokenizer = save_tokenizer(folder)
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(shape(tokenizer, max_length)).to(torch.bfloat16).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> Any:
    """A byte-level BPE tokenizer of 600 tokens with `TEMPLATE`, saved to the folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator(CORPUS, trainer)
    tokenizer = _module("transformers").PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def shape(tokenizer: Any, max_length: int) -> Any:
    """The configuration of the model."""
    return _module("transformers").LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, head_dim=64, max_position_embeddings=max_length,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip


def _module(name: str) -> Any:
    return importlib.import_module(name)  # by name: not installed where types are checked
