"""Tokens per second and share of the time that the GPU is busy: ours beside raw `LLM.generate`, without any weights.

    python benchmarks/inference/gpu.py                       # an 8B Llama of random weights, on one GPU
    python benchmarks/inference/gpu.py --shape 1b --prompts 4096
    .venv-vllm/bin/python benchmarks/inference/gpu.py --device cpu --tiny     # only shows that it works

Configuration and tokenizer are made on the spot; prompts and answers have a fixed length (`ignore_eos`). Busy share is
what NVML says through nvidia-smi: the share of time in which a kernel ran.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from vllm_sides import Side, Spec, Turn, compare, sides, table  # noqa: E402

SAMPLE_MS = 100
SHAPES: dict[str, dict[str, int]] = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256},
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 2048},
}  # fmt: skip
SPECIAL = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build(folder: Path, shape: dict[str, int], context: int) -> list[str]:
    """Writes a Llama's configuration and a tokenizer of one token per word; returns the words."""
    words = [f"w{number}" for number in range(shape["vocab_size"] - len(SPECIAL))]
    _save_tokenizer(folder, words)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_act": "silu",
        "max_position_embeddings": context, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2, **shape,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return words


def _save_tokenizer(folder: Path, words: list[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=SPECIAL[3:],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


class Busy:
    """Samples how busy the GPUs are, where there are any."""

    def __init__(self) -> None:
        self.shares: dict[str, list[float]] = {}

    def during(self, side: Side, number: int) -> Turn:
        """One turn, watched."""
        if shutil.which("nvidia-smi") is None:
            return _told(side, number, side.turn(number))
        query = [
            "nvidia-smi",
            "--query-gpu=utilization.gpu",
            "--format=csv,noheader,nounits",
            f"-lms={SAMPLE_MS}",
        ]
        if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
            query.append(f"--id={visible}")
        with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as sampler:
            turn = side.turn(number)
            sampler.terminate()
            said = sampler.communicate()[0]
        samples = [float(line) / 100 for line in said.splitlines() if line.strip().isdigit()]
        self.shares.setdefault(side.kind, []).append(statistics.mean(samples) if samples else float("nan"))
        return _told(side, number, turn)

    def column(self, kind: str) -> str:
        """For the table."""
        return f" (GPU busy {statistics.median(self.shares[kind]):.1%})" if kind in self.shares else ""


def _told(side: Side, number: int, turn: Turn) -> Turn:
    print(f"{side.kind:>8} {number}: {turn.rate:,.0f} tokens/s in {turn.seconds:.1f} s", file=sys.stderr)
    return turn


def main() -> None:
    """Prints one table."""
    given = _arguments()
    shape = SHAPES["tiny" if given.tiny else given.shape]
    context = given.prompt_tokens + given.max_tokens + 16
    args: dict[str, Any] = {"load_format": "dummy", "dtype": "bfloat16", "max_model_len": context}
    if given.device == "cpu":
        args["enforce_eager"] = True
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    else:
        # Sides take turns and stay loaded, so that all of them fit on one GPU.
        args["gpu_memory_utilization"] = given.memory / len(given.sides)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    busy = Busy()
    with tempfile.TemporaryDirectory() as folder:
        words = build(Path(folder), shape, context)
        spec = Spec(
            model=folder, args={**args, **given.args}, prompts=given.prompts, words=words[:512],
            length=given.prompt_tokens - 2, max_tokens=given.max_tokens, temperature=1.0, seeded=False,
            ignore_eos=True, chat=False,
        )  # fmt: skip
        with sides(given.sides, spec) as loaded:
            found = compare(loaded, given.repeats, busy.during)
    name = "tiny" if given.tiny else given.shape
    print(
        f"{name} Llama, {given.prompts} prompts of {given.prompt_tokens} tokens, {given.max_tokens} tokens each"
    )
    print(table(found, busy.column))
    if not busy.shares:
        print("No GPU here (no nvidia-smi): the busy share was not measured.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["gpu", "cpu"], default="gpu")
    parser.add_argument("--shape", choices=["8b", "1b"], default="8b")
    parser.add_argument("--tiny", action="store_true", help="a model of two small layers")
    parser.add_argument("--prompts", type=int, default=None)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--memory", type=float, default=0.9, help="share of the GPU's memory, for all sides together"
    )
    parser.add_argument("--sides", nargs="+", default=["raw", "engine", "worker"])
    parser.add_argument("--args", type=json.loads, default={}, help="more engine arguments, as JSON")
    given = parser.parse_args()
    given.prompts = given.prompts or (64 if given.tiny else 2048)
    return given


if __name__ == "__main__":
    main()
