"""The tiny model of random weights, with a leaning to end what it says: strings of JSON and replies stay short."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final  # Any: torch and transformers are not installed where types are checked

import tiny_llama

BIAS: Final = {"</s>": 3.5, '"': 3.0, "{": 3.0, ",": 1.0}
"""Of the logits: one token in 20 or 30 ends a reply or a string, instead of one in 600; lists are not empty."""


def build(folder: Path, *, max_length: int) -> Path:
    """Writes the model to a folder and returns it.

    A server cannot be told of a bias in all that it is asked, so it is in the weights: one number of every embedding
    stands out from all others, and the head reads from it what is added to a logit.
    """
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    tiny_llama.build(folder, max_length=max_length)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype="bfloat16")
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        every = torch.arange(len(tokenizer))[None]
        one = model.model(input_ids=every).last_hidden_state[..., 0].mean()
        for token, bias in BIAS.items():
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(token), 0] += bias / one
    model.save_pretrained(folder)
    return folder
