from optnas.space import nasbench201
from optnas.trial import replay


def test_cell_reads_as_edges_and_operations() -> None:
    params = {f"edge.{i}-{j}": op for (i, j), op in zip(nasbench201.EDGES, nasbench201.OPS * 2, strict=False)}
    assert nasbench201.cell(replay(params)) == (*nasbench201.OPS, "none")
