"""What can be built: nodes, blocks, published spaces, and ways to walk them."""

from optnas.space.explore import enumerate_params, neighbors, sample
from optnas.space.nodes import Chain, Choice, Node, Repeat, count, questions

__all__ = [
    "Chain",
    "Choice",
    "Node",
    "Repeat",
    "count",
    "enumerate_params",
    "neighbors",
    "questions",
    "sample",
]
