"""Tokens per second of raw vLLM (`LLM.chat`) and of ours: the same prompts, tiny model and sampling, turn by turn.

    .venv-vllm/bin/python benchmarks/inference/vllm_throughput.py          # about ten minutes on two cores

The model is so small that what stands around it decides: this is the hard case. On a GPU, see gpu.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests")]

from vllm_sides import Side, Spec, Turn, compare, sides, table  # noqa: E402

from tiny_llama import build  # noqa: E402

# Without chunks, because vLLM on a CPU dies of a seeded request whose prompt is read in pieces.
ARGS = {"dtype": "bfloat16", "enforce_eager": True, "max_model_len": 2048, "enable_chunked_prefill": False}
WORDS = ["hello", "world", "this", "is", "a", "small", "corpus", "label", "satisfied", "score"]


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1024)
    parser.add_argument("--words", type=int, default=60, help="length of a prompt, in words")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sides", nargs="+", default=["raw", "engine", "worker"])
    given = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        spec = Spec(
            model=str(build(Path(folder))), args=ARGS,
            prompts=given.prompts, words=WORDS, length=given.words, max_tokens=given.max_tokens,
            temperature=0.8, seeded=True, ignore_eos=False, chat=True,
        )  # fmt: skip
        with sides(given.sides, spec) as loaded:
            found = compare(loaded, given.repeats, _turn)
    print(
        f"{given.prompts} prompts of {given.words} words, up to {given.max_tokens} tokens, {given.repeats} turns"
    )
    print(table(found))


def _turn(side: Side, number: int) -> Turn:
    turn = side.turn(number)
    print(f"{side.kind:>8} {number}: {turn.rate:,.0f} tokens/s in {turn.seconds:.1f} s", file=sys.stderr)
    return turn


if __name__ == "__main__":
    main()
