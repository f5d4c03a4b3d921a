"""From a record of operations to the graph that a fingerprint names.

What computes nothing goes: identities, exact zeros, and whatever no output depends on. Nothing is rewritten
by algebra, with one exception: a sum that only feeds another sum joins it, so that a sum of several terms is
one unordered sum however it was bracketed. (The cells of NAS-Bench-201 are counted that way.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import is_not
from typing import TypeAlias

from optnas.facts.trace import Geometry, Node, Read

Graph: TypeAlias = tuple[list[bytes], list[list[tuple[bytes, int]]]]

# Zero in, zero out.
# fmt: off
_KEEPS_ZERO = frozenset((
    "clone", "_to_copy", "relu", "leaky_relu", "_prelu_kernel", "elu", "celu", "gelu", "silu", "mish",
    "tanh", "hardswish", "neg", "abs", "sign", "sqrt", "square", "erf", "sin", "sum", "mean", "div",
    "native_dropout", "avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d",
    "adaptive_max_pool3d", "max", "amax", "index_select", "gather", "upsample_nearest1d",
    "upsample_nearest2d", "upsample_bilinear2d", "pixel_shuffle",
))
# fmt: on
_PRODUCTS = {"mul", "mm", "bmm", "mv", "dot"}  # zero if any operand is
_PRODUCTS_PLUS = {
    "addmm": "0",
    "baddbmm": "0",
    "addmv": "0",
    "convolution": "2",
    "linear": "2",
}  # ... plus this


def reduce(nodes: list[Node], outputs: list[Read], note: str, held: Sequence[tuple[str, Read]] = ()) -> Graph:
    """The labels and the incoming edges of the graph that computes `outputs`; `note` labels its end.

    What is `held`, by name, counts as well: a tensor that something beside the model's call may read. One of
    the construction that the outputs depend on already says nothing more.
    """
    nodes = [*nodes, Node("output", (("note", note),), outputs, [], lasting=True)]
    end = len(nodes) - 1
    nodes += [Node("held", (("name", name),), [read], [], lasting=True) for name, read in held]
    nodes = _without_identities(nodes)
    live = _above(nodes, [end])
    for i in range(end + 1, len(nodes)):
        read = nodes[i].reads[0]
        if read.role == "hook" or read.source not in live or not nodes[read.source].lasting:
            live |= {i} | _above(nodes, [i])
    order = sorted(live)
    order = _join_sums(nodes, order)
    index = {node: i for i, node in enumerate(order)}
    labels = [_label(nodes[i]) for i in order]
    edges = [[(_edge(nodes, read), index[read.source]) for read in nodes[i].reads] for i in order]
    return labels, edges


def _above(nodes: list[Node], ends: Iterable[int]) -> set[int]:
    """The nodes that `ends` depend on, and these themselves."""
    live, waiting = set(ends), list(ends)
    while waiting:
        sources = {read.source for read in nodes[waiting.pop()].reads} - live
        live |= sources
        waiting += sources
    return live


def _without_identities(nodes: list[Node]) -> list[Node]:
    """Every read of a copy becomes a read of the original; every read of a zero becomes an argument."""
    zeros: set[int] = set()
    copies: dict[int, Read] = {}  # a node whose whole output equals what this reads

    def resolve(read: Read) -> Read:
        original = copies.get(read.source)
        if original is None or read.port:
            return read
        whole = nodes[read.source].outputs[0]
        gradient = read.gradient and original.gradient
        if read.geometry == whole:
            return original._replace(role=read.role, gradient=gradient)
        if whole == original.geometry == nodes[original.source].outputs[original.port]:
            return read._replace(source=original.source, port=original.port, gradient=gradient)
        return read  # a view of a copy that lies differently in memory

    result = []
    carriers: set[int] = set()  # nodes that still pass a gradient on, now that zeros are gone
    for i, node in enumerate(nodes):
        zero_roles = {read.role for read in node.reads if read.source in zeros and not read.port}
        reads = [resolve(read) for read in node.reads if read.role not in zero_roles]
        reads = [r if r.source in carriers or not r.gradient else r._replace(gradient=False) for r in reads]
        if node.lasting or not node.reads or any(read.gradient for read in reads):
            carriers.add(i)
        read_zeros = [(r.role, ("zero", r.geometry[:2])) for r in node.reads if r.role in zero_roles]
        if len(reads) < len(node.reads) or any(map(is_not, reads, node.reads)):  # of most nodes nothing
            node = replace(node, reads=reads, args=(*node.args, *read_zeros))
        result.append(node)
        if node.lasting:
            continue
        if _is_zero(node, zero_roles):
            zeros.add(i)
        elif (original := _original(node, zero_roles)) is not None:
            copies[i] = original
    return result


def _is_zero(node: Node, zero_roles: set[str]) -> bool:
    op = node.op.partition(".")[0]
    plain = {role: value for role, value in node.args if role not in zero_roles}
    if node.op == "fill":  # not with a tensor
        return bool(plain["0"] == 0)
    if op == "mul" and _is_number(plain.get("1"), 0):
        return True
    if op in _PRODUCTS:
        return bool(zero_roles)
    if op in _PRODUCTS_PLUS:
        added = _PRODUCTS_PLUS[op]
        nothing_added = added not in {read.role for read in node.reads}
        return nothing_added and bool(zero_roles - {added})
    if not zero_roles:
        return False
    if op in ("add", "sub", "cat", "stack", "write"):
        return not node.reads and (op not in ("add", "sub") or plain.get("1", 0) == 0)
    if op == "constant_pad_nd":
        return "0" in zero_roles and plain.get("2", 0) == 0
    if op == "hardtanh":
        return "0" in zero_roles and plain.get("1", -1) <= 0 <= plain.get("2", 1)
    return op == "copy" or (op in _KEEPS_ZERO and "0" in zero_roles)


def _original(node: Node, zero_roles: set[str]) -> Read | None:
    """The one read that the node's output equals, if there is one."""
    op = node.op.partition(".")[0]
    plain = dict(node.args)
    reads = {read.role: read for read in node.reads}
    found = None
    if op in ("clone", "_to_copy", "alias"):
        found = reads.get("0")
    elif op == "copy":
        found = reads.get("1")
    elif op in ("add", "sub") and ("1" in zero_roles or _is_number(plain.get("1"), 0)):
        found = reads.get("0")
    elif op == "add" and "0" in zero_roles and "alpha" not in plain:
        found = reads.get("1")
    elif op in ("mul", "div") and _is_number(plain.get("1"), 1) and "rounding_mode" not in plain:
        found = reads.get("0")
    # Broadcasting and type promotion are no identities.
    return found if found is not None and found.geometry[:2] == node.outputs[0][:2] else None


def _join_sums(nodes: list[Node], order: list[int]) -> list[int]:
    uses = Counter(read.source for i in order for read in nodes[i].reads)
    joined: set[int] = set()
    for i in order:
        node = nodes[i]
        op = node.op.partition(".")[0]
        if len(node.reads) != 2 or op not in ("add", "mul") or any(role == "alpha" for role, _ in node.args):
            continue
        if op == "mul":
            nodes[i] = replace(node, reads=[read._replace(role="*") for read in node.reads])
            continue
        terms = []
        for read in node.reads:
            inner = nodes[read.source]
            if (
                inner.op == "sum"
                and uses[read.source] == 1
                and read.geometry == inner.outputs[0]
                and read.geometry[:2] == node.outputs[0][:2]
                and read.gradient == any(term.gradient for term in inner.reads)
            ):
                joined.add(read.source)
                terms += inner.reads
            else:
                terms.append(read._replace(role="+"))
        nodes[i] = replace(node, op="sum", reads=terms)
    return [i for i in order if i not in joined]


def _label(node: Node) -> bytes:
    made = [(dtype, size) for dtype, size, *_ in node.outputs]
    return repr((node.op, node.args, made, node.held_as)).encode()


def _edge(nodes: list[Node], read: Read) -> bytes:
    whole = nodes[read.source].outputs[read.port]
    view: tuple[Geometry, ...] = () if read.geometry == whole else (read.geometry, whole)
    return repr((read.role, read.port, view, read.gradient)).encode()


def _is_number(value: object, number: int) -> bool:
    return isinstance(value, bool | int | float) and value == number
