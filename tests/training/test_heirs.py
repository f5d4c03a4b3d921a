"""A child goes on with its parent's training: epoch, optimizer and schedule."""

from __future__ import annotations

from typing import ClassVar

import pytest
import pytorch_lightning as pl
import torch
from optuna.trial import TrialState
from torch import nn

from optnas import Classification, Objective, TensorData, Training, best, create_study, optimize, record
from optnas.errors import SearchFailedError
from optnas.record import BORN, PARENT
from optnas.strategy import PopulationPruner
from optnas.tasks import Constant, Cosine, Recipe
from optnas.tasks.recipe import USUAL
from optnas.training.inheritance import PERTURB, SHRINK

EPOCHS = 4


def space(trial):
    return nn.Sequential(nn.Linear(2, trial.suggest_int("units", 4, 200)), nn.ReLU(), nn.LazyLinear(2))


class See(pl.Callback):
    """What each attempt begins with, and what each epoch leaves."""

    begun: ClassVar[list] = []
    left: ClassVar[dict] = {}
    interrupts: ClassVar[set] = set()

    def __init__(self, trial):
        self.number = trial.number

    def on_train_start(self, trainer, module):
        kept = {name: dict(trainer.optimizers[0].state[p]) for name, p in module.named_parameters()}
        self.begun.append((self.number, trainer.current_epoch, copied(kept), rates(trainer), weights(module)))

    def on_train_epoch_end(self, trainer, module):
        kept = {name: dict(trainer.optimizers[0].state[p]) for name, p in module.named_parameters()}
        self.left[self.number, trainer.current_epoch] = copied(kept), rates(trainer), weights(module)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if (self.number, trainer.current_epoch, batch_idx) in See.interrupts:
            See.interrupts.discard((self.number, trainer.current_epoch, batch_idx))
            raise KeyboardInterrupt


def rates(trainer):
    return [group["lr"] for group in trainer.optimizers[0].param_groups]


def weights(module):
    return {name: tensor.clone() for name, tensor in module.model.state_dict().items()}


def copied(kept):
    return {name: {k: v.clone() for k, v in state.items()} for name, state in kept.items()}


def search(folder, inherit="exact", study=None, n_trials=None, lr=(0.01, 0.1), recipe=USUAL):
    x = torch.randn(96, 2, generator=torch.Generator().manual_seed(0))
    data = TensorData((x, (x[:, 0] > 0).long()), batch_size=16)
    task = Classification(2, lr=lr, recipe=recipe)
    training = Training(
        task, data, monitor="val_loss", mode="min", max_epochs=EPOCHS, keep=9, folder=folder, inherit=inherit,
        callbacks=lambda trial: [See(trial)],
    )  # fmt: skip
    objective = Objective(space, training)
    population = PopulationPruner(size=4, every=2, mix=0.0)
    study = study or create_study(
        objective, sampler=population.sampler, pruner=population, seed=0, study_name="s"
    )
    optimize(
        study,
        objective,
        n_trials=population.trials(EPOCHS) if n_trials is None else n_trials,
        show_progress=False,
    )
    return study, objective


@pytest.fixture(autouse=True)
def _nothing_seen():
    See.begun.clear()
    See.left.clear()
    See.interrupts.clear()


def begun(trial):
    """Epoch, state of the optimizer, learning rates and weights with which its first attempt began."""
    return next(seen[1:] for seen in See.begun if seen[0] == trial.number)


@pytest.mark.parametrize("recipe", [USUAL, Recipe(torch.optim.SGD, schedule=Cosine())])
def test_a_child_goes_on_where_its_parent_is(tmp_path, recipe):
    study, _ = search(tmp_path, recipe=recipe)
    child = study.trials[4]
    parent = study.trials[PARENT.of(child)]
    assert child.params["units"] == parent.params["units"]
    assert child.params["lr"] != parent.params["lr"]
    epoch, kept, now, own = begun(child)
    before, rates_before, theirs = See.left[parent.number, 1]
    assert epoch == BORN.of(child) == 2
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in theirs.items())
    for name, state in before.items():
        assert kept[name].keys() == state.keys()
        assert all(torch.equal(kept[name][k], value) for k, value in state.items())
    scale = child.params["lr"] / parent.params["lr"]
    assert now == pytest.approx([rate * scale for rate in rates_before])
    # As far as the schedule goes, both end alike.
    assert See.left[child.number, 3][1] == pytest.approx([r * scale for r in See.left[parent.number, 3][1]])
    assert list(child.intermediate_values) == [2, 3]
    told = record.WEIGHTS.of(child)
    assert told == {"from": parent.number, "how": "exact", "share": 1.0, "epochs": 2}
    assert [record.EPOCHS.of(t) for t in study.trials if t.state == TrialState.COMPLETE] == [4] * 4


def test_without_a_schedule_the_learning_rate_is_its_own(tmp_path):
    study, _ = search(tmp_path, recipe=Recipe(schedule=Constant()))
    child = study.trials[4]
    assert begun(child)[2] == pytest.approx([child.params["lr"]] * 2)


def test_what_does_not_fit_begins_anew(tmp_path):
    study, _ = search(tmp_path, lr=0.05)
    child = study.trials[4]  # which differs in its width, since it would be a repeat
    parent = study.trials[PARENT.of(child)]
    assert child.params["units"] != parent.params["units"]
    _, kept, _, own = begun(child)
    before, _, theirs = See.left[parent.number, 1]
    assert {name for name, state in kept.items() if state} == {"model.2.bias"}
    assert torch.equal(kept["model.2.bias"]["exp_avg"], before["model.2.bias"]["exp_avg"])
    assert torch.equal(own["2.bias"], theirs["2.bias"])
    assert 0 < record.WEIGHTS.of(child)["share"] < 0.2


def test_weights_are_shrunk_and_perturbed_and_the_optimizer_is_not(tmp_path):
    study, objective = search(tmp_path, inherit="shrink_perturb")
    child = study.trials[4]
    before, _, theirs = See.left[PARENT.of(child), 1]
    _, kept, _, own = begun(child)
    torch.manual_seed(record.SEED.of(child))
    for name, fresh in objective.build(child).state_dict().items():
        torch.testing.assert_close(own[name], SHRINK * theirs[name] + PERTURB * fresh)
        assert torch.equal(kept[f"model.{name}"]["exp_avg"], before[f"model.{name}"]["exp_avg"])


def test_a_child_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path):
    whole, _ = search(tmp_path / "whole", inherit="shrink_perturb")
    survivor = next(t.number for t in whole.trials if t.state == TrialState.COMPLETE)
    for number, epoch, batch in ((4, 2, 1), (4, 3, 2), (survivor, 2, 0)):
        See.interrupts.add((number, epoch, batch))
        x = tmp_path / f"{number}-{epoch}"
        with pytest.raises(KeyboardInterrupt):
            search(x, inherit="shrink_perturb", study=(cut := fresh(x)))
        assert not See.interrupts
        search(x, inherit="shrink_perturb", study=cut)
        for one, other in zip(whole.trials, cut.trials, strict=True):
            assert one.params == other.params
            assert one.intermediate_values == other.intermediate_values
            assert record.WEIGHTS.of(one) == record.WEIGHTS.of(other)


def fresh(folder):
    """The study that `search` would make, with nothing in it."""
    return search(folder, inherit="shrink_perturb", n_trials=0)[0]


def test_a_winner_with_inherited_weights_is_trained_anew(tmp_path):
    study, objective = search(tmp_path)
    winner = best(study, objective, n_seeds=1)
    assert (record.WEIGHTS.of(winner.trial) is None) == (record.all_retrained(study) == [])


def test_a_training_that_inherits_nothing_is_refused(tmp_path):
    with pytest.raises(SearchFailedError, match="give it inherit='shrink_perturb'"):
        search(tmp_path, inherit=None)
