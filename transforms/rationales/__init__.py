"""Why one reply is better than another."""

from tilth.transforms.rationales.complaints import user_complaints

__all__ = ["user_complaints"]
