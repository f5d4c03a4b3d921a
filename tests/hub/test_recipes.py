"""Every recipe trains a small network of its space for a few steps."""

import inspect

import optuna
import pytest
import torch
from fixtures.hub import tokens
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from optnas.data.tensors import TensorData
from optnas.facts.cost import materialize
from optnas.hub import (
    bert,
    convnext,
    darts,
    gpt,
    inception_time,
    mobilenetv3,
    nasbench_graph,
    nasbench_nlp,
    nasnet,
    recipes,
    regnet,
    resnet,
    retinanet,
    tabular,
    tcn,
    unet,
    vit,
)
from optnas.trial import replay

LABELS = torch.arange(12) % 3
IMAGES = torch.randn(12, 3, 16, 16)
SERIES = torch.randn(12, 2, 20)
TOKENS = tokens(12, 7)
NEXT = (TOKENS + 1) % 9
BOXES = torch.tensor([[2.0, 2.0, 30.0, 30.0]]).repeat(12, 1, 1)
EDGES = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
SMALL_REGNET = regnet.params_of(4, 8, 8.0, 2.0, 8)
VIT = {"depth": 1, "width": 8, "heads": 2, "head_width": 4, "ratio": 2.0, "patch": 4, "classes": 3}
CASES = {
    "darts": (darts.network, darts.V2, {"channels": 4, "layers": 3, "classes": 3}, IMAGES, LABELS),
    "nasnet": (
        nasnet.network,
        nasnet.A,
        {"cells": 1, "filters": 96, "stem": 4, "classes": 3},
        IMAGES,
        LABELS,
    ),
    "mobilenetv3": (
        mobilenetv3.network,
        {},
        {"depth": 1, "kernel": 3, "expansion": 3, "width_multiplier": 0.1, "classes": 3},
        IMAGES,
        LABELS,
    ),
    "resnet": (resnet.network, resnet.R18, {"width": 4, "classes": 3, "small_images": True}, IMAGES, LABELS),
    "regnet": (regnet.network, SMALL_REGNET, {"classes": 3}, IMAGES, LABELS),
    "convnext": (
        convnext.network,
        {},
        {"width": 4, "depth": 1, "kernel": 3, "patch": 1, "classes": 3},
        IMAGES,
        LABELS,
    ),
    "vit": (vit.network, {}, VIT, IMAGES, LABELS),
    "gpt": (gpt.network, gpt.params_of(1, 1), {"vocabulary": 9, "length": 8}, TOKENS, NEXT),
    "bert": (
        bert.network,
        bert.params_of(2, 2),
        {"vocabulary": 9, "length": 8, "classes": 3},
        TOKENS,
        LABELS,
    ),
    "nasbench_nlp": (
        nasbench_nlp.network,
        nasbench_nlp.RNN,
        {"vocabulary": 9, "embedding": 4, "hidden": 4, "layers": 1},
        TOKENS,
        NEXT,
    ),
    "tcn": (tcn.network, tcn.params_of(8, 2, 3), {"classes": 3}, SERIES, LABELS),
    "inception_time": (
        inception_time.network,
        {"depth": 1, "width": 8, "kernel": 10, "bottleneck": 16},
        {"classes": 3},
        SERIES,
        LABELS,
    ),
    "tabular": (
        tabular.resnet,
        {"width": 64, "expansion": 1.0, "depth": 1},
        {},
        SERIES[:, 0],
        SERIES[:, 1, 0],
    ),
    "unet": (
        unet.network,
        {**unet.UNET, "width": 8, "depth": 1},
        {},
        IMAGES,
        (IMAGES[:, 0] > 0).long(),
    ),
    "retinanet": (
        retinanet.network,
        retinanet.params_of((1, 1, 1, 1), width=64),
        {"classes": 3, "backbone_width": 4},
        torch.randn(12, 3, 32, 32),
        (BOXES, LABELS[:, None]),
    ),
}
CLASSES = {"n_classes": 3, "vocabulary": 9}


def settings(recipe) -> dict[str, int]:
    named = inspect.signature(recipe).parameters
    return {name: n for name, n in CLASSES.items() if name in named}


@pytest.mark.parametrize("name", CASES)
def test_a_few_steps_of_every_recipe(name: str, tmp_path) -> None:
    network, params, sizes, x, y = CASES[name]
    model = network(replay(params), **sizes)
    held_out = (x[8:], pick(y, slice(8, 12)))
    data = TensorData((x[:8], pick(y, slice(8))), val=held_out, test=held_out, batch_size=4)
    recipe = getattr(recipes, name)
    chosen = {} if name in ("tabular", "unet", "retinanet") else settings(recipe)
    estimator = recipe(data, max_epochs=1, folder=tmp_path, **chosen)
    materialize(model, x[:2])
    before = [parameter.clone() for parameter in model.parameters()]
    metrics = estimator(model, optuna.create_study().ask())
    assert metrics["val_loss"] == pytest.approx(metrics["val_loss"])  # no NaN
    assert any(not torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    assert set(estimator.values) <= set(metrics)


def pick(y, rows: slice):
    return y[rows] if isinstance(y, Tensor) else tuple(part[rows] for part in y)


def test_nodes_of_one_graph_are_a_batch(tmp_path) -> None:
    class OneGraph(LightningDataModule):
        def __init__(self) -> None:
            super().__init__()
            self.graph = (torch.randn(3, 4), EDGES)

        def train_dataloader(self):
            return DataLoader([(self.graph, torch.tensor([0, 1, -100]))], batch_size=None)

        def val_dataloader(self):
            return DataLoader([(self.graph, torch.tensor([-100, -100, 2]))], batch_size=None)

    data = OneGraph()
    model = nasbench_graph.network(replay(nasbench_graph.two_layers("gcn")), width=4, classes=3)
    materialize(model, data.graph)
    estimator = recipes.nasbench_graph(data, n_classes=3, max_epochs=1, folder=tmp_path, accelerator="cpu")
    assert estimator(model, optuna.create_study().ask())["val_acc"] in (0.0, 1.0)


def test_every_hub_space_with_a_network_has_a_recipe() -> None:
    own = {
        name
        for name, value in vars(recipes).items()
        if inspect.isfunction(value) and value.__module__ == recipes.__name__
    }
    assert own - {"crops_and_flips"} == {*CASES, "nasbench_graph"} | {n for n in own if n.startswith("_")}


def test_images_are_moved_and_mirrored_from_the_generator_alone() -> None:
    first, second = (recipes.crops_and_flips(IMAGES, torch.Generator().manual_seed(seed)) for seed in (0, 0))
    assert torch.equal(first, second)
    assert first.shape == IMAGES.shape
    assert not torch.equal(first, IMAGES)
