"""Candidate replies."""
