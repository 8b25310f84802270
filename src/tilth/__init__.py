"""Tilth turns conversation logs into alignment datasets that can be trusted."""

__version__ = "0.1.0"
