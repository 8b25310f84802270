"""Requests answered by `loopback.sensible` in this process: what the step `Ask` would bring back, without a server.

Answers are checked, and asked for again, by the code that checks those of real models.
"""

from scripted.answering import Answered, answered

__all__ = ["Answered", "answered"]
