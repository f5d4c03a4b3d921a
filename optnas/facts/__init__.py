"""What can be known about a model without training it."""

from optnas.facts.cost import as_inputs, count_flops, count_params, materialize, measure_latency
from optnas.facts.difference import draw_difference
from optnas.facts.draw import draw
from optnas.facts.draw_cell import draw_cell
from optnas.facts.sketch import Sketch, fingerprint, sketch

__all__ = [
    "Sketch",
    "as_inputs",
    "count_flops",
    "count_params",
    "draw",
    "draw_cell",
    "draw_difference",
    "fingerprint",
    "materialize",
    "measure_latency",
    "sketch",
]
