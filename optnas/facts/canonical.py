"""A name for a labeled directed acyclic graph: equal names exactly when two graphs are isomorphic.

Colors are refined along the edges and against them until nothing splits. What stays tied splits further into
connected parts, each named on its own: parallel equal branches cost no search. Only a part that is tied
through and through is searched, by singling out each of its candidates in turn; a candidate whose first
path ends in a graph already seen is its image under a symmetry and is skipped (McKay & Piperno, Practical
graph isomorphism II, Journal of Symbolic Computation 60, 2014).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

Edges = list[tuple[bytes, int]]


def canonical_form(
    labels: Sequence[bytes], inputs: Sequence[Iterable[tuple[bytes, int]]], *, budget: int = 500_000
) -> str:
    """32 hexadecimal digits that name the graph up to isomorphism.

    Node `i` carries `labels[i]`; `inputs[i]` are the edges that end in it, each a label and the node where it
    starts, which comes before `i`. Two nodes may share several edges.

    A graph so tangled that its search would visit more than `budget` nodes (about a second) is named by its
    nodes in the order given. Such a name still belongs to one graph only, but to that order as well.
    """
    incoming: list[Edges] = []
    for node, edges in enumerate(inputs):
        bundles: dict[int, list[bytes]] = {}
        for label, source in edges:
            assert source < node, "the nodes are not in topological order"
            bundles.setdefault(source, []).append(label)
        incoming.append([(_digest(*sorted(bundle)), source) for source, bundle in bundles.items()])
    colors = {node: _digest(label) for node, label in enumerate(labels)}
    try:
        return _Search(incoming, budget).name(colors).hex()
    except (_ExhaustedError, RecursionError):
        rows = [
            _digest(colors[i], *(part for b, u in incoming[i] for part in (b, b"%d" % u))) for i in colors
        ]
        return _digest(b"in the order given", *rows).hex()


class _ExhaustedError(Exception):
    pass


class _Search:
    def __init__(self, incoming: list[Edges], budget: int) -> None:
        self.incoming = incoming
        self.outgoing: list[Edges] = [[] for _ in incoming]
        for node, edges in enumerate(incoming):
            for bundle, source in edges:
                self.outgoing[source].append((bundle, node))
        self.budget = budget

    def name(self, colors: dict[int, bytes], *, first_path: bool = False) -> bytes:
        """The name of the part of the graph between the nodes in `colors`, which are in topological order.

        On the `first_path` a search takes its first candidate only: equal names are then still those of
        isomorphic graphs, but isomorphic graphs may get different names.
        """
        colors = self._refine(colors)
        parts = self._tied_parts(colors)
        if len(parts) == 1 and len(parts[0]) == len(colors):
            return self._single_out(colors, first_path)
        names = sorted(self.name({v: colors[v] for v in part}, first_path=first_path) for part in parts)
        return _digest(b"parts", *sorted(colors.values()), *names)

    def _refine(self, colors: dict[int, bytes]) -> dict[int, bytes]:
        """Split colors until equal ones have equal neighborhoods, then add the neighborhood to the color."""
        colors = dict(colors)
        order = list(colors)
        n_colors = len(set(colors.values()))
        idle, forward = 0, True
        while idle < 2 and n_colors < len(order):
            edges = self.incoming if forward else self.outgoing
            for node in order if forward else reversed(order):
                colors[node] = _around(colors, node, edges[node])
            self._spend(len(order))
            before, n_colors = n_colors, len(set(colors.values()))
            idle = idle + 1 if n_colors == before else 0
            forward = not forward
        self._spend(len(order))
        # The colors say who is equal to whom; this round writes down which colors meet.
        return {node: _around(colors, node, self.incoming[node]) for node in order}

    def _tied_parts(self, colors: dict[int, bytes]) -> list[list[int]]:
        """Connected parts of the nodes whose color is not unique.

        An edge says nothing that colors do not, and so connects nothing, when it joins every node of one
        color to every node of another in the same way.
        """
        size = Counter(colors.values())
        between: dict[tuple[bytes, bytes], list[tuple[bytes, int, int]]] = defaultdict(list)
        tied = [node for node, color in colors.items() if size[color] > 1]
        for node in tied:
            for bundle, source in self.incoming[node]:
                if source in colors and size[colors[source]] > 1:
                    between[colors[source], colors[node]].append((bundle, source, node))
        neighbors: dict[int, list[int]] = {node: [] for node in tied}
        for (start, end), edges in between.items():
            if len(edges) < size[start] * size[end] or len({bundle for bundle, _, _ in edges}) > 1:
                for _, source, node in edges:
                    neighbors[source].append(node)
                    neighbors[node].append(source)
        return _connected(neighbors)

    def _single_out(self, colors: dict[int, bytes], first_path: bool) -> bytes:
        size = Counter(colors.values())
        target = min(size, key=lambda color: (size[color], color))
        candidates = [node for node, color in colors.items() if color == target]
        seen: set[bytes] = set()
        names = []
        for node in candidates:
            marked = {**colors, node: _digest(b"singled out", target)}
            name = self.name(marked, first_path=True)
            if first_path:
                return _digest(b"search", name)
            if name not in seen:
                seen.add(name)
                names.append(self.name(marked))
        return _digest(b"search", min(names))

    def _spend(self, visits: int) -> None:
        self.budget -= visits
        if self.budget < 0:
            raise _ExhaustedError


def _around(colors: dict[int, bytes], node: int, edges: Edges) -> bytes:
    around = sorted([bundle + colors[other] for bundle, other in edges if other in colors])
    # Every part is 16 bytes long, so nothing needs to separate them.
    return blake2b(colors[node] + b"".join(around), digest_size=16).digest() if around else colors[node]


def _connected(neighbors: dict[int, list[int]]) -> list[list[int]]:
    parts, seen = [], set()
    for start in neighbors:
        if start in seen:
            continue
        seen.add(start)
        part = [start]
        for node in part:
            for other in neighbors[node]:
                if other not in seen:
                    seen.add(other)
                    part.append(other)
        parts.append(sorted(part))
    return parts


def _digest(*parts: bytes) -> bytes:
    joined = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return blake2b(joined, digest_size=16).digest()
