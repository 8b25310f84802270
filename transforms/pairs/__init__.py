"""Pairing: which reply is better, by what people said and did, and nothing else."""

from tilth.transforms.pairs.candidates import Ruled, replies
from tilth.transforms.pairs.policy import PairPolicy
from tilth.transforms.pairs.recovery import recovery_pairs
from tilth.transforms.pairs.sentences import sentences
from tilth.transforms.pairs.settle import Settled, bucket, settle
from tilth.transforms.pairs.siblings import sibling_pairs
from tilth.transforms.pairs.spread import spread
from tilth.transforms.pairs.unpaired import unpaired_labels

__all__ = [
    "PairPolicy",
    "Ruled",
    "Settled",
    "bucket",
    "recovery_pairs",
    "replies",
    "sentences",
    "settle",
    "sibling_pairs",
    "spread",
    "unpaired_labels",
]
