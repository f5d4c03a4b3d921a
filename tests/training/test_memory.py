import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import nn

from optnas import record


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        MemoryError(),
    ],
)
def test_out_of_memory_is_a_violated_constraint(tmp_path, error, training, search):
    class Large(nn.Linear):
        def forward(self, x):
            raise error

    study = search(training(tmp_path), space=lambda trial: Large(2, 2))
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert trial.constraints == {"memory": 1.0}
    assert record.end(trial) is record.End.INFEASIBLE
    assert "out of memory" in record.why(trial)


def test_real_exhaustion_of_the_allocator_is_recognized(tmp_path, training, search):
    class Large(nn.Linear):
        def forward(self, x):
            return super().forward(x) + torch.empty(2**60).sum()

    assert search(training(tmp_path), space=lambda trial: Large(2, 2)).trials[0].constraints == {
        "memory": 1.0
    }


@pytest.mark.parametrize(
    "sampler",
    [
        optuna.samplers.TPESampler(seed=0, n_startup_trials=3),
        optuna.samplers.GPSampler(seed=0, n_startup_trials=3),
        optuna.samplers.NSGAIISampler(seed=0, population_size=3),
    ],
)
def test_samplers_bear_trials_with_and_without_the_memory_constraint(tmp_path, sampler, training, search):
    class Wide(nn.Linear):
        def forward(self, x):
            if self.width > 6:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    def space(trial):
        model = Wide(2, 2)
        model.width = trial.suggest_int("width", 1, 9)
        return model

    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner())
    search(training(tmp_path, max_epochs=1), n_trials=10, space=space, study=study)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_errors_in_code_are_not_out_of_memory(tmp_path, training, search):
    class Broken(nn.Linear):
        def forward(self, x):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    study = search(training(tmp_path), space=lambda trial: Broken(2, 2), catch=RuntimeError)
    assert study.trials[0].state == TrialState.FAIL
