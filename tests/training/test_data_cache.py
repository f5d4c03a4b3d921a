import copy
import subprocess
import sys
import textwrap

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from optnas.training.data_cache import DataCache
from optnas.trial import Draw


def test_data_of_the_trial_is_made_once_per_answer(points):
    made = []

    def data(trial):
        module = points()
        module.name = trial.suggest_categorical("kind", ["a", "b"])
        if module.name == "b":
            module.name += trial.suggest_categorical("detail", ["x", "y"])
        made.append(module.name)
        return module

    cache = DataCache(data)
    for answers in ({"kind": "a"}, {"kind": "b", "detail": "x"}) * 3:
        trial = Draw(lambda name, distribution, answers=answers: answers[name])
        assert cache(trial).name == "".join(answers.values())
        assert trial.params == answers
    assert made == ["a", "bx"]
    cache(Draw(lambda name, distribution: {"kind": "b", "detail": "y"}[name]))
    assert made == ["a", "bx", "by"]


def test_data_is_set_up_once_per_process(tmp_path, points, training, search):
    calls = []

    class Counted(pl.LightningDataModule):
        def prepare_data(self):
            calls.append("prepare")

        def setup(self, stage):
            calls.append(stage)
            self.digits = points()

        def teardown(self, stage):
            calls.append("teardown")

        def train_dataloader(self):
            return self.digits.train_dataloader()

        def val_dataloader(self):
            return self.digits.val_dataloader()

        def test_dataloader(self):
            return self.digits.test_dataloader()

    estimator = training(tmp_path, data=Counted())
    study = search(estimator, n_trials=3)
    assert calls == ["prepare", "fit"]
    estimator.test(nn.Linear(2, 2), study, study.trials[0])
    assert calls == ["prepare", "fit", "test"]


def test_another_process_loads_by_itself_and_once(points):
    loaded = []

    def data(trial):
        loaded.append(1)
        return points()

    cache = DataCache(data)
    trial = Draw(lambda name, distribution: None)
    cache(trial)
    other = copy.copy(cache)  # by what pickles it, too
    assert other(trial) is other(trial)
    assert sum(loaded) == 2


def test_a_given_module_is_not_touched(points):
    given = points()
    before = dict(vars(given))
    assert DataCache(given)(Draw(lambda name, distribution: None)) is not given
    assert vars(given) == before


@pytest.mark.parametrize("data", [(torch.zeros(3, 2), torch.zeros(3)), torch.utils.data.DataLoader([1, 2])])
def test_what_is_no_data_module_is_refused_with_what_to_do(data):
    with pytest.raises(TypeError, match="TensorData"):
        DataCache(data)


PREPARING = """
    import os, sys, time
    import pytorch_lightning as pl
    from optnas.training.data_cache import DataCache

    class Downloaded(pl.LightningDataModule):
        def prepare_data(self):
            if not os.path.exists("data"):
                os.mkdir("downloading")
                time.sleep(0.5)
                os.rename("downloading", "data")

    print("ready", flush=True)
    sys.stdin.readline()
    DataCache(Downloaded())(None)
"""


def test_processes_prepare_data_one_at_a_time(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(PREPARING)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=tmp_path, **pipes) for _ in range(2)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
