"""What can be built: nodes, blocks, published spaces, and ways to walk them."""

from optnas.space.explore import count, enumerate_params, neighbors, sample
from optnas.space.nodes import Chain, Choice, Repeat

__all__ = ["Chain", "Choice", "Repeat", "count", "enumerate_params", "neighbors", "sample"]
