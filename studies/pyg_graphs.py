"""Search a graph network that tells what hangs on a random graph: a house or a ring (PyTorch Geometric).

    optnas run studies/pyg_graphs.py

Needs `pip install 'optnas[pyg]'`. The graphs are those of BA-2Motifs (Luo et al., arXiv:2011.04573), made
here by the generators of PyTorch Geometric: 20 nodes, each tied to an earlier one by preference, and five
more that are a house or a ring. A house has an edge more, so up to four random edges are added to each graph,
which hide that. Of a node its number of edges is known, where all are alike in that paper. The baseline is
three graph convolutions of 20 channels, as there.
"""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric import seed_everything
from torch_geometric.data import Batch, Data
from torch_geometric.datasets.graph_generator import BAGraph
from torch_geometric.datasets.motif_generator import CycleMotif, HouseMotif
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GAT, GCN, GIN, GraphSAGE, global_add_pool, global_max_pool, global_mean_pool

from optnas import Classification, Objective, Training, Trial

N_TRAIN, N_VAL, N_TEST = 500, 125, 600
N_NODES, N_FEATURES = 25, 10
KINDS = {"gcn": GCN, "gin": GIN, "sage": GraphSAGE, "gat": GAT}
POOLS = {"add": global_add_pool, "mean": global_mean_pool, "max": global_max_pool}


def made(n: int, seed: int) -> list[Data]:
    """`n` graphs, every other one with a house."""
    seed_everything(seed)
    motifs, random = (HouseMotif(), CycleMotif(5)), BAGraph(20, 1)
    return [with_motif(random().edge_index, motifs[i % 2]().edge_index, i % 2) for i in range(n)]


def with_motif(edges: Tensor, motif: Tensor, label: int) -> Data:
    """Both in one graph, tied by an edge, with up to four edges more."""
    ties = torch.stack([torch.randint(20, (1,)), torch.randint(20, N_NODES, (1,))])
    more = torch.randint(N_NODES, (2, int(torch.randint(5, (1,)))))
    one_way = torch.cat([ties, more], 1)
    edge_index = torch.cat([edges, motif + 20, one_way, one_way.flip(0)], 1)
    n_edges = torch.bincount(edge_index[1], minlength=N_NODES).clamp(max=N_FEATURES - 1)
    x = functional.one_hot(n_edges, N_FEATURES).float()
    return Data(x=x, edge_index=edge_index, y=torch.tensor([label]))


class Graphs(pl.LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        state = torch.get_rng_state()
        self.train, self.val, self.test = made(N_TRAIN, 10), made(N_VAL, 11), made(N_TEST, 12)
        torch.set_rng_state(state)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=32, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=100)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, batch_size=100)


class GraphClassifier(nn.Module):
    """Layers of one kind, the nodes of each graph pooled, a linear layer."""

    def __init__(
        self, kind: str, width: int, depth: int, pool: str, all_layers: bool = False, norm: str | None = None
    ) -> None:
        super().__init__()
        jumps = "cat" if all_layers else None
        self.layers = KINDS[kind](N_FEATURES, width, depth, width, norm=norm, jk=jumps)
        self.pool = POOLS[pool]
        self.classifier = nn.Linear(width, 2)

    def forward(self, batch: Batch) -> Tensor:
        nodes = self.layers(batch.x, batch.edge_index)
        scores: Tensor = self.classifier(self.pool(nodes, batch.batch, batch.num_graphs))
        return scores


def space(trial: Trial) -> nn.Module:
    return GraphClassifier(
        trial.suggest_categorical("kind", list(KINDS)),
        trial.suggest_categorical("width", [8, 16, 32]),
        trial.suggest_int("depth", 1, 5),
        trial.suggest_categorical("pool", list(POOLS)),
        trial.suggest_categorical("all_layers", [False, True]),
        trial.suggest_categorical("norm", [None, "batch_norm"]),
    )


def baseline(trial: Trial) -> nn.Module:
    """Three graph convolutions of 20 channels, and the mean of the nodes."""
    return GraphClassifier("gcn", 20, 3, "mean")


estimator = Training(
    Classification(n_classes=2, lr=1e-2), Graphs(), monitor="val_loss", mode="min", max_epochs=20
)
objective = Objective(space, estimator)

study_name = "pyg_graphs"
storage = "sqlite:///graphs.db"
n_trials = 25
n_retrain = 5
