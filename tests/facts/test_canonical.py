import itertools
import random
from collections import Counter, defaultdict

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optnas.facts.canonical import canonical_form

OPS = ("zero", "skip", "conv1", "conv3", "pool")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def form(labels, edges, **kwargs):
    """`edges`: (source, target, label); nodes are put into a topological order first."""
    graph = nx.MultiDiGraph()
    graph.add_nodes_from(range(len(labels)))
    graph.add_edges_from((u, v) for u, v, _ in edges)
    order = list(nx.topological_sort(graph))
    index = {node: i for i, node in enumerate(order)}
    inputs = [[] for _ in order]
    for u, v, label in edges:
        inputs[index[v]].append((label, index[u]))
    return canonical_form([labels[v] for v in order], inputs, **kwargs)


def isomorphic(a, b):
    """The independent oracle: networkx on labeled digraphs, parallel edges gathered to one label."""
    graphs = []
    for labels, edges in (a, b):
        graph = nx.DiGraph()
        for node, label in enumerate(labels):
            graph.add_node(node, label=label)
        bundles = defaultdict(list)
        for u, v, label in edges:
            bundles[u, v].append(label)
        for (u, v), bundle in bundles.items():
            graph.add_edge(u, v, label=sorted(bundle))
        graphs.append(graph)

    def same(x, y):
        return x["label"] == y["label"]

    return nx.is_isomorphic(*graphs, node_match=same, edge_match=same)


def relabel(graph, seed):
    labels, edges = graph
    names = list(range(len(labels)))
    random.Random(seed).shuffle(names)
    renamed = [b""] * len(labels)
    for node, name in enumerate(names):
        renamed[name] = labels[node]
    edges = [(names[u], names[v], label) for u, v, label in edges]
    random.Random(seed + 1).shuffle(edges)
    return renamed, edges


@st.composite
def graphs(draw):
    n = draw(st.integers(2, 10))
    labels = draw(st.lists(st.sampled_from([b"a", b"b"]), min_size=n, max_size=n))
    pairs = list(itertools.combinations(range(n), 2))
    edge = st.tuples(st.sampled_from(pairs), st.sampled_from([b"x", b"y"]))
    edges = draw(st.lists(edge, max_size=20))
    return labels, [(u, v, label) for (u, v), label in edges]


@given(graphs(), st.integers(0, 1000))
@settings(max_examples=300, deadline=None)
def test_order_of_nodes_and_edges_does_not_matter(graph, seed):
    assert form(*graph) == form(*relabel(graph, seed))


@given(graphs(), st.data())
@settings(max_examples=300, deadline=None)
def test_one_change_shows_exactly_when_networkx_sees_it(graph, data):
    labels, edges = list(graph[0]), list(graph[1])
    change = data.draw(st.sampled_from(["label", "add", "remove", "redirect"]))
    if change == "label":
        labels[data.draw(st.integers(0, len(labels) - 1))] = data.draw(st.sampled_from([b"a", b"b", b"c"]))
    elif change == "add" and len(labels) > 1:
        u, v = sorted(
            data.draw(st.lists(st.integers(0, len(labels) - 1), min_size=2, max_size=2, unique=True))
        )
        edges.append((u, v, b"x"))
    elif edges:
        u, v, label = edges.pop(data.draw(st.integers(0, len(edges) - 1)))
        if change == "redirect":
            edges.append((data.draw(st.integers(0, v - 1)), v, label))
    assert (form(*graph) == form(labels, edges)) == isomorphic(graph, (labels, edges))


def circulant(n, steps, layers=2):
    """Layers of n equal nodes, node i feeding i + s for s in steps: colors alone never split them."""
    edges = [
        (layer * n + i, (layer + 1) * n + (i + s) % n, b"")
        for layer in range(layers - 1)
        for i in range(n)
        for s in steps
    ]
    return [b"node"] * (n * layers), edges


def test_graphs_that_colors_cannot_tell_apart():
    hexagon, two_triangles = circulant(6, (0, 1)), circulant(3, (0, 1))
    labels = two_triangles[0] * 2
    shift = {**{i: i for i in range(3)}, **{i: i + 3 for i in range(3, 6)}}
    edges = [(shift[u] + d, shift[v] + d, label) for u, v, label in two_triangles[1] for d in (0, 3)]
    assert not isomorphic(hexagon, (labels, edges))
    assert form(*hexagon) != form(labels, edges)
    assert form(labels, edges) == form(*relabel((labels, edges), 3))


def test_all_pairs_of_tied_graphs_agree_with_networkx():
    many = [
        circulant(n, steps, 3) for n in (7, 8) for steps in itertools.combinations(range(n), 3) if 0 in steps
    ]
    for a, b in itertools.combinations(many, 2):
        assert (form(*a) == form(*relabel(b, 5))) == isomorphic(a, b)


def test_parallel_edges_count():
    once, twice = ([b"a", b"b"], [(0, 1, b"+")]), ([b"a", b"b"], [(0, 1, b"+"), (0, 1, b"+")])
    assert form(*once) != form(*twice)


def test_many_equal_branches_take_few_visits():
    labels, edges, last = [b"in"], [], 0
    for _ in range(20):
        ends = []
        for _ in range(8):
            for step in range(4):
                labels.append(b"op")
                edges.append((len(labels) - 2 if step else last, len(labels) - 1, b""))
            ends.append(len(labels) - 1)
        labels.append(b"sum")
        last = len(labels) - 1
        edges += [(end, last, b"+") for end in ends]
    assert form(labels, edges, budget=10_000) == form(*relabel((labels, edges), 1))


def test_a_symmetric_tangle_is_searched_within_a_fifth_of_the_budget():
    graph = circulant(24, (0, 1, 5), layers=6)
    assert form(*graph, budget=100_000) == form(*relabel(graph, 2))


def test_beyond_the_budget_different_graphs_stay_different():
    a, b = circulant(7, (0, 1, 2), 3), circulant(7, (0, 1, 3), 3)
    assert not isomorphic(a, b)
    assert form(*a, budget=10) == form(*a, budget=10)
    assert len({form(*a, budget=10), form(*b, budget=10), form(*a), form(*b)}) == 4


def nasbench201(cell):
    """Symbolically: zeros and skips dissolve, every op is a node of its own, a sum that only feeds another
    sum joins it."""
    labels, sources, value = [b"in"], [[]], {0: 0}
    for node in (1, 2, 3):
        terms = []
        for (start, end), op in zip(EDGES, cell, strict=True):
            if end == node and op != "zero" and value[start] is not None:
                if op != "skip":
                    labels.append(op.encode())
                    sources.append([value[start]])
                terms.append(value[start] if op == "skip" else len(labels) - 1)
        if len(terms) > 1:
            labels.append(b"sum")
            sources.append(terms)
            terms = [len(labels) - 1]
        value[node] = terms[0] if terms else None
    if value[3] is None:
        return [b"zero"], []
    live = {value[3]}
    for node in reversed(range(len(labels))):
        live |= set(sources[node]) if node in live else set()
    uses = Counter(u for v in live for u in sources[v])
    for v in sorted(live):
        for u in sources[v][:]:
            if labels[u] == labels[v] == b"sum" and uses[u] == 1:
                sources[v].remove(u)
                sources[v] += sources[u]
                live.remove(u)
    index = {node: i for i, node in enumerate(sorted(live))}
    labels[value[3]] += b" out"
    return [labels[v] for v in sorted(live)], [(index[u], index[v], b"") for v in live for u in sources[v]]


@pytest.fixture(scope="module")
def cells():
    return {cell: nasbench201(cell) for cell in itertools.product(OPS, repeat=6)}


def test_all_nasbench201_cells_form_5425_classes(cells):
    classes = defaultdict(list)
    for graph in cells.values():
        classes[form(*graph)].append(graph)
    assert len(classes) == 5425
    # The oracle: inside a class all are isomorphic, and between classes with equal counts of labels and
    # edges, which is all that an isomorphism could join, none are.
    coarse = defaultdict(list)
    for members in classes.values():
        labels, edges = members[0]
        degrees = sorted(
            (labels[v], sum(e[0] == v for e in edges), sum(e[1] == v for e in edges))
            for v in range(len(labels))
        )
        arcs = sorted((labels[u], labels[v]) for u, v, _ in edges)
        coarse[str((degrees, arcs))].append(members[0])
        # Equal lists of labels and edges are isomorphic without asking.
        different = {str(member): member for member in members[1:]}
        assert all(isomorphic(members[0], other) for other in different.values())
    for group in coarse.values():
        assert not any(isomorphic(a, b) for a, b in itertools.combinations(group, 2))


def test_published_strings_of_nasbench201_number_6466():
    """The count in the literature: strings in which a dead zero term still stands."""

    def string(cell):
        value = ["0"]
        for node in (1, 2, 3):
            terms = []
            for (start, end), op in zip(EDGES, cell, strict=True):
                if end == node:
                    dead = op == "zero" or value[start] == "#"
                    terms.append("#" if dead else value[start] if op == "skip" else f"({value[start]})@{op}")
            value.append("+".join(sorted(terms)))
        return value[-1]

    assert len({string(cell) for cell in itertools.product(OPS, repeat=6)}) == 6466
