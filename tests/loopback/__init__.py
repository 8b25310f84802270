"""A loopback server that speaks OpenAI's chat API, with settable latency, slots, faults and death.

`with serve(slots=64, latency_s=0.3) as server:` starts it as its own process; `python -m loopback '{"slots": 64}'`
prints its port as JSON. What it answers is a function of the request alone: see `expected_answer`. With
`script="sensible"` it answers what Tilth's own prompts ask with answers that make sense: see `loopback.sensible`.
"""

from loopback.answers import expected_answer, prompt_hash, request_hash
from loopback.behaviour import Behaviour
from loopback.control import Event, Loopback, serve
from loopback.sensible import Habits, Question, sensible_answer

__all__ = [
    "Behaviour",
    "Event",
    "Habits",
    "Loopback",
    "Question",
    "expected_answer",
    "prompt_hash",
    "request_hash",
    "sensible_answer",
    "serve",
]
