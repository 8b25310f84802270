"""Asking models: requests, engines, what was used and where to stop. Workers and caches are in modules of their own.

Light: what needs SQLAlchemy (`cache`, `worker`, `ask`), Jinja2 (`prompts`, `sampling`, `render`), tokenizers (`tokens`)
or a client (`engines.openai`, `engines.vllm`) is imported from there.
"""

from tilth.transforms.inference.engines import ENGINES, Engine, EngineConfig, Load, connect, identify
from tilth.transforms.inference.failures import CallFailed, CapReached, EngineDied, EngineFailed
from tilth.transforms.inference.requests import COMPLETIONS, REQUESTS, Completion, Request, Sampling
from tilth.transforms.inference.usage import Caps, Prices, Usage

__all__ = [
    "COMPLETIONS",
    "ENGINES",
    "REQUESTS",
    "CallFailed",
    "CapReached",
    "Caps",
    "Completion",
    "Engine",
    "EngineConfig",
    "EngineDied",
    "EngineFailed",
    "Load",
    "Prices",
    "Request",
    "Sampling",
    "Usage",
    "connect",
    "identify",
]
