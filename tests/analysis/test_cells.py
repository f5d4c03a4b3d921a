from optnas.analysis.cells import cells
from optnas.hub.nasbench201 import EDGES, cell
from optnas.space.explore import sample
from optnas.trial import replay, scope


def test_the_cell_of_a_published_space_is_found_wherever_it_is_asked() -> None:
    params = sample(cell, 0)
    edges = dict(zip(EDGES, cell(replay(params)), strict=True))
    assert cells(params) == {"edge": edges}
    scoped = sample(lambda trial: cell(scope(trial, "stage", 1)), 0)
    assert cells({**params, **scoped, "lr": 0.1}) == {"edge": edges, "stage.1.edge": edges}


def test_other_decisions_are_no_edges() -> None:
    assert cells({"depth": 3, "block.0.op": "conv", "range.3-1": "conv", "range.0-1": 5, "0-1x": "a"}) == {}
    assert cells({"0-1": "skip"}) == {"cell": {(0, 1): "skip"}}
