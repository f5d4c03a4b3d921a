"""What a network costs on a real device: measured here, by a program of the user's, or predicted from few."""

from optnas.devices.latency import LATENCY, Latency, latency, measure_latency

__all__ = ["LATENCY", "Latency", "latency", "measure_latency"]
