"""What every task takes: other batches, other calls, other outputs, other recipes."""

from collections import namedtuple
from dataclasses import dataclass

import optuna
import pytest
import pytorch_lightning as pl
import torch
from fixtures.tasks import blobs, fit, no_questions
from torch import nn
from torch.utils.data import DataLoader

from optnas.seeds import seed_everything
from optnas.tasks import Classification, Constant, Cosine, OneCycle, Recipe, Regression
from optnas.trial import Draw

X, Y = torch.randn(40, 2), torch.arange(40) % 3


@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None


Named = namedtuple("Named", "logits aux")


class Graph:
    def __init__(self, x, y):
        self.x, self.y = x, y


class Model(nn.Module):
    def __init__(self, wrap=lambda scores: scores):
        super().__init__()
        self.layer, self.wrap = nn.Linear(2, 3), wrap

    def forward(self, x, mask=None):
        return self.wrap(self.layer(x if mask is None else x * mask))


def loss_of(task, batch, wrap=lambda scores: scores):
    torch.manual_seed(0)
    return task(Model(wrap), no_questions()).training_step(batch, 0).item()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: (s, s + 1),
        lambda s: [(s, None)],
        lambda s: {"logits": s, "more": s + 1},
        lambda s: {"prediction": s},
        lambda s: Output(s),
        lambda s: Output(s, s + 1),
        lambda s: Named(s, s + 1),
    ],
)
def test_outputs_are_understood(wrap):
    assert loss_of(Classification(3), (X, Y), wrap) == loss_of(Classification(3), (X, Y))


@pytest.mark.parametrize(
    ("batch", "options"),
    [
        ({"x": X, "labels": Y}, {}),
        ({"x": X, "mask": torch.ones(40, 1), "label": Y}, {}),
        ({"x": X, "kind": Y}, {"target": "kind"}),
        (((X, torch.ones(40, 1)), Y), {}),
        (Graph(X, Y), {"call": lambda model, graph: model(graph.x)}),
        ((X, Y), {"call": lambda model, x: model.layer(x)}),
    ],
)
def test_batches_and_calls(batch, options):
    assert loss_of(Classification(3, **options), batch) == loss_of(Classification(3), (X, Y))


@pytest.mark.parametrize(
    ("batch", "options", "words"),
    [
        ({"x": X, "label": Y, "y": Y}, {}, "dict with label, x, y.*target="),
        ({"x": X}, {"target": "kind"}, "target='kind'.*no such name"),
        ((X, Y, Y), {}, "a tuple of 3"),
        (X, {}, "a Tensor"),
    ],
)
def test_unclear_batches_say_what_to_do(batch, options, words):
    with pytest.raises(TypeError, match=words):
        loss_of(Classification(3, **options), batch)


class Rates(pl.Callback):
    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def rates(recipe, n_steps=20):
    seen = Rates()
    module = Classification(3, lr=0.1, recipe=recipe)(nn.Linear(2, 3), no_questions())
    module.configure_callbacks = lambda: [seen]
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(module, train_dataloaders=DataLoader(list(zip(X[:n_steps], Y, strict=False)), 1))
    return seen.rates


@pytest.mark.filterwarnings("ignore")
def test_schedules():
    assert rates(Recipe(schedule=Constant())) == [0.1] * 20
    assert rates(Recipe(schedule=Constant(warmup_steps=4)))[:5] == pytest.approx(
        [0.025, 0.05, 0.075, 0.1, 0.1]
    )
    cosine = rates(Recipe(schedule=Cosine(warmup=0.1, floor=0.1)))
    assert cosine[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert cosine[11] == pytest.approx(0.1 * (0.1 + 0.9 / 2))
    assert 0.01 < cosine[-1] < 0.012
    cycle = rates(Recipe(schedule=OneCycle(rise=0.5)))
    assert cycle.index(max(cycle)) == 9


def test_optimizer_and_clipping_are_those_asked_for():
    norms = []

    class Noting(torch.optim.SGD):
        def step(self, closure):
            loss = closure()
            gradients = [p.grad.reshape(-1) for group in self.param_groups for p in group["params"]]
            norms.append(float(torch.cat(gradients).norm()))
            super().step()
            return loss

    def recipe(trial):
        momentum = trial.suggest_float("momentum", 0, 1)
        return Recipe(
            optimizer=lambda groups, lr: Noting(groups, lr, momentum=momentum),
            clip=trial.suggest_float("clip", 1e-3, 1),
        )

    asked = Draw(lambda name, distribution: {"momentum": 0.5, "clip": 0.01}[name])
    module = Classification(3, recipe=recipe)(nn.Linear(2, 3), asked)
    assert set(asked.params) == {"momentum", "clip"}
    fit(module, blobs())
    assert type(module.trainer.optimizers[0]) is Noting
    assert max(norms) == pytest.approx(0.01, rel=1e-3)


def test_what_is_frozen_stays_and_is_given_to_no_optimizer():
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    module = Classification(3, lr=0.1, weight_decay=0.5)(model, no_questions())
    fit(module, blobs())
    assert torch.equal(model[0].weight, before)
    assert sum(len(group["params"]) for group in module.trainer.optimizers[0].param_groups) == 2


def test_averaged_weights_are_what_is_scored_and_kept(tmp_path, training):
    plain = training(tmp_path / "a", Classification(2, lr=0.5), max_epochs=4)
    averaged = training(tmp_path / "b", Classification(2, lr=0.5, recipe=Recipe(average=0.9)), max_epochs=4)
    found = []
    for estimator in (plain, averaged):
        torch.manual_seed(0)
        model = nn.Linear(2, 2)
        metrics = estimator(model, optuna.trial.FixedTrial({}))
        x, y = estimator.data.val
        loss = nn.functional.cross_entropy(model(x), y).item()
        assert metrics["val_loss"] == pytest.approx(loss, rel=1e-5)
        found.append(loss)
    assert found[0] != found[1]


@pytest.mark.parametrize(("options", "words"), [({"clip": 0}, "clip=0"), ({"average": 1.0}, "average=1.0")])
def test_recipes_that_cannot_be(options, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**options)


def test_several_targets_with_a_loss_of_ones_own():
    def loss(output, y):
        return sum(nn.functional.mse_loss(output[name], y[name]) for name in y)

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 1), nn.Linear(2, 4)

        def forward(self, x):
            return {"a": self.a(x), "b": self.b(x)}

    from optnas.tasks import Supervised

    module = Supervised(Heads(), loss, {}, 0.1, 0.0)
    y = {"a": torch.zeros(40, 1), "b": torch.zeros(40, 4)}
    assert module.training_step((X, y), 0).item() > 0


def test_tasks_pickle_and_differ_by_their_arguments():
    from optnas.estimation.settings import describe

    assert describe(Regression()) == describe(Regression())
    assert describe(Regression()) != describe(Regression(recipe=Recipe(clip=1.0)))
    assert describe(Classification(3)) != describe(Classification(3, target="y"))


epochs: list[int] = []


class Interrupted(pl.Callback):
    def on_train_epoch_end(self, trainer, module):
        epochs.append(trainer.current_epoch)
        if len(epochs) == 3:
            raise KeyboardInterrupt


def test_a_recipe_goes_on_exactly_where_it_was_interrupted(tmp_path, training):
    task = Classification(2, lr=0.05, recipe=Recipe(average=0.9, schedule=Cosine(), clip=1.0))

    def network():
        seed_everything(0)
        return nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.2), nn.Linear(8, 2))

    whole = training(tmp_path / "a", task, max_epochs=6)(network(), optuna.create_study().ask())
    epochs.clear()
    estimator = training(tmp_path / "b", task, max_epochs=6, callbacks=[Interrupted()])
    trial = optuna.create_study().ask()
    with pytest.raises(KeyboardInterrupt):
        estimator(network(), trial)
    again = optuna.trial.Trial(trial.study, trial._trial_id)  # as whoever takes it over has it
    assert estimator(network(), again) == whole
    assert epochs == [0, 1, 2, 2, 3, 4, 5]
