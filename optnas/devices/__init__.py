"""What a network costs on a real device: measured here, by a program of the user's, or predicted from few."""

from optnas.devices.prediction import LatencyPredictor, fit_latency, learn_latency
from optnas.devices.shell import command
from optnas.devices.timing import LATENCY, Latency, latency, measure_latency

__all__ = [
    "LATENCY",
    "Latency",
    "LatencyPredictor",
    "command",
    "fit_latency",
    "latency",
    "learn_latency",
    "measure_latency",
]
