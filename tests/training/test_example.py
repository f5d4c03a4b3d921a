"""The example is what the real model gets in a real training, whatever the batches and hooks are."""

import collections
import pickle
import random
import threading
from dataclasses import dataclass

import numpy as np
import optuna
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from optnas import Objective, create_study, optimize
from optnas.facts import as_inputs
from optnas.trial import Draw

X = torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0, 0, 0] > X[:, 0, 0, 1]).long()


class Lit(pl.LightningModule):
    """Calls the model as `call(model, batch)`."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model, call

    def training_step(self, batch, batch_idx):
        return self.call(self.model, batch).float().sum()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.0)


class Spy(nn.Module):
    """A model that keeps what it is called with."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls = []

    def forward(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return self.weight


@dataclass
class Pair:
    x: torch.Tensor
    y: torch.Tensor


Named = collections.namedtuple("Named", "x y")


class Graph:
    def __init__(self, nodes):
        self.nodes = nodes


class Locked(Graph):
    def __init__(self, nodes):
        super().__init__(nodes)
        self.lock = threading.Lock()


def loader(collate, **options):
    return DataLoader(
        TensorDataset(X, Y),
        32,
        collate_fn=lambda rows: collate(*map(torch.stack, zip(*rows, strict=True))),
        **options,
    )


def pair(x, y):
    return x, y


class Data(pl.LightningDataModule):
    def __init__(self, collate=pair):
        super().__init__()
        self.collate = collate

    def train_dataloader(self):
        return loader(self.collate)

    val_dataloader = train_dataloader


class Bytes(Data):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0].double(), batch[1]


class Attached(Data):
    def train_dataloader(self):
        return DataLoader(TensorDataset(X, Y), 32 // self.trainer.world_size * self.trainer.max_epochs)


class Moved(Data):
    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch[0].flatten(1).to(device), batch[1].to(device)


class Several(Data):
    def train_dataloader(self):
        return {"labeled": loader(self.collate), "unlabeled": loader(lambda x, y: (x[:, :, :2], y))}


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Streamed(Data):
    def train_dataloader(self):
        return DataLoader(Stream(), 32)


class Hooked(Lit):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0].flatten(1), batch[1]

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[0] + 1, batch[1]


def first(model, batch):
    return model(batch[0])


CASES = {
    "plain": (Data(), first),
    "the step reshapes": (Data(), lambda model, batch: model(batch[0].view(len(batch[0]), -1))),
    "the step normalizes": (Data(), lambda model, batch: model((batch[0] - 0.5) / 0.3)),
    "several inputs": (Data(lambda x, y: (x, y, x > 0.5)), lambda model, batch: model(batch[0], batch[2])),
    "keywords": (Data(), lambda model, batch: model(image=batch[0], label=batch[1])),
    "both": (Data(), lambda model, batch: model(batch[0], label=batch[1], mask=None)),
    "a dict": (Data(lambda x, y: {"x": x, "more": {"y": y}}), lambda model, batch: model(batch["x"])),
    "a dataclass": (Data(Pair), lambda model, batch: model(batch.x)),
    "a named tuple": (Data(Named), lambda model, batch: model(batch.x)),
    "nested": (Data(lambda x, y: ((x, [x, y]), y)), lambda model, batch: model(batch[0][1][0])),
    "objects": (
        Data(lambda x, y: [Graph(row) for row in x]),
        lambda model, batch: model(torch.stack([graph.nodes for graph in batch])),
    ),
    "the data module's hook": (Bytes(), first),
    "the data module's trainer": (Attached(), first),
    "the data module's transfer": (Moved(), first),
    "several loaders": (Several(), lambda model, batch: model(batch["unlabeled"][0])),
    "a stream": (Streamed(), first),
}


HOOKED = ["plain", "the data module's trainer", "a stream"]  # of the module's own, which takes pairs


@pytest.mark.parametrize(
    ("case", "lit"), [(case, Lit) for case in CASES] + [(case, Hooked) for case in HOOKED]
)
def test_the_example_is_what_the_model_gets_in_training(tmp_path, training, case, lit):
    data, call = CASES[case]
    if type(data) is Several:
        call_of_step = call

        def call(model, batch):  # validation has one loader
            return call_of_step(model, batch) if isinstance(batch, dict) else model(batch[0])

    estimator = training(
        tmp_path, lambda model, trial: lit(model, call), data, monitor="val_loss", mode="min", max_epochs=1
    )
    args, kwargs = as_inputs(estimator.example(Draw(_no_question)), "cpu")
    spy = Spy()
    estimator(spy, optuna.trial.FixedTrial({}))
    given, named = spy.calls[0]
    assert len(args) == len(given)
    assert kwargs.keys() == named.keys()
    for value, whole in zip((*args, *kwargs.values()), (*given, *named.values()), strict=True):
        if not isinstance(whole, torch.Tensor):
            assert value is whole
            continue
        assert value.dtype == whole.dtype
        assert torch.equal(value, whole[:2])


def _no_question(name, distribution):
    pytest.fail(f"asked {name}")


def test_it_is_taken_once_leaves_no_trace_and_is_no_meta_tensor(tmp_path, training):
    taken = []

    class Counted(Data):
        def train_dataloader(self):
            taken.append(torch.rand(1))
            return DataLoader(TensorDataset(X, Y), 32, shuffle=True)

    estimator = training(tmp_path, data=Counted())
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    with torch.device("meta"):
        example = estimator.example(Draw(_no_question))
    assert example.device.type == "cpu"
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002
    assert all(estimator.example(Draw(_no_question)) is example for _ in range(5))
    assert len(taken) == 1
    elsewhere = pickle.loads(pickle.dumps(training(tmp_path, data=Data())))
    assert torch.equal(elsewhere.example(Draw(_no_question)), X[:2])


def test_two_processes_take_the_same_of_a_shuffled_loader(tmp_path, training):
    class Shuffled(Data):
        def train_dataloader(self):
            return DataLoader(TensorDataset(X, Y), 32, shuffle=True)

    examples = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        examples.append(training(tmp_path, data=Shuffled()).example(Draw(_no_question)))
    assert torch.equal(*examples)


def test_questions_of_the_task_are_asked_only_where_they_change_the_shape(tmp_path, training):
    def resizing(model, trial):
        size = trial.suggest_int("size", 2, 4)
        return Lit(model, lambda model, batch: model(batch[0][..., :size]))

    def rating(model, trial):
        trial.suggest_float("lr", 0.1, 0.2)
        return Lit(model, first)

    fixed = training(tmp_path, rating, Data())
    assert fixed.example(Draw(_no_question)).shape == (2, 1, 4, 4)
    sized = training(tmp_path, resizing, Data())
    for size in (2, 3, 4, 3):
        assert sized.example(Draw(lambda name, distribution, size=size: size)).shape == (2, 1, 4, size)


def test_a_task_that_needs_the_real_model_gets_the_inputs_of_the_batch(tmp_path, training):
    class Head(Hooked):
        def __init__(self, model, call):
            super().__init__(nn.Linear(model.out_features, 2), call)

    estimator = training(tmp_path, lambda model, trial: Head(model, first), Moved())
    assert estimator.example(Draw(_no_question)).shape == (2, 16)

    class Encoded(Hooked):
        def training_step(self, batch, batch_idx):
            return self.model.encode(batch[0]).sum()

    estimator = training(tmp_path, lambda model, trial: Encoded(model, first), Data())
    assert torch.equal(estimator.example(Draw(_no_question)), (X + 1).flatten(1)[:2])


@pytest.mark.parametrize(
    ("data", "call", "message"),
    [
        (Data(lambda x, y: Locked(x)), lambda model, batch: model(batch), "type Locked cannot be copied"),
        (Data(), lambda model, batch: model(), "called without arguments.*example="),
        (Data(Pair), lambda model, batch: model.encode(batch.x), "type Pair.*stand-in.*encode.*example="),
    ],
)
def test_what_is_no_example_says_what_to_do(tmp_path, training, data, call, message):
    estimator = training(tmp_path, lambda model, trial: Lit(model, call), data)
    with pytest.raises(TypeError, match=f"(?s){message}"):
        estimator.example(Draw(_no_question))


def test_objects_lists_and_flags_are_kept_as_they_are(tmp_path, training):
    def call(model, batch):
        return model(batch, [batch.nodes[0]], None, hard=True)

    estimator = training(tmp_path, lambda model, trial: Lit(model, call), Data(lambda x, y: Graph(x)))
    example = estimator.example(Draw(_no_question))
    graph, (row,), none = example.args
    assert torch.equal(graph.nodes, X[:32])
    assert torch.equal(row, X[0])
    assert none is None
    assert example.kwargs == {"hard": True}


def test_errors_of_the_data_pass_through(tmp_path, training):
    class Broken(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            raise OSError("image 3 is cut off")

    data = pl.LightningDataModule.from_datasets(Broken(), Broken(), num_workers=0)
    with pytest.raises(OSError, match="image 3 is cut off"):
        training(tmp_path, data=data).example(Draw(_no_question))


def test_precision_and_callbacks_of_the_training_change_nothing(tmp_path, training):
    class Forbidden(pl.Callback):
        def on_train_batch_start(self, *args):
            pytest.fail("no training has begun")

    estimator = training(tmp_path, data=Data(), precision="bf16-true", callbacks=[Forbidden()])
    assert estimator.example(Draw(_no_question)).dtype == torch.float32


def test_a_lazy_space_is_built_for_what_the_step_makes_of_a_batch(tmp_path, training):
    class Flat(pl.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def training_step(self, batch, batch_idx):
            return cross_entropy(self.model(batch[0].flatten(1)), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.training_step(batch, batch_idx))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.01)

    def space(trial):
        return nn.Sequential(nn.LazyLinear(trial.suggest_int("units", 4, 64)), nn.ReLU(), nn.LazyLinear(2))

    estimator = training(
        tmp_path, lambda model, trial: Flat(model), Data(), monitor="val_loss", mode="min", max_epochs=1
    )
    objective = Objective(space, estimator)
    study = create_study(objective, seed=0)
    optimize(study, objective, n_trials=2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2
    assert objective.build(study.trials[0])[0].in_features == 16
