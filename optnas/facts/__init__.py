"""What can be known about a model without training it."""

from optnas.facts.cost import as_inputs, count_flops, count_params, materialize, measure_latency
from optnas.facts.sketch import Sketch, fingerprint, sketch

__all__ = [
    "Sketch",
    "as_inputs",
    "count_flops",
    "count_params",
    "fingerprint",
    "materialize",
    "measure_latency",
    "sketch",
]
