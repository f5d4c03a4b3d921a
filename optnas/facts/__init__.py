"""What can be known about a model without training it."""

from optnas.facts.cost import as_inputs, count_flops, count_params, materialize, measure_latency

__all__ = ["as_inputs", "count_flops", "count_params", "materialize", "measure_latency"]
