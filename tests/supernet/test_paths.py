"""Which sub-networks a step trains, and that an interrupted training of shared weights goes on exactly."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional

from optnas import (
    Chain,
    Choice,
    Fair,
    Objective,
    Repeat,
    Sandwich,
    SinglePath,
    Supernet,
    create_study,
    optimize,
)
from optnas.data import TensorData
from optnas.supernet.paths import fair_paths
from optnas.supernet.supernet import answers
from optnas.tasks import Classification, Regression
from optnas.training import Training
from optnas.training.checkpoints import load_snapshot
from optnas.training.quiet import quiet
from optnas.trial import replay


def layer(trial, act):
    return nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), act(), nn.Dropout(0.1))


def skip(trial):
    return nn.Identity()


def classes(trial):
    return nn.LazyLinear(2)


op = Choice("op", {"relu": partial(layer, act=nn.ReLU), "tanh": partial(layer, act=nn.Tanh), "skip": skip})
space = Chain(a=partial(layer, act=nn.ReLU), b=op, c=op, head=classes)


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    return Supernet(space, (3, 2), draws=10)


def points(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(120, 2)
    return TensorData((x, (x[:, 0] > 0).long()), batch_size=32)


def training(tmp_path, task, **options):
    settings = {"monitor": "val_acc", "mode": "max", "max_epochs": 2, "folder": tmp_path / "runs", **options}
    return Training(task, points(), **settings)


def test_fair_trains_every_candidate_exactly_once_in_every_step(supernet):
    for seed in range(10):
        paths = list(fair_paths(supernet, np.random.default_rng(seed)))
        for name in ("b.op", "c.op"):
            assert Counter(path.params[name] for path in paths) == {"relu": 1, "tanh": 1, "skip": 1}
    pairs = {
        (path.params["b.op"], path.params["c.op"])
        for seed in range(20)
        for path in fair_paths(supernet, np.random.default_rng(seed))
    }
    assert len(pairs) == 9


def test_fair_trains_what_is_not_always_reached_equally_often():
    nested = Repeat("block", Choice("op", {"x": skip, "y": Choice("inner", {"u": skip, "v": skip})}), 1, 3)
    shared = Supernet(nested, (3, 2), draws=10)
    found = Counter(
        (name, value)
        for seed in range(900)
        for path in fair_paths(shared, np.random.default_rng(seed))
        for name, value in path.params.items()
    )
    assert found["block.depth", 1] == pytest.approx(600, rel=0.1)
    for name, options in {"block.2.op": "xy", "block.0.op.y.inner": "uv"}.items():
        first, second = (found[name, option] for option in options)
        assert first == pytest.approx(second, rel=0.15)


class Watch(pl.Callback):
    """What has a gradient when the optimizer goes a step, and its gradients."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        found = {name: p.grad for name, p in module.model.weights.items()}
        self.steps.append({name: None if grad is None else grad.clone() for name, grad in found.items()})


def one_step(supernet, task, x, y, seed=5):
    """Gradients of a first step on these points, from the weights that the supernet has."""
    watch = Watch()
    torch.manual_seed(seed)
    module = task(supernet, replay({}))
    data = TensorData((x, y), val=(x, y), test=(x, y), batch_size=len(x))
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[watch], limit_val_batches=0, accelerator="cpu",
    )  # fmt: skip
    with quiet():
        trainer.fit(module, datamodule=data)
    return watch.steps[0]


@pytest.fixture
def batch():
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def plain(trial, act):
    return nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), act())


@pytest.fixture
def certain():
    """A supernet without dropout, so that passes can be repeated."""
    act = Choice("op", {"relu": partial(plain, act=nn.ReLU), "tanh": partial(plain, act=nn.Tanh)})
    torch.manual_seed(0)
    return Supernet(Chain(a=act, b=act, head=classes), (3, 2), draws=5)


def gradients(supernet, paths, loss):
    """Of the sum of `loss(output, i)` over sub-networks, by plain torch."""
    supernet.zero_grad(set_to_none=True)
    total = 0.0
    for i, path in enumerate(paths):
        supernet.choose(path)
        total = total + loss(supernet, i)
    total.backward()
    found = {name: None if p.grad is None else p.grad.clone() for name, p in supernet.weights.items()}
    supernet.zero_grad(set_to_none=True)
    return found


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        assert (found[name] is None) == (grad is None), name
        if grad is not None:
            torch.testing.assert_close(found[name], grad)


@pytest.fixture
def still(monkeypatch):
    """Steps that leave weights as they are, so that gradients can be computed again."""
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, closure: closure())


def test_single_path_trains_one_subnetwork_and_nothing_else(certain, batch, still):
    x, y = batch
    found = one_step(certain, SinglePath(Classification(2)), x, y)
    path = certain.chosen
    used = {weight.key.replace(".", "/") for weight in path.weights.values()}
    assert {name for name, grad in found.items() if grad is not None} == used != set(certain.weights)
    assert_equal(found, gradients(certain, [path], lambda net, i: functional.cross_entropy(net(x), y)))


def test_fair_adds_up_the_gradients_of_its_subnetworks(certain, batch, still):
    x, y = batch
    found = one_step(certain, Fair(Classification(2)), x, y)
    assert all(grad is not None for grad in found.values())
    # Two candidates: the last sub-network says what the first was.
    last = certain.chosen
    other = {"relu": "tanh", "tanh": "relu"}
    first = certain.draw(answers({name: other[value] for name, value in last.params.items()}))
    loss = gradients(certain, [first, last], lambda net, i: functional.cross_entropy(net(x), y))
    assert_equal(found, loss)


def wide(trial):
    return nn.Sequential(nn.LazyLinear(trial.suggest_int("width", 2, 8)), nn.Tanh(), nn.LazyLinear(2))


def test_the_sandwich_teaches_the_others_what_the_largest_says(batch, still):
    x, y = batch
    torch.manual_seed(0)
    shared = Supernet(wide, (3, 2), draws=5)
    assert (shared.layout.largest, shared.layout.smallest) == ({"width": 8}, {"width": 2})
    found = one_step(shared, Sandwich(Classification(2), n_random=1), x, y)
    drawn = shared.chosen
    ends = [shared.draw(answers({"width": width})) for width in (8, 2)]
    shared.choose(ends[0])
    taught = shared(x).detach()

    def loss(net, i):
        if i == 0:
            return functional.cross_entropy(net(x), y)
        return -(taught.softmax(1) * net(x).log_softmax(1)).sum(1).mean()

    assert_equal(found, gradients(shared, [*ends, drawn], loss))


def test_the_sandwich_takes_a_distance_for_other_outputs(batch, still):
    x, _ = batch
    shared = Supernet(wide, (3, 2), draws=5)
    task = Sandwich(Regression(), n_random=0, distance=functional.mse_loss)
    found = one_step(shared, task, x, torch.stack([x[:, 0], x[:, 1]], 1))
    assert all(bool(grad.isfinite().all()) for grad in found.values())


def test_a_task_that_does_not_call_the_supernet_is_told(batch):
    def task(model, trial):
        module = Classification(2)(model, trial)
        module.training_step = lambda batch, batch_idx: next(model.parameters()).sum()
        return module

    with pytest.raises(ValueError, match=r"does not call the supernet.*use SinglePath or Fair"):
        one_step(Supernet(wide, (3, 2), draws=5), Sandwich(task), *batch)


@pytest.mark.parametrize("paths", [SinglePath, Fair, Sandwich])
def test_only_a_supernet_has_paths(paths):
    with pytest.raises(TypeError, match=r"its model is a Linear; give Objective\(supernet.untrained"):
        paths(Classification(2))(nn.Linear(2, 2), replay({}))


class Interrupt(pl.Callback):
    """Once, in a place that the class knows: who goes on has the same objective."""

    at: ClassVar[tuple[int, int] | None] = None
    began: ClassVar[list[int]] = []

    def on_train_epoch_start(self, trainer, module):
        self.began.append(trainer.current_epoch)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("paths", [SinglePath, Fair, Sandwich])
def test_a_training_that_was_interrupted_ends_as_if_it_had_not_been(supernet, tmp_path, paths, monkeypatch):
    def weights(name, interrupt):
        folder = tmp_path / name
        task = paths(Classification(2, lr=0.05))
        objective = Objective(
            supernet.untrained, training(folder, task, max_epochs=2, callbacks=[Interrupt()])
        )
        study = create_study(objective, study_name="shared", seed=3)
        for at in ((1, 1), None) if interrupt else (None,):
            monkeypatch.setattr(Interrupt, "at", at)
            Interrupt.began.clear()
            try:
                optimize(study, objective, n_trials=1, show_progress=False)
            except KeyboardInterrupt:
                assert len(list(folder.rglob("epoch-*.ckpt"))) == 1
        [trial] = study.trials
        return trial, load_snapshot(study, trial).weights

    (whole, expected), (interrupted, found) = weights("whole", False), weights("interrupted", True)
    assert Interrupt.began == [1]  # it went on
    assert whole.intermediate_values == interrupted.intermediate_values
    assert len(interrupted.user_attrs["optnas:attempts"]) == 2
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
