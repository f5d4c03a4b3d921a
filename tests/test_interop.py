"""Models of other libraries, from search to report.

What is not installed is skipped: `pip install transformers torch_geometric monai x-transformers`, and
`pip install --no-deps timm`.
"""

import importlib.util
import sys

import pytest
import torch
from fixtures.foreign import Batches, from_search_to_report
from fixtures.pages import blocks
from torch import nn
from torch.utils.data import DataLoader, StackDataset

from optnas.tasks import Classification, LanguageModeling, OwnLoss, Segmentation

N = 24
pytestmark = pytest.mark.filterwarnings("ignore")  # of these libraries


def tokens(**more):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 30, (N, 10), generator=generator)
    rows = StackDataset(input_ids=ids, **more)
    return Batches(lambda: DataLoader(rows, 8))


def bert():
    transformers = pytest.importorskip("transformers")

    def space(trial):
        width = trial.suggest_categorical("width", [16, 32])
        return transformers.BertForSequenceClassification(
            transformers.BertConfig(
                vocab_size=30, hidden_size=width, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=32, num_labels=3,
            )
        )  # fmt: skip

    data = tokens(attention_mask=torch.ones(N, 10).long(), labels=torch.arange(N) % 3)
    return space, Classification(3), data


def bert_with_its_own_loss():
    space, _, data = bert()
    return space, OwnLoss(), data


def gpt2():
    transformers = pytest.importorskip("transformers")

    def space(trial):
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=30, n_embd=16, n_head=2, n_positions=16, n_layer=trial.suggest_int("n_layer", 1, 2)
            )
        )

    return space, LanguageModeling(30), tokens()


def graphs():
    geometric = pytest.importorskip("torch_geometric")
    from torch_geometric.loader import DataLoader as GraphLoader
    from torch_geometric.nn import GIN, global_mean_pool

    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layers, self.head = GIN(3, width, 2), nn.Linear(width, 2)

        def forward(self, batch):
            return self.head(global_mean_pool(self.layers(batch.x, batch.edge_index), batch.batch))

    generator = torch.Generator().manual_seed(0)
    made = [
        geometric.data.Data(
            x=torch.rand(5, 3, generator=generator),
            edge_index=torch.randint(0, 5, (2, 8), generator=generator),
            y=torch.tensor([i % 2]),
        )
        for i in range(N)
    ]
    return (
        lambda trial: Net(trial.suggest_int("width", 4, 8)),
        Classification(2),
        Batches(lambda: GraphLoader(made, 8)),
    )


def graphs_by_their_parts():
    geometric = pytest.importorskip("torch_geometric")
    _, _, data = graphs()

    def space(trial):
        return geometric.nn.GCN(3, trial.suggest_int("width", 4, 8), 1, 2)

    def call(model, batch):
        return geometric.nn.global_mean_pool(model(batch.x, batch.edge_index), batch.batch)

    return space, Classification(2, call=call), data


def volumes():
    nets = pytest.importorskip("monai.networks.nets")
    x = torch.rand(N, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    rows = torch.utils.data.TensorDataset(x, (x[:, 0] > 0.5).long())

    def space(trial):
        return nets.UNet(3, 1, 2, (4, 8), (2,), num_res_units=trial.suggest_int("units", 1, 2))

    return space, Segmentation(2), Batches(lambda: DataLoader(rows, 8))


def x_transformer():
    library = pytest.importorskip("x_transformers")

    def space(trial):
        layers = library.Decoder(dim=16, depth=trial.suggest_int("depth", 1, 2), heads=2, rotary_pos_emb=True)
        return library.TransformerWrapper(num_tokens=30, max_seq_len=16, attn_layers=layers)

    ids = torch.randint(0, 30, (N, 10), generator=torch.Generator().manual_seed(0))
    rows = torch.utils.data.TensorDataset(ids[:, :-1], ids[:, 1:])
    return space, LanguageModeling(30), Batches(lambda: DataLoader(rows, 8))


def image_models():
    """timm, as its page says it is imported where there is no torchvision."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    if importlib.util.find_spec("torchvision") is None and "timm" not in sys.modules:
        [alone] = [block for block in blocks("docs/guides/timm.md") if "def timm_alone" in block.code]
        names = {"__name__": "__main__"}
        exec(alone.code, names)
        names["timm_alone"]()
        assert "torchvision" not in sys.modules
    from timm.models.resnet import BasicBlock, ResNet

    x = torch.rand(N, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = torch.utils.data.TensorDataset(x, torch.arange(N) % 3)

    def space(trial):
        layers = [trial.suggest_int("depth", 1, 2), 1, 1, 1]
        return ResNet(BasicBlock, layers, channels=[8, 8, 16, 16], num_classes=3, in_chans=1)

    return space, Classification(3), Batches(lambda: DataLoader(rows, 8))


CASES = [
    bert,
    bert_with_its_own_loss,
    gpt2,
    graphs,
    graphs_by_their_parts,
    volumes,
    x_transformer,
    image_models,
]
LOOKING = {"graphs", "graphs_by_their_parts"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_from_search_to_report(tmp_path, case):
    found = from_search_to_report(tmp_path, *case(), case.__name__)
    assert (found.looks is not None) == (case.__name__ in LOOKING), found.looks
