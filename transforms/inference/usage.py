"""What was asked, what it cost, and where to stop."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from tilth.transforms.inference.failures import CapReached


@dataclass(slots=True)
class Usage:
    """Counts of one run or one worker; they add up."""

    rows: int = 0  # requests that are finished, answered or not
    hits: int = 0  # answered from the cache, without a call
    shared: int = 0  # answered by the call of an equal request
    calls: int = 0  # attempts that reached for the engine
    retries: int = 0  # calls that repeated a failed one
    reasked: int = 0  # calls that asked again because an answer did not fit its schema
    failures: dict[str, int] = field(default_factory=dict)  # rows set aside, by reason
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: Usage, sign: int = 1) -> None:
        """Adds the counts of another; with `sign` -1 takes them off."""
        for one in fields(self):
            if one.name != "failures":
                setattr(self, one.name, getattr(self, one.name) + sign * getattr(other, one.name))
        for reason, count in other.failures.items():
            self.failures[reason] = self.failures.get(reason, 0) + sign * count

    def copy(self) -> Usage:
        """An equal one that does not change with this one."""
        return replace(self, failures=dict(self.failures))

    def minus(self, other: Usage) -> Usage:
        """What was counted here and not there."""
        left = self.copy()
        left.add(other, -1)
        return left


@dataclass(frozen=True, slots=True)
class Prices:
    """Money per million tokens, in any one currency."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1_000_000


@dataclass(frozen=True, slots=True)
class Caps:
    """Where a run stops, counted over all of its sittings; null for no cap."""

    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None

    def check(self, usage: Usage, prices: Prices) -> None:
        """Raises `CapReached` naming the cap, when the usage has reached one."""
        tokens = usage.prompt_tokens + usage.completion_tokens
        cost = prices.cost(usage.prompt_tokens, usage.completion_tokens)
        spent = {"max_calls": usage.calls, "max_tokens": tokens, "max_cost": cost}
        for name, amount in spent.items():
            cap = getattr(self, name)
            if cap is not None and amount >= cap:
                option = "--" + name.replace("_", "-")
                raise CapReached(
                    f"{option} is reached",
                    found=f"{amount:g} spent",
                    wanted=f"below {cap:g}",
                    do=f"finished rows are kept: raise {option} and run the same command to go on",
                )
