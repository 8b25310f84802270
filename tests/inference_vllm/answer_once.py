"""A program that answers one request, says which processes answered it, and stays until it is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from contracts.engine_contract import ask
from inference_vllm.shared_engine import config
from tilth.transforms.inference.engines.vllm import VllmEngine


async def main(model: Path) -> None:
    """Prints the process ids in one line."""
    engine = VllmEngine(config(model))
    await engine.start()
    await engine.generate(ask("Hello"), 60)
    print(*(one.pid for one in engine._family), flush=True)  # noqa: T201
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
