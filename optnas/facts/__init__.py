"""What can be known about a model without training it."""

from optnas.facts.cost import (
    count_flops,
    count_params,
    flops_by_operator,
    materialize,
)
from optnas.facts.fact import FLOPS, N_PARAMS, Fact, Measured
from optnas.facts.inputs import Arguments, as_inputs
from optnas.facts.layers import DEPTH, N_LAYERS, count_depth, count_layers
from optnas.facts.memory import (
    Memory,
    activation_memory,
    bytes_by_dtype,
    count_bytes,
    estimate_memory,
    size,
    training_memory,
)
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
from optnas.facts.structure import structure
from optnas.facts.trace import untraced

__all__ = [
    "DEPTH",
    "FLOPS",
    "N_LAYERS",
    "N_PARAMS",
    "Arguments",
    "Fact",
    "Measured",
    "Memory",
    "Sketch",
    "activation_memory",
    "as_inputs",
    "bytes_by_dtype",
    "count_bytes",
    "count_depth",
    "count_flops",
    "count_layers",
    "count_params",
    "estimate_memory",
    "fingerprint",
    "fisher",
    "flops_by_operator",
    "grad_norm",
    "grasp",
    "jacob_cov",
    "log_ranks",
    "materialize",
    "naswot",
    "size",
    "sketch",
    "snip",
    "structure",
    "synflow",
    "training_memory",
    "untraced",
    "zen",
    "zero_cost",
    "zico",
]
