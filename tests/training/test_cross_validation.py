"""Each fold is a training of its own; the trial sees folds as steps."""

import statistics

import optuna
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from optnas import CrossValidation, Objective, TensorData, best, create_study, optimize, record
from optnas.estimation.run import Run
from optnas.record import End
from optnas.seeds import seed_everything
from optnas.tasks import Classification
from optnas.training import Training

K = 5


def points(n=125, **options):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 2, generator=generator)
    y = (x[:, 0] + 0.5 * torch.randn(n, generator=generator) > 0).long()
    return TensorData((x, y), batch_size=16, **options)


def on(data, tmp_path, **options):
    return Training(
        Classification(2, lr=0.05), data, monitor="val_loss", mode="min",
        **{"max_epochs": 2, "folder": tmp_path / "runs", **options},
    )  # fmt: skip


def network(seed=3):
    seed_everything(seed)
    return nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.2), nn.Linear(8, 2))


def test_the_folds_are_those_of_trainings_by_hand(tmp_path):
    data = points()
    by_hand = [
        on(data.fold(i, K), tmp_path)(network(), optuna.trial.FixedTrial({}))["val_loss"] for i in range(K)
    ]
    metrics = CrossValidation(on(data, tmp_path), K)(network(), optuna.trial.FixedTrial({}))
    assert [metrics[f"val_loss_fold_{i}"] for i in range(K)] == by_hand
    assert len(set(by_hand)) == K
    assert metrics["val_loss"] == pytest.approx(statistics.fmean(by_hand))
    assert metrics["val_loss_std"] == pytest.approx(statistics.stdev(by_hand))


def test_the_metrics_of_an_estimate_are_foreseen(tmp_path):
    estimator = CrossValidation(on(points(), tmp_path, max_epochs=1), 2)
    foreseen = estimator.preview(network(), Run.of(optuna.trial.FixedTrial({}))).metrics
    assert foreseen >= estimator(network(), optuna.trial.FixedTrial({})).keys()
    assert "val_acc_std" in foreseen


def test_repeats_divide_anew(tmp_path):
    metrics = CrossValidation(on(points(), tmp_path, max_epochs=1), 2, repeats=2)(
        network(), optuna.trial.FixedTrial({})
    )
    assert len({metrics[f"val_loss_fold_{i}"] for i in range(4)}) == 4


def test_a_fold_is_a_step_at_which_the_pruner_may_say_no(tmp_path):
    class AfterTwo(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1 and trial.last_step == 1

    estimator = CrossValidation(on(points(), tmp_path), K)
    study = optuna.create_study(direction="minimize", pruner=AfterTwo())
    objective = Objective(
        lambda trial: nn.Linear(2, trial.suggest_int("n", 2, 2)), estimator, reuse_twins=False
    )
    study.optimize(objective, n_trials=2)
    complete, pruned = study.trials
    assert complete.value == pytest.approx(record.metrics(complete)["val_loss"])
    assert sorted(complete.intermediate_values) == [0, 1, 2, 3]
    folds = [record.metrics(complete)[f"val_loss_fold_{i}"] for i in range(K)]
    assert complete.intermediate_values[2] == pytest.approx(statistics.fmean(folds[:3]))
    assert record.end(pruned) is End.PRUNED
    assert sorted(pruned.intermediate_values) == [0, 1]
    assert "fold 2 of 5" in record.why(pruned)


epochs: list[int] = []


class Interrupted(pl.Callback):
    def on_train_epoch_end(self, trainer, module):
        epochs.append(trainer.current_epoch)
        if len(epochs) == 6:  # in the second epoch of the third fold
            raise KeyboardInterrupt


def test_an_interrupted_trial_goes_on_in_its_fold(tmp_path):
    whole = CrossValidation(on(points(), tmp_path / "a"), K)(network(), optuna.create_study().ask())
    epochs.clear()
    estimator = CrossValidation(on(points(), tmp_path / "b", callbacks=[Interrupted()]), K)
    trial = optuna.create_study(direction="minimize").ask()
    with pytest.raises(KeyboardInterrupt):
        estimator(network(), trial)
    again = optuna.trial.Trial(trial.study, trial._trial_id)  # as whoever takes it over has it
    assert estimator(network(), again) == whole
    assert epochs == [0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1]


def test_a_search_with_folds_has_a_best_network(tmp_path):
    def space(trial):
        return nn.Sequential(nn.Linear(2, trial.suggest_int("width", 2, 9)), nn.ReLU(), nn.LazyLinear(2))

    objective = Objective(space, CrossValidation(on(points(), tmp_path, max_epochs=1), 3))
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=3)
    winner = best(study, objective)
    assert winner.value == min(trial.value for trial in study.trials)
    assert winner.model()(torch.zeros(4, 2)).shape == (4, 2)
    assert 0 <= winner.test()["test_acc"] <= 1
    [again] = winner.retrain(1)
    assert {"val_loss", "val_loss_std", "test_acc", "test_acc_std"} <= again.keys()
    assert not list(tmp_path.rglob("epoch-*.ckpt"))


def test_settings_tell_folds_and_data_apart(tmp_path):
    settings = [
        CrossValidation(on(points(), tmp_path), 2).settings,
        CrossValidation(on(points(), tmp_path), 3).settings,
        CrossValidation(on(points(seed=1), tmp_path), 2).settings,
        CrossValidation(on(points(), tmp_path), 2, repeats=2).settings,
        CrossValidation(on(points(), tmp_path, max_epochs=3), 2).settings,
    ]
    assert all(a != b for i, a in enumerate(settings) for b in settings[:i])
    assert CrossValidation(on(points(), tmp_path), 2).settings == settings[0]


def test_data_may_depend_on_the_trial(tmp_path):
    def data(trial):
        return points(val=trial.suggest_categorical("val", [0.2, 0.3]))

    estimator = CrossValidation(on(data, tmp_path, max_epochs=1), 2)
    assert estimator(network(), optuna.trial.FixedTrial({"val": 0.3}))["val_loss"] > 0


def test_what_cannot_be_divided_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"k=1"):
        CrossValidation(on(points(), tmp_path), 1)
    plain = pl.LightningDataModule.from_datasets(train_dataset=[1, 2], num_workers=0)
    with pytest.raises(TypeError, match=r"no method fold\(i, k, repeat\)"):
        CrossValidation(on(plain, tmp_path))


@pytest.mark.parametrize("inherit", [None, "exact"])
def test_folds_that_inherit_weights_have_no_twins(tmp_path, inherit):
    folds = CrossValidation(on(points(), tmp_path, inherit=inherit), 3)
    assert folds.scores_given_weights is (inherit is not None)
