import copy
import random

import numpy as np
import optuna
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from optnas import record
from optnas.data.cache import DataCache
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


class Split(pl.LightningDataModule):
    """Splits at random, as most do, without a generator."""

    def prepare_data(self):
        self.downloaded = torch.rand(1)

    def setup(self, stage):
        x = torch.arange(300)
        self.kept, self.held_out = random_split(TensorDataset(x, x), [200, 100])
        self.shuffled = random.sample(range(100), 100), np.random.permutation(100).tolist()  # noqa: NPY002  # as users do

    def train_dataloader(self):
        return DataLoader(self.kept, batch_size=20)

    def val_dataloader(self):
        return DataLoader(self.held_out, batch_size=20)

    test_dataloader = val_dataloader


def drawn_from():
    numpy = np.random.get_state()  # noqa: NPY002  # the generator of users
    return random.getstate(), numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist()


def anything(name, distribution):
    return pytest.fail(f"asked {name}")


def test_a_random_split_is_the_same_in_every_process_of_a_study_and_costs_it_no_random_number():
    splits = []
    for process_seed, study in ((1, 7), (2, 7), (3, 8)):
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(process_seed)
        before = drawn_from()
        module = DataCache(Split())(Draw(anything), study)
        assert drawn_from() == before
        assert torch.initial_seed() == process_seed
        splits.append((module.held_out.indices, module.shuffled))
    assert splits[0] == splits[1]
    assert splits[0][0] != splits[2][0]
    assert splits[0][1][0] != splits[2][1][0]
    assert splits[0][1][1] != splits[2][1][1]


def test_the_split_does_not_depend_on_whether_preparing_had_something_to_do(tmp_path):
    class Downloading(Split):
        def prepare_data(self):
            if not (tmp_path / "data").exists():
                torch.save(torch.rand(10), tmp_path / "data")

    first, second = (DataCache(Downloading())(Draw(anything), 7).held_out.indices for _ in range(2))
    assert first == second


def test_every_stage_draws_the_same_split():
    module = DataCache(Split())(Draw(anything), 7)
    of_fit = set(module.kept.indices)
    module.setup("test")
    assert of_fit.isdisjoint(module.held_out.indices)


def test_data_that_a_function_makes_at_random_is_seeded_too():
    def data(trial):
        x = torch.rand(50)
        module = pl.LightningDataModule.from_datasets(TensorDataset(x, x))
        module.x = x
        return module

    same = [DataCache(data)(Draw(anything), 7).x for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], DataCache(data)(Draw(anything), 8).x)


def test_two_studies_in_one_process_have_their_own_splits_and_share_what_is_not_random(points):
    cache = DataCache(Split())
    seven, eight = (cache(Draw(anything), study) for study in (7, 8))
    assert seven is cache(Draw(anything), 7)
    assert seven.held_out.indices != eight.held_out.indices
    fixed = DataCache(points())
    assert fixed(Draw(anything), 7) is fixed(Draw(anything), 8)


def test_a_training_anew_and_a_test_have_the_split_of_the_study(tmp_path, training):
    def scored(estimator, trial):
        seen = []

        class Seen(pl.Callback):
            def on_validation_batch_start(self, trainer, module, batch, *args, **kwargs):
                seen.append(batch[1].tolist())

        estimator.callbacks = lambda trial: [Seen()]
        estimator(nn.Linear(1, 400), trial)
        return seen

    class Lookup(pl.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def training_step(self, batch, batch_idx):
            return self.model(batch[0][:, None].float()).sum()

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", 0.0)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    def make():
        return training(
            tmp_path,
            lambda model, trial: Lookup(model),
            Split(),
            monitor="val_loss",
            mode="min",
            max_epochs=1,
        )

    study = optuna.create_study(direction="maximize")
    record.SEED.write(study, 7)
    in_study = scored(make(), study.ask())
    anew = optuna.trial.FixedTrial({})
    record.ORIGIN.write(anew, "7")
    assert scored(make(), anew) == in_study
    other = optuna.create_study(direction="maximize")
    record.SEED.write(other, 8)
    assert scored(make(), other.ask()) != in_study


def test_answers_that_python_calls_equal_make_different_data(points):
    made = []
    cache = DataCache(lambda trial: made.append(trial.suggest_categorical("kind", [True, 1])) or points())
    for answer in (True, 1, True):
        cache(Draw(lambda name, distribution, answer=answer: answer))
    assert [type(answer) for answer in made] == [bool, int]


def test_data_is_made_with_values_while_a_space_is_walked_on_meta(points):
    cache = DataCache(lambda trial: points())
    with torch.device("meta"):
        module = cache(Draw(anything))
    assert module.train[0].device.type == "cpu"
    assert next(iter(module.train_dataloader()))[0].device.type == "cpu"


def test_a_function_that_makes_no_data_module_is_named():
    with pytest.raises(TypeError, match="returned a list, not a LightningDataModule"):
        DataCache(lambda trial: [1])(Draw(anything))
