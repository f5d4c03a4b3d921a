"""A space grows: what is carried must be exactly what was trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.pruners import NopPruner
from optuna.trial import TrialState
from torch import nn

from optnas import record
from optnas.data import TensorData
from optnas.errors import ChoicesError, ParamsMismatchError
from optnas.estimation.folders import study_folder
from optnas.export import to_torch_export
from optnas.objective import Objective
from optnas.reports.report import report
from optnas.search.best import best
from optnas.search.carry import half_made
from optnas.search.extend import extend
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.space.nodes import Choice
from optnas.tasks import Classification
from optnas.training import Training
from optnas.trial import Trial

Space = Callable[[Trial], nn.Module]
ACTS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def mlp(acts: Sequence[str] = ("relu", "tanh"), high: int = 8, ask: str = "", **changed: Any) -> Space:
    """A space of which each argument changes one thing."""

    def space(trial: Trial) -> nn.Module:
        width = trial.suggest_int("width", 4, high)
        act = ACTS[changed.get(name := trial.suggest_categorical("act", list(acts)), name)]()
        if ask == "bias":
            bias = trial.suggest_categorical("bias", [True, False])
        if ask == "useless":
            trial.suggest_categorical("useless", ["a", "b"])
        bias = bias if ask == "bias" else True
        return nn.Sequential(nn.Linear(3, width, bias=bias), act, nn.Linear(width, 2))

    return space


def size(model: nn.Module, trial: Any) -> dict[str, float]:
    """Scored without training."""
    trial.report(0.5, 0)
    return {"size": sum(p.numel() for p in model.parameters()) + trial.suggest_float("lr", 0.0, 1.0)}


def objective(space: Space, **options: Any) -> Objective:
    return Objective(space, size, values={"size": "minimize"}, example=(2, 3), **options)


def searched(space: Space, n_trials: int = 12, storage: str | None = None) -> optuna.Study:
    study = create_study(objective(space), study_name="old", seed=3, storage=storage)
    optimize(study, objective(space), n_trials=n_trials)
    return study


def comparable(trial: optuna.trial.FrozenTrial) -> Any:
    attrs = {k: v for k, v in trial.user_attrs.items() if k != record.CARRIED.name}
    times = trial.datetime_start, trial.datetime_complete
    return trial.state, trial.values, trial.params, trial.intermediate_values, attrs, trial.constraints, times


@pytest.mark.parametrize("url", [None, "sqlite:///{}/s.db"])
def test_a_candidate_more_keeps_all_trials_as_they_were(url: str | None, tmp_path: Path) -> None:
    study = searched(mlp(), storage=url and url.format(tmp_path))
    wider = objective(mlp(("relu", "tanh", "gelu"), high=16))
    extension = extend(study, wider, study_name="new")
    new = extension.study
    assert extension.left == extension.unproven == {}
    assert [*map(comparable, new.trials)] == [*map(comparable, study.trials)]
    assert {t.distributions["act"].choices for t in new.trials} == {("relu", "tanh", "gelu")}  # type: ignore[attr-defined]
    assert {t.distributions["width"].high for t in new.trials} == {16}  # type: ignore[attr-defined]
    carried = record.CARRIED.of(new.trials[5])
    assert carried is not None
    assert (carried["study"], carried["number"]) == ("old", 5)
    assert record.SEED.of(new) == record.SEED.of(study)  # which splits the data
    assert best(new, wider).params == best(study, objective(mlp())).params

    before = record.n_counted(study.trials)
    optimize(new, wider, n_trials=before + 15)
    assert record.n_counted(new.trials) == before + 15
    assert "gelu" in {trial.params["act"] for trial in new.trials}
    assert record.n_counted(study.trials) == before


def test_a_trial_whose_network_is_built_otherwise_now_is_left_behind() -> None:
    study = searched(mlp())
    extension = extend(study, objective(mlp(relu="gelu")), study_name="new")  # "relu" makes a GELU now
    n_relu = {trial.number for trial in study.trials if trial.params["act"] == "relu"}
    assert n_relu
    assert extension.left.keys() == n_relu
    assert all("builds another network" in why for why in extension.left.values())
    assert {trial.params["act"] for trial in extension.study.trials} == {"tanh"}


def test_a_new_decision_needs_the_answer_that_rebuilds_the_old_networks() -> None:
    study = searched(mlp())
    asked = objective(mlp(ask="bias"))
    with pytest.raises(ParamsMismatchError, match=r"not asked 'bias'.*defaults=\{'bias': ...\}"):
        extend(study, asked, study_name="none")
    with pytest.raises(ParamsMismatchError, match="builds another network"):
        extend(study, asked, study_name="none", defaults={"bias": False})
    with pytest.raises(ValueError, match=r"'bias': 7\}: that is not a possible answer"):
        extend(study, asked, study_name="none", defaults={"bias": 7})
    with pytest.raises(ValueError, match="'bais', which the space does not ask"):
        extend(study, asked, study_name="none", defaults={"bias": True, "bais": True})
    assert optuna.get_all_study_names(study._storage) == ["old"]

    extension = extend(study, asked, study_name="new", defaults={"bi*": True})
    assert not extension.left
    assert all(trial.params["bias"] is True for trial in extension.study.trials)
    assert (record.CARRIED.of(extension.study.trials[0]) or {})["answers"] == {"bias": True}
    optimize(extension.study, asked, n_trials=20)
    assert False in {trial.params["bias"] for trial in extension.study.trials}


def test_a_decision_that_is_gone_may_go_where_the_network_is_the_same() -> None:
    study = searched(mlp(ask="useless"))
    extension = extend(study, objective(mlp()), study_name="new")
    assert len(extension.carried) == len(study.trials)
    assert all("useless" not in trial.params and "lr" in trial.params for trial in extension.study.trials)

    study = searched(mlp(ask="bias"))
    extension = extend(study, objective(mlp()), study_name="new")
    assert {trial.number for trial in study.trials if not trial.params["bias"]} == extension.left.keys()


def test_a_candidate_that_may_have_been_renamed_is_refused_and_one_that_is_gone_is_not() -> None:
    study = searched(mlp())
    with pytest.raises(ChoicesError, match=r"'act' offers .*tanh.* no more"):
        extend(study, objective(mlp(("relu", "gelu"))), study_name="new")
    extension = extend(study, objective(mlp(("relu",), high=6)), study_name="new")
    fit = [t.number for t in study.trials if t.params["act"] == "relu" and t.params["width"] <= 6]
    assert [*extension.carried] == fit
    assert "left behind: trial" in str(extension).lower()


def test_other_settings_are_left_behind_unless_they_are_vouched_for() -> None:
    study = searched(mlp())

    def twice(model: nn.Module, trial: Any) -> dict[str, float]:
        return {"size": 2 * size(model, trial)["size"]}

    other = Objective(mlp(), twice, values={"size": "minimize"}, example=(2, 3))
    with pytest.raises(ParamsMismatchError, match="its data, task or estimator differ"):
        extend(study, other, study_name="new")
    extension = extend(study, other, study_name="new", other_settings=True)
    assert len(extension.carried) == len(study.trials)
    with pytest.raises(ParamsMismatchError, match="began with no limits"):
        extend(study, objective(mlp(), limits={"n_params": 10}), study_name="limited")


def test_what_has_not_finished_failed_or_follows_another_is_left_behind_and_numbers_close_up() -> None:
    study = searched(mlp(), 4)
    trial = study.trials[1]
    twin = {**trial.user_attrs, record.TWIN_OF.name: trial.number}

    def another(state: TrialState, attrs: dict[str, Any], act: str = trial.params["act"]) -> None:
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=trial.value if state == TrialState.COMPLETE else None,
                params={**trial.params, "act": act},
                distributions=trial.distributions,
                user_attrs=attrs,
            )
        )

    n = len(study.trials)
    another(TrialState.FAIL, {})
    another(TrialState.COMPLETE, twin)
    another(TrialState.WAITING, {})
    another(TrialState.COMPLETE, {**twin, record.TWIN_OF.name: n + 2})
    extension = extend(study, objective(mlp(("relu", "tanh", "gelu"))), study_name="new")
    assert extension.left == {
        n: "it failed",
        n + 2: "it has not finished",
        n + 3: f"it has the value of trial {n + 2}, which was left behind",
    }
    assert extension.carried[n + 1] == n
    assert record.TWIN_OF.of(extension.study.trials[n]) == 1


def test_networks_that_cannot_be_traced_are_carried_with_a_word() -> None:
    class Odd(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.layer = nn.Linear(3, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) if float(x.sum()) < 1e9 else x

    def odd(high: int, ask: bool = False) -> Space:
        def space(trial: Trial) -> nn.Module:
            if ask:
                trial.suggest_categorical("useless", ["a", "b"])
            return Odd(trial.suggest_int("width", 1, high))

        return space

    study = searched(odd(4, ask=True), 3)
    extension = extend(study, objective(odd(8, ask=True)), study_name="new")
    assert set(extension.unproven.values()) == {"it has no fingerprint"}
    assert "nobody can tell" in str(extension)
    with pytest.raises(ParamsMismatchError, match="nobody can tell whether it is the same network without"):
        extend(study, objective(odd(8)), study_name="other")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[optuna.Study, Training]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 3, generator=generator)
    data = TensorData((x, (x[:, 0] > x[:, 1]).long()), batch_size=50)
    folder = tmp_path_factory.mktemp("trained")
    training = Training(
        Classification(2, lr=(1e-3, 1e-1)), data, monitor="val_acc", mode="max", max_epochs=2,
        folder=folder / "files", keep=2,
    )  # fmt: skip
    url = f"sqlite:///{folder}/s.db"
    own = Objective(mlp(), training)
    study = create_study(own, study_name="old", storage=url, pruner=NopPruner(), seed=1)
    optimize(study, own, n_trials=5)
    return study, training


def test_weights_curves_and_trainings_anew_come_along(
    trained: tuple[optuna.Study, Training], tmp_path: Path
) -> None:
    study, training = trained
    before, own = best(study, Objective(mlp(), training)), Objective(mlp(("relu", "tanh", "gelu")), training)
    runs = before.retrain(1)
    new = extend(study, own, study_name="new", pruner=NopPruner()).study
    after = best(new, own)
    assert after.value == before.value
    assert after.test() == before.test()
    assert after.retrain(1) == runs
    x = torch.rand(4, 3)
    assert torch.equal(after.model()(x), before.model()(x))
    assert to_torch_export(after.model(), (2, 3), tmp_path / "best.pt2").exists()
    assert report(new, tmp_path / "report.html", own).stat().st_size > 1000
    assert study_folder(new) != study_folder(study)
    kept = {t.number for t in study.trials if training.has_trained(study, t)}
    assert {t.number for t in new.trials if training.has_trained(new, t)} == kept
    optimize(new, own, n_trials=8)
    assert study_folder(new).name == "files-2"  # where its first training would have looked
    assert {t.number for t in study.trials if training.has_trained(study, t)} == kept


def test_weights_that_do_not_fit_are_left_out_and_told(trained: tuple[optuna.Study, Training]) -> None:
    study, training = trained

    def renamed(trial: Trial) -> nn.Module:
        model = mlp()(trial)
        return nn.Sequential(nn.Sequential(model[0], model[1]), model[2])  # type: ignore[index]

    own = Objective(renamed, training)
    extension = extend(study, own, study_name="renamed")
    n_kept = sum(training.has_trained(study, t) for t in study.trials)
    assert len(extension.without_weights) == n_kept > 0
    assert not any(training.has_trained(extension.study, t) for t in extension.study.trials)
    assert len(best(extension.study, own).retrain(1)) == 1


def test_an_extension_that_was_interrupted_is_finished_by_the_same_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = searched(mlp(), 8, f"sqlite:///{tmp_path}/s.db")
    wider, n_added = objective(mlp(("relu", "tanh", "gelu"))), 0
    add = optuna.Study.add_trial

    def interrupted(self: optuna.Study, trial: Any) -> None:
        nonlocal n_added
        n_added += 1
        if n_added == 4:
            raise KeyboardInterrupt
        add(self, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extend(study, wider, study_name="new")
    half = optuna.load_study(study_name="new", storage=study._storage)
    assert len(half.trials) == 3
    assert half_made(half) == "old"
    with pytest.raises(ParamsMismatchError, match="is being made from study 'old'"):
        optimize(half, wider, n_trials=20)
    extension = extend(study, wider, study_name="new")
    assert [*map(comparable, extension.study.trials)] == [*map(comparable, study.trials)]
    with pytest.raises(ParamsMismatchError, match="there is a study of that name"):
        extend(study, wider, study_name="new")


def test_an_extension_can_be_extended() -> None:
    study = searched(mlp(("relu",)), 4)
    second = extend(study, objective(mlp(("relu", "tanh"))), study_name="second").study
    third = extend(second, objective(mlp(("relu", "tanh", "gelu"))), study_name="third").study
    carried = record.CARRIED.of(third.trials[2]) or {}
    assert (carried["study"], carried["before"]["study"]) == ("second", "old")


def test_nodes_grow() -> None:
    def of(*names: str) -> Space:
        widths = {"small": 4, "large": 16, "huge": 64}
        return Choice("size", {name: lambda trial, w=widths[name]: nn.Linear(3, w) for name in names})

    study = searched(of("small", "large"), 2)
    assert not extend(study, objective(of("small", "large", "huge")), study_name="new").left
