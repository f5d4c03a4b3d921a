"""The structure of a network as numbers: what is on the paths from its inputs to its outputs, and how many.

In the spirit of GRAF (Kadlecová et al., ICML 2024, arXiv:2408.04534), which counts operations, paths and
degrees in the cells of a few benchmarks. Here they are those of the data flow of any network.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import nn

from optnas.facts.cost import count_params
from optnas.facts.flow import FAMILIES, Flow, flow
from optnas.facts.inputs import Example

Array = NDArray[np.float64]

_CONVOLUTIONS = tuple(name for name in FAMILIES if name.startswith(("convolution", "depthwise")))
_WITH_WEIGHTS = FAMILIES[: FAMILIES.index("gather")]
COLUMNS = (*FAMILIES, "convolution", "weights", "shortcut")
"""What is counted: operations of a family, of any family of convolutions, of any that has weights but looks
nothing up; and chains of no operation at all."""

_ONE = {
    family: np.array(
        [
            float(column == family)
            or float(column == "convolution" and family in _CONVOLUTIONS)
            or float(column == "weights" and family in _WITH_WEIGHTS)
            for column in COLUMNS
        ]
    )
    for family in FAMILIES
}
_SHORTCUT = np.array([float(column == "shortcut") for column in COLUMNS])
_MOST_PATHS = 1e300


def structure(model: nn.Module, example: Example) -> dict[str, float]:
    """Numbers that describe how a network is put together, by name, from one pass on the meta device.

    A *gate* is a point that every path from an input to an output goes through: the ends of a cell, of a
    residual block, every layer of a chain. For each of `COLUMNS`:

    - `made` and `live`: how often it is called; and how often with an effect on an output;
    - `least` and `most`: how often, on the path that has fewest or most of it;
    - `without` and `only`: log(1 + n) of the n paths from one gate to the next that have none of it, or it in
      every step, summed over those gates that several chains enter;
    - `leaving` and `entering`: chains that have it and leave a gate where paths part, or enter one where they
      meet.

    Beside these `log paths`, `log params`, `log flops` and `log live flops`, and of the widths of operations
    with weights the mean, the largest and the least logarithm.

    Raises:
        Exception: what the model raises; one that looks at values cannot run on the meta device.

    Examples:
        >>> optnas.facts.structure(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), (2, 3, 32, 32))[
        ...     "most convolution"
        ... ]
        1.0
    """
    return described(flow(model, example), count_params(model))


def described(watched: Flow, n_params: int) -> dict[str, float]:
    """The same, of a model that was watched."""
    rows = _on_paths(watched) | {
        "made": sum((n * _ONE[family] for family, n in watched.made.items()), _none())
    }
    numbers = {
        f"{what} {column}": float(number)
        for what, row in rows.items()
        for column, number in zip(COLUMNS, row, strict=True)
    }
    widths = np.log2(watched.widths or [1])
    return numbers | {
        "log paths": math.log(1 + _paths(watched)[2]),
        "log params": math.log1p(n_params),
        "log flops": math.log1p(watched.flops),
        "log live flops": math.log1p(watched.live_flops),
        "log width, mean": float(widths.mean()),
        "log width, largest": float(widths.max()),
        "log width, least": float(widths.min()),
    }


def _none() -> Array:
    return np.zeros(len(COLUMNS))


def _paths(watched: Flow) -> tuple[list[int], list[int], int]:
    """How many paths lead to each point, and from each point on; and how many there are."""
    to = [int(point in watched.inputs) for point in range(len(watched.points))]
    on = [int(point in watched.outputs) for point in range(len(watched.points))]
    for edge in watched.edges:
        to[edge.end] += to[edge.start]
    for edge in reversed(watched.edges):
        on[edge.start] += on[edge.end]
    return to, on, sum(to[point] for point in watched.outputs)


def _on_paths(watched: Flow) -> dict[str, Array]:
    names = ("live", "least", "most", "without", "only", "leaving", "entering")
    rows = {name: _none() for name in names}
    n_points, edges = len(watched.points), watched.edges
    to, on, total = _paths(watched)
    is_gate = [to[point] * on[point] == total for point in range(n_points)]
    steps = [
        sum((_ONE[name] for name in edge.families), _none()) if edge.families else _SHORTCUT for edge in edges
    ]
    entering: list[list[int]] = [[] for _ in range(n_points)]
    n_leaving = [0] * n_points
    for i, edge in enumerate(edges):
        entering[edge.end].append(i)
        n_leaving[edge.start] += 1
    least, most, without, only = (np.zeros((n_points, len(COLUMNS))) for _ in range(4))
    for point, family in enumerate(watched.points):
        joined = _ONE[family] if family else _none()
        rows["live"] += joined
        if point in watched.inputs:
            without[point] = only[point] = 1
        if entering[point]:
            starts = [edges[i].start for i in entering[point]]
            step = np.array([steps[i] for i in entering[point]])
            rows["live"] += step.sum(axis=0)
            least[point] = (least[starts] + step).min(axis=0) + joined
            most[point] = (most[starts] + step).max(axis=0) + joined
            without[point] += (without[starts] * (step == 0)).sum(axis=0)
            only[point] += (only[starts] * (step > 0)).sum(axis=0)
            parts = [is_gate[start] and n_leaving[start] > 1 for start in starts]
            rows["leaving"] += (step[parts] > 0).sum(axis=0)
            if is_gate[point] and len(starts) > 1:
                rows["entering"] += (step > 0).sum(axis=0)
                rows["without"] += np.log1p(without[point])
                rows["only"] += np.log1p(only[point])
        for counts in (without, only):
            counts[point] = 1.0 if is_gate[point] else np.minimum(counts[point], _MOST_PATHS)
    if watched.outputs:
        rows["least"] = least[watched.outputs].min(axis=0)
        rows["most"] = most[watched.outputs].max(axis=0)
    return rows
