"""One run for each trial, in an experiment of the study's name; a later attempt goes on in it."""

from __future__ import annotations

import pickle
from pathlib import Path

import optuna
import pytest
from torch import nn

from optnas import Classification, Digits, Objective, Training, create_study, optimize
from optnas.estimation.run import Run
from optnas.training.loggers import MLflow, TensorBoard, WandB
from optnas.trial import replay


def space(trial):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, trial.suggest_int("width", 4, 8)), nn.LazyLinear(10))


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two trials of two epochs with such a logger."""
    monkeypatch.chdir(tmp_path)

    def search(logger) -> optuna.Study:
        training = Training(
            Classification(10, lr=0.01), Digits(batch_size=256), monitor="val_acc", mode="max", max_epochs=2,
            logger=pickle.loads(pickle.dumps(logger)), log_every_n_steps=1,
        )  # fmt: skip
        objective = Objective(space, training)
        study = create_study(objective, study_name="a study", seed=0, pruner=optuna.pruners.NopPruner())
        optimize(study, objective, 2)
        return study

    return search


def test_tensorboard_has_a_folder_for_each_trial(searched) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    searched(TensorBoard("logs"))
    folders = sorted(Path("logs", "a_study").iterdir())
    assert [folder.name for folder in folders] == ["trial-0000", "trial-0001"]
    for folder in folders:
        events = EventAccumulator(str(folder)).Reload()
        assert len(events.Scalars("val_acc")) == 2
        assert "width" in (folder / "hparams.yaml").read_text()


@pytest.mark.filterwarnings("ignore")  # MLflow's own, of what it imports
def test_mlflow_has_a_run_for_each_trial_and_goes_on_in_it(searched) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed; pip install mlflow-skinny")
    logger = MLflow("sqlite:///mlflow.db")
    study = searched(logger)
    client = mlflow.MlflowClient("sqlite:///mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("a study").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["trial-0000", "trial-0001"]
    for run in runs:
        trial = study.trials[int(run.info.run_name[-4:])]
        assert run.data.params == {"width": str(trial.params["width"])}
        assert len(client.get_metric_history(run.info.run_id, "val_acc")) == 2
        assert run.info.status == "FINISHED"
    again = optuna.Trial(study, study.trials[1]._trial_id)  # as a later attempt would have it
    assert logger(again).run_id in {run.info.run_id for run in runs if run.info.run_name == "trial-0001"}


@pytest.mark.filterwarnings("ignore")  # as above, of W&B
def test_wandb_has_a_run_for_each_trial(searched) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is not installed; pip install wandb")
    searched(WandB(offline=True, folder="kept"))
    runs = sorted(Path("kept", "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    assert len({run.name.rpartition("-")[2] for run in runs}) == 2
    for run in runs:
        assert list(run.glob("run-*.wandb"))


@pytest.mark.parametrize("logger", [TensorBoard(), MLflow(), WandB()])
def test_a_training_beside_the_search_is_not_logged(logger, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert logger(Run.of(replay({}))) is False
    assert list(tmp_path.iterdir()) == []
