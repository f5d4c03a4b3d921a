"""What can be known about a model without training it."""

from optnas.facts.cost import as_inputs, count_flops, count_params, materialize, measure_latency
from optnas.facts.fact import FLOPS, LATENCY, N_PARAMS, Fact, latency
from optnas.facts.layers import DEPTH, N_LAYERS, count_depth, count_layers
from optnas.facts.scores import (
    fisher,
    grad_norm,
    grasp,
    jacob_cov,
    log_ranks,
    naswot,
    snip,
    synflow,
    zen,
    zero_cost,
    zico,
)
from optnas.facts.sketch import Sketch, fingerprint, sketch
from optnas.facts.trace import untraced

__all__ = [
    "DEPTH",
    "FLOPS",
    "LATENCY",
    "N_LAYERS",
    "N_PARAMS",
    "Fact",
    "Sketch",
    "as_inputs",
    "count_depth",
    "count_flops",
    "count_layers",
    "count_params",
    "fingerprint",
    "fisher",
    "grad_norm",
    "grasp",
    "jacob_cov",
    "latency",
    "log_ranks",
    "materialize",
    "measure_latency",
    "naswot",
    "sketch",
    "snip",
    "synflow",
    "untraced",
    "zen",
    "zero_cost",
    "zico",
]
