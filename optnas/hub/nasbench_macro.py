"""NAS-Bench-Macro: eight layers, each skipped or an inverted bottleneck (Su et al., CVPR 2021)."""

from __future__ import annotations

from optnas.trial import Trial, scope

LAYERS = 8
BLOCKS = ("identity", "mb3_k3", "mb6_k5")


def blocks(trial: Trial) -> tuple[str, ...]:
    """The block of each layer, one of 6,561 networks. `mb6_k5`: expansion 6, kernel 5."""
    return tuple(scope(trial, "layer", i).suggest_categorical("block", BLOCKS) for i in range(LAYERS))
