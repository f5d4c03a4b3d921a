"""Decisions learned by gradients: each step is the paper's, and an interrupted search goes on exactly."""

from __future__ import annotations

import copy
import logging
import os
import signal
from functools import partial
from typing import ClassVar

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from optnas import Chain, Choice, Darts, Mixture, Objective, best, create_study, optimize, record
from optnas.data import TensorData
from optnas.launch.launcher import LocalProcesses
from optnas.tasks import Classification, Recipe
from optnas.tasks.recipe import Constant
from optnas.training import Training
from optnas.training.checkpoints import load_snapshot
from optnas.training.quiet import quiet
from optnas.trial import replay


def layer(trial, act):
    return nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), act())


def smooth(trial):
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh())


def skip(trial):
    return nn.Identity()


class Nothing(nn.Module):
    def forward(self, x):
        return 0 * x


def nothing(trial):
    return Nothing()


def classes(trial):
    return nn.LazyLinear(2)


op = Choice("op", {"skip": skip, "relu": partial(layer, act=nn.ReLU), "tanh": smooth})
space = Chain(a=partial(layer, act=nn.ReLU), b=op, c=op, head=classes)
bent = Choice("op", {"skip": skip, "silu": partial(layer, act=nn.SiLU), "tanh": smooth})
without_kinks = Chain(a=partial(layer, act=nn.SiLU), b=bent, c=bent, head=classes)


def points(rows=120, flipped=False, batch_size=32):
    """Two classes; `flipped`: those of the validation data are the wrong way round."""
    x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    n = rows // 2
    val = (x[n:], 1 - y[n:] if flipped else y[n:])
    return TensorData((x[:n], y[:n]), val=val, test=val, batch_size=batch_size)


PLAIN = Recipe(torch.optim.SGD, schedule=Constant())


def training(folder, task, **options):
    settings = {"monitor": "progress", "mode": "max", "max_epochs": 3, "folder": folder / "runs", **options}
    return Training(task, settings.pop("data", points()), **settings)


def fit(mixture, how, data, epochs=1, callbacks=(), **options):
    """Train the mixture in place."""
    torch.manual_seed(5)
    module = how(mixture, replay({}))
    trainer = pl.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", callbacks=list(callbacks), **options,
    )  # fmt: skip
    with quiet():
        trainer.fit(module, datamodule=data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def new(space=space, seed=0):
    torch.manual_seed(seed)
    return Mixture(space, (3, 2))


def loss(mixture, weights, alpha, x, y):
    """By plain torch, for weights that are not those of the modules."""
    parts = dict(zip(mixture.decisions, alpha.split(mixture.sizes), strict=True))

    def run(module, path, x):
        if path.endswith((".b", ".c")):
            share = parts[f"{path[-1]}.op"].softmax(0)
            inner = [(f"{path}.candidates.{i}", m) for i, m in enumerate(module.candidates)]
            return sum(s * run(m, p, x) for s, (p, m) in zip(share, inner, strict=True))
        if isinstance(module, nn.Sequential):
            for name, child in module.named_children():
                x = run(child, f"{path}.{name}", x)
            return x
        own = {name: weights[f"{path}.{name}"] for name, _ in module.named_parameters()}
        return torch.func.functional_call(module, own, (x,))

    return functional.cross_entropy(run(mixture.network, "network", x), y)


def adam(mixture, gradient, lr):
    """The alphas after a first step of Adam."""
    alpha = mixture.alpha.detach().clone()
    optimizer = torch.optim.Adam([alpha], lr=lr, betas=(0.5, 0.999), weight_decay=1e-3)
    alpha.grad = gradient
    optimizer.step()
    return alpha


class First(pl.Callback):
    """The alphas' gradient and values after the first step of theirs, before that of the weights."""

    def on_before_zero_grad(self, trainer, module, optimizer):
        self.alpha = module.model.alpha.detach().clone()


def test_alphas_go_a_step_of_adam_for_the_validation_loss():
    data = points(batch_size=64)
    mixture = new()
    weights = {name: p.detach() for name, p in mixture.named_parameters()}
    alpha = mixture.alpha.detach().clone().requires_grad_()
    loss(mixture, weights, alpha, *data.val).backward()
    expected = adam(mixture, alpha.grad, 0.1)
    before = copy.deepcopy(mixture)
    fit(mixture, Darts(Classification(2, recipe=PLAIN), lr=0.1), data)
    torch.testing.assert_close(mixture.alpha.detach(), expected, rtol=1e-3, atol=1e-4)
    assert int(mixture.steps) == 1
    changed = [n for n, p in mixture.named_parameters() if not torch.equal(p, before.get_parameter(n))]
    assert "alpha" in changed
    assert any(name.startswith("network.b") for name in changed)
    assert mixture.alpha.grad is None


def test_the_second_order_is_the_gradient_through_a_step_of_the_weights(monkeypatch):
    data = points(batch_size=64)
    rate = 0.5
    mixture = new(without_kinks)  # where finite differences are exact enough
    names = [name for name, p in mixture.named_parameters() if p.requires_grad]
    weights = {name: p.detach().clone().requires_grad_() for name, p in mixture.named_parameters()}
    alpha = mixture.alpha.detach().clone().requires_grad_()
    by = torch.autograd.grad(
        loss(mixture, weights, alpha, *data.train), [weights[n] for n in names], create_graph=True
    )
    after = {**weights, **{n: weights[n] - rate * g for n, g in zip(names, by, strict=True)}}
    [exact] = torch.autograd.grad(loss(mixture, after, alpha, *data.val), alpha)
    detached = {name: weight.detach() for name, weight in after.items()}
    [partly] = torch.autograd.grad(loss(mixture, detached, alpha, *data.val), alpha)

    found = []
    step = torch.optim.Adam.step

    def note(self, closure=None):
        found.append(self.param_groups[0]["params"][0].grad.clone())
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", note)
    before = copy.deepcopy(mixture)
    how = Darts(Classification(2, lr=rate, weight_decay=0.0, recipe=PLAIN), second_order=True)
    fit(mixture, how, data)
    assert (exact - partly).norm() > 0.05 * exact.norm()  # so that the second part matters
    torch.testing.assert_close(found[0], exact, rtol=0.02, atol=float(0.02 * exact.norm()))
    # The weights themselves went their own step and no other.
    plain = copy.deepcopy(before)
    loss_now = loss(plain, dict(plain.named_parameters()), mixture.alpha.detach(), *data.train)
    name = "network.head.weight"
    [gradient] = torch.autograd.grad(loss_now, plain.get_parameter(name))
    torch.testing.assert_close(
        mixture.get_parameter(name).detach(), before.get_parameter(name).detach() - rate * gradient,
        rtol=1e-3, atol=1e-5,
    )  # fmt: skip


class Interrupt(pl.Callback):
    """Once, in a place that the class knows: who goes on has the same objective."""

    at: ClassVar[tuple[int, int] | None] = None
    began: ClassVar[list[int]] = []

    def on_train_epoch_start(self, trainer, module):
        self.began.append(trainer.current_epoch)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise KeyboardInterrupt


WAYS = {
    "first order": {"beta": 5.0},
    "second order": {"second_order": True},
    "gumbel, partial": {"temperatures": (10, 0.1), "partial": 2, "warmup": 1},
    "oles": {"oles": 0.9},
    "perturb": {"perturb": 1},
    "perturb alone": {"lr": 0.0, "perturb": 1},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_search_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path, way, monkeypatch):
    mixture = new()
    epochs = 12 if way == "oles" else 4

    def weights(name, interrupt):
        folder = tmp_path / name
        task = Darts(Classification(2, lr=0.05), **{"lr": 0.1, **WAYS[way]})
        estimator = training(folder, task, max_epochs=epochs, callbacks=[Interrupt()])
        objective = Objective(mixture.untrained, estimator)
        study = create_study(objective, study_name="mixed", seed=3)
        for at in ((epochs - 1, 1), None) if interrupt else (None,):
            monkeypatch.setattr(Interrupt, "at", at)
            Interrupt.began.clear()
            try:
                optimize(study, objective, n_trials=1, show_progress=False)
            except KeyboardInterrupt:
                assert list(folder.rglob("epoch-*.ckpt"))
        [trial] = study.trials
        return trial, load_snapshot(study, trial).weights, best(study, objective).model()

    (whole, expected, model), (interrupted, found, other) = weights("whole", False), weights("broken", True)
    assert Interrupt.began == [epochs - 1]  # it went on
    assert whole.intermediate_values == interrupted.intermediate_values
    assert len(interrupted.user_attrs["optnas:attempts"]) == 2
    assert found.keys() == expected.keys()
    assert [name for name, weight in expected.items() if not torch.equal(found[name], weight)] == []
    assert model.networks(5) == other.networks(5)
    metrics = [record.METRICS.of(trial) for trial in (whole, interrupted)]
    assert metrics[0] == metrics[1]
    assert {"progress", "skips", "gap", "val_acc"} <= metrics[0].keys()
    assert metrics[0]["progress"] == 1
    if way == "oles":
        assert model.frozen.any()
    if "perturb" in way:
        assert model.undecided() == []


class Kill(pl.Callback):
    """Kill -9, once, in the middle of an epoch."""

    def __init__(self, done, epoch):
        self.done, self.epoch = done, epoch

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, 1) and not self.done.exists():
            self.done.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    "how",
    [
        {"lr": 0.1, "oles": 0.9, "beta": 5.0, "partial": 2, "temperatures": (10, 0.1)},
        {"lr": 0.0, "perturb": 1},
    ],
    ids=["alphas", "perturb alone"],
)
def test_a_search_whose_process_was_killed_ends_with_the_same_weights(how, tmp_path):
    mixture = Mixture(space, (3, 2), edges=[["b.op", "c.op"]])
    found = {}
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        done = folder / "done"
        if name == "whole":
            done.touch()
        task = Darts(Classification(2, lr=0.05), **how)
        # The callback is part of the settings, on which nothing random depends.
        objective = Objective(mixture.untrained, training(folder, task, callbacks=[Kill(done, 2)]))
        study = create_study(objective, study_name="s", storage=f"sqlite:///{folder}/s.db", seed=3)
        workers = LocalProcesses(1) if name == "killed" else None
        optimize(study, objective, n_trials=1, workers=workers, show_progress=False)
        [trial] = study.trials
        attempts = [attempt.get("how") for attempt in record.attempts(trial)]
        assert attempts.count("killed") == (name == "killed")
        found[name] = trial.intermediate_values, load_snapshot(study, trial).weights
    assert found["whole"][0] == found["killed"][0]
    assert found["whole"][1].keys() == found["killed"][1].keys()
    assert [n for n, w in found["whole"][1].items() if not torch.equal(w, found["killed"][1][n])] == []


def useful(rows=400):
    """The classes depend on a product, which no linear network sees."""
    x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(1))
    return TensorData((x, (x[:, 0] * x[:, 1] > 0).long()), val=0.4, test=0.2, batch_size=32)


def wide(trial):
    return nn.Linear(2, 6)


deciding = Chain(a=wide, b=Choice("op", {"nothing": nothing, "tanh": smooth, "skip": skip}), head=classes)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"second_order": True},
        {"temperatures": (5, 0.5)},
        {"perturb": 2},
        {"lr": 0.0, "perturb": 2},
        {"oles": -0.9, "beta": 0.1},
    ],
    ids=["first", "second", "gumbel", "perturb", "perturb alone", "oles"],
)
def test_what_is_needed_is_found_and_trained_in_the_study(how, tmp_path):
    mixture = new(deciding)
    task = Classification(2, lr=0.05)
    darts = Darts(task, **{"lr": 0.05, **how})
    searching = training(tmp_path, darts, max_epochs=20, data=useful())
    learned = Objective(mixture.untrained, searching)
    study = create_study(learned, study_name="mixture", seed=0)
    optimize(study, learned, n_trials=1, show_progress=False)
    found = best(study, learned).model()
    assert found.networks(1) == [{"b.op": "tanh"}]
    assert found.skip_share() == record.METRICS.of(study.trials[0])["skips"] == 0
    alone = Objective(deciding, training(tmp_path, task, data=useful(), monitor="val_acc"))
    search = create_study(alone, study_name="alone", seed=0)
    found.enqueue(search, 5)
    optimize(search, alone, n_trials=3, show_progress=False)
    assert search.trials[0].params == {"b.op": "tanh"}
    assert {trial.params["b.op"] for trial in search.trials} == {"nothing", "tanh", "skip"}


def test_gradients_on_training_and_validation_data_are_compared_for_each_candidate():
    data = points(flipped=True, batch_size=64)
    mixture = new()
    weights = {name: p.detach().clone().requires_grad_() for name, p in mixture.named_parameters()}
    names = [name for name, p in mixture.named_parameters() if p.requires_grad]
    alpha = mixture.alpha.detach().clone()
    found = []
    for x, y in (data.train, data.val):
        of = torch.autograd.grad(loss(mixture, weights, alpha, x, y), [weights[name] for name in names])
        found.append(dict(zip(names, of, strict=True)))
    fit(mixture, Darts(Classification(2, recipe=PLAIN), lr=1e-9, oles=0.0), data)
    expected = []
    for place in "bc":
        for i in range(3):
            own = [name for name in names if name.startswith(f"network.{place}.candidates.{i}.")]
            pairs = [[of[name].flatten() for of in found] for name in own]
            cosines = [float(one @ two / (one.norm() * two.norm())) for one, two in pairs]
            expected.append(sum(cosines) / len(cosines) if cosines else 0.0)
    # A bias before a normalization has no gradient but what is left of rounding.
    for i in (0, 2, 3, 5):
        assert float(mixture.cosines[i]) == pytest.approx(expected[i], rel=1e-3)
    assert min(expected[2], expected[5]) < 0.5
    assert mixture.compared.tolist() == [0, 1, 1, 0, 1, 1]  # a skip has no weights


def test_a_candidate_whose_gradients_disagree_is_trained_no_more():
    data = points(batch_size=64)
    never, mixture = new(), new()
    fit(never, Darts(Classification(2), oles=-0.999), data, epochs=21)
    assert not never.frozen.any()
    how = Darts(Classification(2), oles=0.999)
    fit(mixture, how, data, epochs=19)
    assert not mixture.frozen.any()
    fit(mixture, how, data, epochs=1)
    assert mixture.frozen.tolist() == [False, True, True, False, True, True]
    kept = {n: p.detach().clone() for n, p in mixture.named_parameters() if "candidates" in n}
    head = mixture.network.head.weight.detach().clone()
    fit(mixture, how, data, epochs=2)
    assert len(kept) == 12
    assert [name for name, p in kept.items() if not torch.equal(mixture.get_parameter(name), p)] == []
    assert not torch.equal(mixture.network.head.weight, head)


def test_perturbation_compares_losses_on_all_validation_data_without_each_answer():
    mixture = new(deciding)
    losses = []

    class Look(pl.Callback):
        """The mixture at the beginning of the last epoch but one."""

        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 5:
                x, y = trainer.datamodule.val
                for answer in range(3):
                    values = module.model.alpha.softmax(0).detach().clone()
                    values[answer] = 0
                    h = module.model.network.a(x)
                    candidates = module.model.network.b.candidates
                    mixed = sum(v * c(h) for v, c in zip(values / values.sum(), candidates, strict=True))
                    loss = functional.cross_entropy(module.model.network.head(mixed), y)
                    losses.append(loss.item())

    data = useful(400)
    data.batch_size = 160  # one batch of all
    how = Darts(Classification(2, lr=0.05), lr=0.05, perturb=2)
    fit(mixture, how, data, epochs=7, callbacks=[Look()])
    assert mixture.without.tolist() == pytest.approx(losses, rel=1e-4)
    assert mixture.undecided() == []


def test_without_a_learning_rate_alphas_stay_and_perturbation_decides_alone():
    mixture = new(deciding)
    before = mixture.alpha.detach().clone()
    how = Darts(Classification(2, lr=0.05), lr=0, perturb=1)
    fit(mixture, how, useful(), epochs=1, limit_train_batches=2)  # as a rehearsal does
    with pytest.raises(ValueError, match="This mixture is untrained"):
        mixture.networks(1)
    fit(mixture, how, useful(), epochs=20)
    assert torch.equal(mixture.alpha, before)
    assert int(mixture.steps) == 0
    assert mixture.undecided() == []
    assert mixture.networks(1) == [{"b.op": "tanh"}]


def test_weights_alone_are_trained_first():
    mixture = new()
    before = mixture.alpha.detach().clone()
    head = mixture.network.head.weight.detach().clone()
    fit(mixture, Darts(Classification(2), warmup=2), points(), epochs=2)
    assert torch.equal(mixture.alpha, before)
    assert not torch.equal(mixture.network.head.weight, head)


def test_regularization_pushes_large_alphas_down_the_more_the_later(monkeypatch):
    found = []
    step = torch.optim.Adam.step

    def note(self, closure=None):
        alpha = self.param_groups[0]["params"][0]
        found.append((alpha.detach().clone(), alpha.grad.clone()))
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", note)
    for beta in (0.0, 6.0):
        mixture = new()
        fit(mixture, Darts(Classification(2, recipe=PLAIN), beta=beta), points(batch_size=64), epochs=3)
    (_, one), (_, two), _, (_, same), (alpha, more), _ = found
    assert torch.equal(one, same)  # nothing in the first epoch
    softmax = torch.cat([part.softmax(0) for part in alpha.split(3)])
    torch.testing.assert_close(more - two, 6.0 / 3 * softmax / 2, rtol=1e-4, atol=1e-5)


def test_too_many_skips_end_the_search_and_what_was_before_is_kept(tmp_path, caplog):
    def ready(trial):
        """A mixture that is about to fall to skips."""
        mixture = new()
        with torch.no_grad():
            mixture.alpha.copy_(torch.tensor([-0.05, 0.0, -1.0] * 2))
        return mixture

    class Push(pl.Callback):
        def on_train_epoch_start(self, trainer, module):
            with torch.no_grad():
                module.model.alpha[0] += 0.04  # passes in the second epoch

    task = Darts(Classification(2), lr=1e-6, most_skips=0.4)
    estimator = training(tmp_path, task, max_epochs=9, callbacks=lambda trial: [Push()])
    objective = Objective(ready, estimator)
    study = create_study(objective, study_name="skips", seed=0)
    with caplog.at_level(logging.WARNING, "optnas.supernet.darts"):
        optimize(study, objective, n_trials=1, show_progress=False)
    assert list(study.trials[0].intermediate_values.values()) == [pytest.approx(1 / 9), 0.0]
    kept = best(study, objective).model()
    assert kept.networks(1)[0]["b.op"] == "relu"
    assert "most_skips=0.4" in caplog.text
    assert "after epoch 1" in caplog.text


def test_a_search_that_ends_in_skips_says_so(caplog):
    mixture = new()
    with torch.no_grad():
        mixture.alpha.copy_(torch.tensor([1.0, 0.0, 0.0] * 2))
    with caplog.at_level(logging.WARNING, "optnas.supernet.darts"):
        metrics = fit(mixture, Darts(Classification(2)), points())
    assert metrics["skips"] == 1
    assert "100 % of the decisions is a skip" in caplog.text


def test_the_gap_is_that_of_the_losses():
    data = points(batch_size=64)
    mixture = new()
    with torch.no_grad():
        mixture.alpha.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 2.0]))
    weights = {name: p.detach() for name, p in mixture.named_parameters()}
    soft = loss(mixture, weights, mixture.alpha.detach(), *data.val)
    sure = torch.tensor([60.0, 0, 0, 0, 0, 60])  # the softmax of which is 0 and 1
    hard = loss(mixture, weights, sure, *data.val)
    metrics = fit(mixture, Darts(Classification(2), warmup=1), data)
    assert abs(float(hard - soft)) > 1e-3
    assert metrics["gap"] == pytest.approx(float(hard - soft), abs=1e-5)


class Loaders(pl.LightningDataModule):
    """Plain loaders of torch; `several` for validation."""

    def __init__(self, several=False):
        super().__init__()
        self.several = several

    def loader(self):
        x, y = points().val
        return DataLoader(TensorDataset(x, y), batch_size=16)

    train_dataloader = loader

    def val_dataloader(self):
        return [self.loader(), self.loader()] if self.several else self.loader()


class Plain(pl.LightningModule):
    """A module that is none of ours."""

    def __init__(self, model, trial):
        super().__init__()
        self.model = model

    def training_step(self, batch, batch_idx):
        return {"loss": functional.cross_entropy(self.model(batch[0]), batch[1])}

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def test_modules_and_loaders_of_others_will_do():
    found = []
    for _ in range(2):
        mixture = new()
        fit(mixture, Darts(Plain, lr=0.1), Loaders(), epochs=2)
        found.append(mixture.alpha.detach())
        assert int(mixture.steps) == 8
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="returns one loader, not a list"):
        fit(new(), Darts(Plain), Loaders(several=True))


def test_epochs_must_suffice_for_the_decisions():
    with pytest.raises(ValueError, match=r"max_epochs=4\).*decides 2 times in the last 4.*more than 4"):
        fit(new(), Darts(Classification(2), perturb=2), points(), epochs=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, r"lr=-1\) must be at least 0"),
        ({"lr": 0}, r"lr=0\): alphas that stay .* give perturb=1"),
        ({"lr": 0, "perturb": 1, "oles": 0.4}, r"lr=0, oles=0.4\): .* leave it out"),
        ({"partial": 0}, r"partial=0\) must be at least 1"),
        ({"warmup": -1}, r"warmup=-1\) must be at least 0"),
        ({"beta": float("nan")}, r"beta=nan\) must be at least 0"),
        ({"perturb": 0}, r"perturb=0\) must be at least 1"),
        ({"oles": 1.5}, r"oles=1.5\) is a cosine"),
        ({"temperatures": (1, 0)}, r"temperatures=\(1, 0\)\) must both"),
        ({"most_skips": 1}, r"most_skips=1\) is a share"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Darts(Classification(2), **options)


@pytest.mark.parametrize("options", [{"monitor": "val_acc"}, {"mode": "min"}])
def test_another_metric_may_not_say_which_epoch_is_kept(tmp_path, options):
    with pytest.raises(ValueError, match="give monitor='progress', mode='max'"):
        training(tmp_path, Darts(Classification(2)), **options)


def test_only_a_mixture_has_decisions_to_learn():
    with pytest.raises(TypeError, match=r"its model is a Linear; give Objective\(mixture.untrained"):
        Darts(Classification(2))(nn.Linear(2, 2), replay({}))
