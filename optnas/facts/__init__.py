"""What can be known about a model without training it."""

from optnas.facts.cost import as_inputs, count_flops, count_params, materialize, measure_latency
from optnas.facts.fact import FLOPS, LATENCY, N_PARAMS, Fact, latency
from optnas.facts.sketch import Sketch, fingerprint, sketch
from optnas.facts.trace import untraced

__all__ = [
    "FLOPS",
    "LATENCY",
    "N_PARAMS",
    "Fact",
    "Sketch",
    "as_inputs",
    "count_flops",
    "count_params",
    "fingerprint",
    "latency",
    "materialize",
    "measure_latency",
    "sketch",
    "untraced",
]
