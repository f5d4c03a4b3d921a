"""A training begins with weights that others trained, says what fitted, and fails where nothing does."""

from __future__ import annotations

import logging
import pickle
from typing import ClassVar

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from optnas import Objective, best, create_study, optimize, record
from optnas.data import TensorData
from optnas.errors import SearchFailedError, WeightsError
from optnas.tasks import Classification
from optnas.training import Training
from optnas.training.pretrained import Pretrained


def network(width: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, width), nn.Linear(width, 2))


def space(trial):
    return network(trial.suggest_categorical("width", [4, 6]))


class Begin(pl.Callback):
    seen: ClassVar[list] = []

    def on_train_start(self, trainer, module):
        self.seen.append({name: t.clone() for name, t in module.model.state_dict().items()})


def search(tmp_path, pretrained, n_trials=2, name="s", **options):
    Begin.seen.clear()
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    data = TensorData((x, (x[:, 0] > 0).long()), batch_size=16)
    training = Training(
        Classification(2, lr=0.05), data, monitor="val_acc", mode="max", max_epochs=1, folder=tmp_path / name,
        pretrained=pretrained, callbacks=lambda trial: [Begin()], **options,
    )  # fmt: skip
    objective = Objective(space, training)
    study = create_study(objective, study_name=name, pruner=None, seed=0)
    optimize(study, objective, n_trials=n_trials, show_progress=False)
    return study, objective


def given() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return network().state_dict()


def test_what_fits_is_taken_and_told(tmp_path, caplog):
    weights = given()
    with caplog.at_level(logging.INFO, logger="optnas.training.pretrained"):
        study, _ = search(tmp_path, Pretrained(weights, "mine"))
    trials = study.trials
    assert {t.params["width"] for t in trials} == {4, 6}
    for trial, began in zip(trials, Begin.seen, strict=True):
        told = record.PRETRAINED.of(trial)
        assert told is not None
        whole = trial.params["width"] == 6
        for name, tensor in began.items():
            if weights[name].shape == tensor.shape:
                torch.testing.assert_close(tensor, weights[name])
        assert told["from"] == "mine"
        assert told["new_names"] == ([] if whole else ["2.weight", "2.bias", "3.weight"])
        assert told["unused_names"] == told["new_names"]
        assert (told["share"] == 1.0) == whole
        assert told["share"] == pytest.approx(1.0 if whole else (24 + 16 + 2) / (24 + 16 + 36 + 10))
        assert f"Trial {trial.number} begins with weights of mine: {told['loaded']} tensors" in caplog.text
        assert record.weights_in_words(trial) == "of mine"


def test_a_trial_with_given_weights_is_no_twin_of_one_without(tmp_path):
    _, plain = search(tmp_path, None, n_trials=1, name="plain")
    _, given_ = search(tmp_path, given(), n_trials=1, name="given")
    _, other = search(tmp_path, network().state_dict(), n_trials=1, name="other")
    _, again = search(tmp_path, given(), n_trials=1, name="again")
    assert len({plain.settings_hash, given_.settings_hash, other.settings_hash}) == 3
    assert again.settings_hash == given_.settings_hash
    assert given_.estimator.scores_given_weights


def test_the_winner_is_trained_anew_from_the_given_weights(tmp_path):
    study, objective = search(tmp_path, given())
    winner = best(study, objective)
    Begin.seen.clear()
    winner.retrain(1)
    name = "0.weight"
    torch.testing.assert_close(Begin.seen[0][name], given()[name])


def test_weights_of_another_study(tmp_path):
    first, objective = search(tmp_path, None, name="first")
    source = best(first, objective).trial.number
    study, _ = search(tmp_path, Pretrained.of_trial(first, source), name="second")
    told = record.PRETRAINED.of(study.trials[0])
    assert told is not None
    assert told["from"] == f"trial {source} of study first"
    with pytest.raises(WeightsError, match="has no weights of trial 99 here"):
        Pretrained.of_trial(first, 99)


def test_a_function_of_the_trial_may_give_none(tmp_path):
    study, _ = search(
        tmp_path, lambda trial: given() if trial.suggest_categorical("width", [4, 6]) == 6 else None
    )
    assert [record.PRETRAINED.of(t) is not None for t in study.trials] == [
        t.params["width"] == 6 for t in study.trials
    ]


def test_a_search_in_which_nothing_fits_stops_before_its_first_trial(tmp_path):
    with pytest.raises((WeightsError, SearchFailedError), match="nothing in it fits the network"):
        search(tmp_path, {"encoder.weight": torch.zeros(3, 3)})


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_file_is_read_where_it_is_needed(tmp_path, ending):
    path = tmp_path / f"weights.{ending}"
    if ending == "pt":
        torch.save({"epoch": 3, "state_dict": given()}, path)
    else:
        pytest.importorskip("safetensors.torch").save_file(given(), path)
    weights = Pretrained(path)
    assert weights.load(network()).share == 1.0
    copied = pickle.dumps(weights)
    assert len(copied) < 1000
    assert pickle.loads(copied).digest == Pretrained(given()).digest
    assert weights.name == path.name


@pytest.mark.parametrize("prefix", ["backbone.", "model.encoder."])
@pytest.mark.parametrize("of_model", [False, True])
def test_a_prefix_of_either_side_is_found(prefix, of_model):
    model = network()
    weights = {name if of_model else f"{prefix}{name}": tensor for name, tensor in given().items()}
    if of_model:
        for part in reversed(prefix.removesuffix(".").split(".")):
            model = nn.ModuleDict({part: model})
    loaded = Pretrained({**weights, "head.bias": torch.zeros(3)}).load(model)
    assert loaded.share == 1.0
    assert loaded.unused == ("head.bias",)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none.pt", "there is no such file"),
        (lambda folder: _written(folder, {"lr": 0.1}), "holds no state_dict"),
        (lambda folder: _garbage(folder), "cannot be read"),
        (lambda folder: {}, "there is no tensor in it"),
    ],
)
def test_what_holds_no_weights_is_refused(tmp_path, make, words):
    with pytest.raises(WeightsError, match=words):
        Pretrained(make(tmp_path)).load(network())


def _written(folder, content):
    torch.save(content, folder / "other.pt")
    return folder / "other.pt"


def _garbage(folder):
    (folder / "bad.pt").write_text("no weights")
    return folder / "bad.pt"
