"""A child begins with its parent's weights, says so, and is trained anew before it is called the best."""

from __future__ import annotations

import logging
import os
import signal
from typing import ClassVar

import optuna
import pytest
import pytorch_lightning as pl
import torch
from optuna.trial import create_trial
from torch import nn

from optnas import Objective, RegularizedEvolutionSampler, best, create_study, optimize, private, record
from optnas.analysis.leaderboard import leaderboard
from optnas.data import TensorData
from optnas.estimation.run import Run
from optnas.launch.launcher import LocalProcesses
from optnas.record import PARENT
from optnas.search import counts
from optnas.tasks import Classification
from optnas.training import Training
from optnas.training.checkpoints import load_snapshot, tidy, weights_path
from optnas.training.inheritance import PERTURB, SHRINK
from optnas.trial import replay


def space(trial):
    width = trial.suggest_categorical("width", [4, 6])
    rate = trial.suggest_categorical("dropout", [0.0, 0.1, 0.2, 0.3, 0.4])
    return nn.Sequential(
        nn.Linear(2, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, width),
        nn.Dropout(rate),
        nn.Linear(width, 2),
    )


class Begin(pl.Callback):
    """The weights with which each training begins, by the model's own names."""

    seen: ClassVar[list] = []
    interrupts = False  # Ctrl-C once, in the second epoch of the fourth training

    def on_train_start(self, trainer, module):
        self.seen.append({name: t.clone() for name, t in module.model.state_dict().items()})

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if Begin.interrupts and len(self.seen) == 4 and (trainer.current_epoch, batch_idx) == (1, 2):
            Begin.interrupts = False
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _nothing_seen():
    Begin.seen.clear()


def points():
    x = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
    return TensorData((x, (x[:, 0] > 0).long()), batch_size=16)


def search(tmp_path, inherit, n_trials=6, study=None, **options):
    settings = {"keep": 20, "max_epochs": 2, "folder": tmp_path / "runs", **options}
    training = Training(
        Classification(2, lr=0.05), points(), monitor="val_acc", mode="max", inherit=inherit,
        callbacks=lambda trial: [Begin()], **settings,
    )  # fmt: skip
    objective = Objective(space, training)
    sampler = RegularizedEvolutionSampler(population_size=2, tournament_size=1, seed=0)
    study = study or create_study(objective, study_name="s", sampler=sampler, pruner=None, seed=0)
    optimize(study, objective, n_trials=n_trials, show_progress=False)
    return study, objective


@pytest.mark.parametrize(("how", "old", "new"), [("exact", 1.0, 0.0), ("shrink_perturb", SHRINK, PERTURB)])
def test_a_child_begins_with_its_parents_weights_where_they_match(tmp_path, how, old, new):
    study, objective = search(tmp_path, how)
    assert (SHRINK, PERTURB) == (0.4, 0.1)
    trials = [trial for trial in study.trials if counts(trial)]
    children = [trial for trial in trials if record.WEIGHTS.of(trial)]
    assert [record.WEIGHTS.of(trial) for trial in trials[:2]] == [None, None]  # the first have no parents
    assert len(children) == len(trials) - 2 >= 3
    kinds = set()
    for trial, began in zip(trials, Begin.seen, strict=True):
        found = record.WEIGHTS.of(trial)
        if found is None:
            continue
        assert found["from"] == record.PARENT.of(trial)
        parent = study.trials[found["from"]]
        kept = load_snapshot(study, parent).weights
        torch.manual_seed(record.SEED.of(trial))
        fresh = objective.build(trial)
        parameters = dict(fresh.named_parameters())
        taken = 0
        for name, tensor in fresh.state_dict().items():
            if kept[name].shape != tensor.shape:
                expected = tensor
            elif name in parameters:
                expected = old * kept[name] + new * tensor
                taken += tensor.numel()
            else:
                expected = kept[name]
            torch.testing.assert_close(began[name], expected)
        assert found["share"] == taken / sum(p.numel() for p in parameters.values())
        assert (found["share"] == 1) == (trial.params["width"] == parent.params["width"])
        kinds.add(found["share"])
    assert len(kinds) > 1, "no child had another width"


def test_the_epochs_of_a_whole_lineage_are_its_cost(tmp_path):
    study, _ = search(tmp_path, "exact")
    for trial in filter(counts, study.trials):
        source = record.WEIGHTS.of(trial)
        before = 0 if source is None else record.EPOCHS.of(study.trials[source["from"]])
        assert record.EPOCHS.of(trial) == before + 2


def test_without_inherit_every_trial_begins_anew(tmp_path):
    study, _ = search(tmp_path, None, n_trials=4)
    assert {record.EPOCHS.of(trial) for trial in study.trials if counts(trial)} == {2}
    assert all(record.WEIGHTS.of(trial) is None for trial in study.trials)


def test_equal_networks_of_other_histories_are_no_twins(tmp_path):
    study, _ = search(tmp_path, "exact", n_trials=2)
    study.enqueue_trial(study.trials[0].params)
    search(tmp_path, "exact", n_trials=3, study=study)
    assert record.FINGERPRINT.of(study.trials[2]) == record.FINGERPRINT.of(study.trials[0])
    assert record.TWIN_OF.of(study.trials[2]) is None


def test_a_child_whose_parents_weights_are_gone_begins_anew_and_says_so(tmp_path, caplog):
    study, _ = search(tmp_path, "exact", n_trials=2)
    for file in (tmp_path / "runs").rglob("weights.pt"):
        file.unlink()
    with caplog.at_level(logging.WARNING, logger="optnas"):
        search(tmp_path, "exact", n_trials=3, study=study)
    trial = study.trials[-1]
    assert record.PARENT.of(trial) is not None
    assert record.WEIGHTS.of(trial) is None
    assert record.EPOCHS.of(trial) == 2
    assert "begins with new weights" in caplog.text


def test_the_winner_is_trained_anew_before_it_is_called_the_best(tmp_path):
    study, objective = search(tmp_path, "exact")
    trials = [trial for trial in study.trials if trial.values]
    others = optuna.create_study(study_name="inherited", direction="maximize")
    record.SEED.write(others, 0)
    for trial in trials:
        others.add_trial(trial if record.WEIGHTS.of(trial) else _worse(trial))
    winner = best(others, objective, n_seeds=2)
    [row] = leaderboard(others, 1)
    assert row.weights.startswith("of trial")
    assert winner.trial.number == row.trial
    assert record.retrained(others, winner.trial.number, None) == winner.retrain(2)
    assert best(study, objective).trial.number == 0  # trained from scratch
    assert record.all_retrained(study) == []


def _worse(trial):
    return create_trial(value=0.0, params=trial.params, distributions=trial.distributions)


def test_a_child_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path):
    whole, _ = search(tmp_path / "whole", "shrink_perturb", n_trials=4)
    Begin.seen.clear()
    cut, _ = search(tmp_path / "cut", "shrink_perturb", n_trials=3)
    Begin.interrupts = True
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "cut", "shrink_perturb", n_trials=4, study=cut)
    assert not Begin.interrupts
    search(tmp_path / "cut", "shrink_perturb", n_trials=4, study=cut)
    assert record.WEIGHTS.of(cut.trials[3])
    assert len(record.attempts(cut.trials[3])) == 2
    for one, other in zip(whole.trials, cut.trials, strict=True):
        assert one.intermediate_values == other.intermediate_values
        for name in (record.WEIGHTS, record.EPOCHS):
            assert name.of(one) == name.of(other)
        found, expected = (load_snapshot(study, study.trials[one.number]).weights for study in (cut, whole))
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())


class Kill(pl.Callback):
    """Kill -9 of the process that runs it, once, in the second epoch."""

    def __init__(self, number, folder):
        self.number, self.done = number, folder / "killed"

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if self.number == 3 and (trainer.current_epoch, batch_idx) == (1, 2) and not self.done.exists():
            self.done.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_child_whose_process_was_killed_ends_as_if_it_had_not_been(tmp_path):
    studies = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "whole":
            (folder / "killed").touch()
        training = Training(
            Classification(2, lr=0.05), points(), monitor="val_acc", mode="max", inherit="net2net",
            max_epochs=2, keep=20, folder=folder / "runs",
            callbacks=lambda trial, folder=folder: [Kill(trial.number, folder)],
        )  # fmt: skip
        objective = Objective(space, training)
        sampler = RegularizedEvolutionSampler(population_size=2, tournament_size=1, seed=0)
        storage = f"sqlite:///{folder}/s.db"
        study = create_study(objective, study_name="s", storage=storage, sampler=sampler, pruner=None, seed=0)
        workers = LocalProcesses(1) if name == "killed" else None
        optimize(study, objective, n_trials=5, workers=workers, show_progress=False)
        studies.append(study)
    whole, killed = studies
    assert [a.get("how") for a in record.attempts(killed.trials[3])].count("killed") == 1
    assert record.WEIGHTS.of(killed.trials[3])
    assert record.EPOCHS.of(killed.trials[3]) == 2 + record.EPOCHS.of(
        killed.trials[PARENT.of(killed.trials[3])]
    )
    for one, other in zip(whole.trials, killed.trials, strict=True):
        assert (one.params, one.intermediate_values) == (other.params, other.intermediate_values)
        for key in (record.WEIGHTS, record.EPOCHS):
            assert key.of(one) == key.of(other)
        found, expected = (
            load_snapshot(study, study.trials[one.number]).weights for study in (killed, whole)
        )
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_weights_of_a_parent_are_kept_while_its_child_is_under_way(tmp_path):
    study, _ = search(tmp_path, "exact", n_trials=3)
    parent = record.PARENT.of(study.trials[2])
    waiting = study.ask()
    private.set_system_attr(study, private.stored(waiting), record.PARENT.name, parent)
    tidy(study, keep=0)
    kept = {number for number in range(3) if weights_path(study, number) is not None}
    assert kept == {parent}


def test_a_training_anew_inherits_nothing(tmp_path):
    study, objective = search(tmp_path, "exact", n_trials=3)
    child = study.trials[-1]
    assert record.WEIGHTS.of(child)
    run = Run.of(replay(child.params))
    torch.manual_seed(1)
    model = objective.build(child)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    objective.estimator(model, run)
    assert all(torch.equal(Begin.seen[-1][name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inherit": "half"}, "inherit='half': give 'exact' or"),
        ({"inherit": "exact", "keep": 0}, "keep=0 keeps none"),
        ({"inherit": "shrink_perturb", "pretrained": nn.Linear(2, 2)}, "leave one of them out"),
    ],
)
def test_what_cannot_work_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Training(Classification(2), points(), monitor="val_acc", mode="max", max_epochs=1, **options)
