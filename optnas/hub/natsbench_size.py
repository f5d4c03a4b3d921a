"""NATS-Bench size space: five widths of a residual network (Dong et al., TPAMI 44(7), 2021)."""

from __future__ import annotations

from optnas.trial import Trial, scope

LAYERS = 5
WIDTHS = range(8, 65, 8)


def widths(trial: Trial) -> tuple[int, ...]:
    """The output channels of the stem and of the four groups, one of 32,768 combinations."""
    return tuple(
        scope(trial, "layer", i).suggest_int("channels", WIDTHS[0], WIDTHS[-1], step=WIDTHS.step)
        for i in range(LAYERS)
    )
