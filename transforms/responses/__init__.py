"""Candidate replies: where models are asked, what they answered, and what is compared with what."""
