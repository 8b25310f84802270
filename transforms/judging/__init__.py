"""Judging: what judges are asked, and how their answers become verdicts that order, ties and noise cannot fool."""
