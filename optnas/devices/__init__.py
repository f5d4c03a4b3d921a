"""What a network costs on a real device: measured here, by a program of the user's, or predicted from few."""

from optnas.devices.latency import LATENCY, Latency, latency, measure_latency
from optnas.devices.prediction import LatencyPredictor, fit_latency, learn_latency

__all__ = [
    "LATENCY",
    "Latency",
    "LatencyPredictor",
    "fit_latency",
    "latency",
    "learn_latency",
    "measure_latency",
]
