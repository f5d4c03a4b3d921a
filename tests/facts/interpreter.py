"""Computes what a record of operations, or the graph made of it, describes: with real numbers, by torch.

Nothing here knows how records and graphs are made. Only operations with one output are understood.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from optnas.facts.trace import Node

Read = tuple[str, int, Any, Any]  # argument, node, how the argument reads it, how all of it lies in memory
Step = tuple[
    str, Sequence[tuple[str, Any]], Any, Sequence[Read]
]  # operation, arguments, (dtype, size), reads


def of_record(nodes: Iterable[Node]) -> list[Step]:
    nodes = list(nodes)
    return [
        (
            node.op,
            node.args,
            node.outputs[0][:2],
            [(r.role, r.source, r.geometry, nodes[r.source].outputs[r.port]) for r in node.reads],
        )
        for node in nodes
    ]


def of_graph(labels: Sequence[bytes], inputs: Sequence[Sequence[tuple[bytes, int]]]) -> list[Step]:
    steps = []
    for label, edges in zip(labels, inputs, strict=True):
        op, args, made, _ = eval(label, {"torch": torch})
        reads = []
        for edge, source in edges:
            role, port, view, _ = eval(edge, {"torch": torch})
            assert port == 0
            reads.append((role, source, *(view or (None, None))))
        steps.append((op, args, made[0] if made else None, reads))
    return steps


def compute(steps: Sequence[Step], *inputs: Tensor) -> Tensor:
    """The value of the last step; what it does not need is not computed."""
    needed = {len(steps) - 1}
    for i in reversed(range(len(steps))):
        if i in needed:
            needed.update(source for _, source, _, _ in steps[i][3])
    values: dict[int, Tensor] = {}
    for i in sorted(needed):
        op, args, made, reads = steps[i]
        tensors = [(role, _view(values[source], view, whole)) for role, source, view, whole in reads]
        values[i] = _step(op, dict(args), made, tensors, inputs)
    return values[len(steps) - 1]


def _step(
    op: str, args: dict[str, Any], made: Any, reads: Sequence[tuple[str, Tensor]], inputs: Sequence[Tensor]
) -> Tensor:
    if op == "input":
        return inputs[int(args["0"])]
    if op == "fill":
        return torch.full(made[1], args["0"], dtype=made[0])
    given = {role: _zeros(value) if _is_zero(value) else value for role, value in args.items()} | dict(reads)
    if op == "output":
        return given["0"]
    if op.startswith("copy"):  # what the target held is gone, and not read
        return given["1"].expand(made[1]).to(made[0])
    if op == "sum" and all(role == "+" for role, _ in reads):
        return torch.stack([tensor for _, tensor in reads]).sum(0)
    if op == "write":
        tensors = dict(reads)
        result = tensors["base"].clone() if "base" in tensors else _zeros(args["base"])
        part = tensors["part"] if "part" in tensors else _zeros(args["part"])
        _, size, stride, offset, *_ = args["geometry"]
        result.as_strided(size, stride, offset).copy_(part)
        return result
    name, _, overload = op.partition(".")
    if all(role == "*" for role, _ in reads) and reads:
        return reads[0][1] * reads[1][1]
    function = getattr(getattr(torch.ops.aten, name), overload or "default")
    top = {role.split(".")[0] for role in given}
    positional = [_argument(given, role) for role in sorted((r for r in top if r.isdigit()), key=int)]
    named = {role: given[role] for role in top if not role.isdigit()}
    result: Any = function(*positional, **named)
    return result[0] if isinstance(result, tuple) else result


def _argument(given: dict[str, Any], role: str) -> Any:
    items = [key for key in given if key.startswith(f"{role}.")]
    if items:  # a list; under its own name stands its length
        return [given[f"{role}.{i}"] for i in range(len(items))]
    return given[role]


def _view(value: Tensor, view: Any, whole: Any) -> Tensor:
    if view is None or view == whole:
        return value
    _, size, stride, *_ = whole
    laid_out = torch.empty_strided(size, stride, dtype=value.dtype).copy_(value)
    _, size, stride, offset, *_ = view
    return laid_out.as_strided(size, stride, offset)


def _is_zero(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and value[0] == "zero"


def _zeros(value: Any) -> Tensor:
    _, (dtype, size) = value
    return torch.zeros(size, dtype=dtype)
