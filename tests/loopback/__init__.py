"""A loopback server that speaks OpenAI's chat API, with settable latency, slots, faults and death.

`with serve(slots=64, latency_s=0.3) as server:` starts it as its own process; `python -m loopback '{"slots": 64}'`
prints its port as JSON. What it answers is a function of the request alone: see `expected_answer`.
"""

from loopback.answers import expected_answer, prompt_hash, request_hash
from loopback.behaviour import Behaviour
from loopback.control import Event, Loopback, serve

__all__ = ["Behaviour", "Event", "Loopback", "expected_answer", "prompt_hash", "request_hash", "serve"]
