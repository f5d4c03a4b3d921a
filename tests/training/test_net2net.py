"""A larger network computes what the smaller one does."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from optnas import Objective, create_study, optimize, record
from optnas.data import TensorData
from optnas.facts import materialize
from optnas.space import blocks
from optnas.strategy.base import TrialSampler
from optnas.tasks import Classification
from optnas.training import Training
from optnas.training.net2net import TOLERANCE, NotPreservedError, grow
from optnas.trial import replay

IMAGES = torch.randn(16, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def trained(model, x):
    """As after some training: no statistic and no weight is as it was at first."""
    torch.manual_seed(0)
    materialize(model, x)
    model.train()
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    with torch.no_grad():
        model(x)
    return model.eval()


def plain(*widths, kernel=3):
    """Convolutions whose outputs are flattened: a channel becomes many inputs of the linear layer."""
    layers = []
    for width in widths:
        layers += [nn.LazyConv2d(width, kernel, padding=kernel // 2), nn.LazyBatchNorm2d(), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten(), nn.LazyLinear(5))


def dense(*widths):
    layers = []
    for width in widths:
        layers += [nn.LazyLinear(width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers, nn.LazyLinear(5))


class Joined(nn.Module):
    """What is concatenated, added and multiplied must fit."""

    def __init__(self, width, branch):
        super().__init__()
        self.stem = nn.LazyConv2d(width, 3, padding=1)
        self.left = nn.LazyConv2d(branch, 1)
        self.right = nn.LazyConv2d(width, 3, padding=1, groups=width)
        self.gate = nn.LazyConv2d(width, 1)
        self.both = nn.LazyConv2d(width, 1)
        self.norm = nn.GroupNorm(2, width)
        self.head = nn.LazyLinear(4)

    def forward(self, x):
        x = self.stem(x).relu()
        y = torch.cat([self.left(x), self.right(x).tanh()], dim=1)
        x = x + self.both(y) * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        return {"logits": self.head(self.norm(x).mean((2, 3)))}


class Sequence(nn.Module):
    def __init__(self, kind, width, embedded):
        super().__init__()
        self.embed = nn.Embedding(11, embedded)
        self.body = kind(embedded, width, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * width, 3)

    def forward(self, tokens):
        return self.head(self.body(self.embed(tokens))[0].mean(1))


def residual(depth, width, act=nn.ReLU):
    def body():
        return nn.Sequential(
            nn.LazyConv2d(2 * width, 3, padding=1), nn.LazyBatchNorm2d(), act(),
            nn.LazyConv2d(width, 1), nn.LazyBatchNorm2d(),
        )  # fmt: skip

    stem = nn.LazyConv2d(width, 1)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(stem, *(blocks.Residual(body()) for _ in range(depth)), pool, nn.LazyLinear(5))


TOKENS = torch.randint(11, (8, 6), generator=torch.Generator().manual_seed(2))

GROWN = {
    "wider": (lambda: plain(4, 6), lambda: plain(8, 7), IMAGES),
    "one layer wider": (lambda: plain(4, 6), lambda: plain(4, 9), IMAGES),
    "larger kernels": (lambda: plain(4, 6, kernel=3), lambda: plain(4, 6, kernel=5), IMAGES),
    "deeper": (lambda: plain(4, 6), lambda: plain(4, 6, 6), IMAGES),
    "deeper and wider": (lambda: plain(4, 6), lambda: plain(8, 8, 12), IMAGES),
    "units": (lambda: dense(8, 12), lambda: dense(20, 13), IMAGES),
    "more layers of units": (lambda: dense(8), lambda: dense(8, 10, 16), IMAGES),
    "joined": (lambda: Joined(4, 3), lambda: Joined(8, 5), IMAGES),
    "a branch": (lambda: Joined(4, 3), lambda: Joined(4, 7), IMAGES),
    "lstm": (lambda: Sequence(nn.LSTM, 5, 4), lambda: Sequence(nn.LSTM, 8, 6), TOKENS),
    "gru": (lambda: Sequence(nn.GRU, 5, 4), lambda: Sequence(nn.GRU, 5, 7), TOKENS),
    "residual wider": (lambda: residual(2, 4), lambda: residual(2, 6), IMAGES),
    "residual deeper": (lambda: residual(1, 4), lambda: residual(3, 4), IMAGES),
    "any activation": (lambda: residual(1, 4, nn.SiLU), lambda: residual(2, 8, nn.SiLU), IMAGES),
    "as it is": (lambda: Joined(4, 3), lambda: Joined(4, 3), IMAGES),
}


DEEPER = {"deeper", "deeper and wider", "more layers of units", "residual deeper", "any activation"}


@pytest.mark.parametrize("case", GROWN)
def test_the_function_is_preserved(case):
    small, large, x = GROWN[case]
    parent = trained(small(), x)
    before = {name: tensor.clone() for name, tensor in parent.state_dict().items()}
    torch.manual_seed(7)
    child = materialize(large(), x)
    found = grow(child, parent, x)
    other = x if not x.is_floating_point() else torch.randn(32, *x.shape[1:]) * 2
    with torch.no_grad():
        ours, theirs = (model.eval()(other) for model in (child, parent))
    if isinstance(ours, dict):
        ours, theirs = ours["logits"], theirs["logits"]
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(1, float(theirs.abs().max()))
    assert found.difference <= TOLERANCE
    assert (found.share == 1) == (case not in DEEPER)
    assert found.share > 0.3
    assert all(torch.equal(tensor, before[name]) for name, tensor in parent.state_dict().items())


@pytest.mark.parametrize(
    ("small", "large", "words"),
    [
        (lambda: plain(4, 6), lambda: plain(4, 5), "a layer is smaller than before"),
        (lambda: plain(4, 6, kernel=5), lambda: plain(4, 6, kernel=3), "a layer is smaller"),
        (lambda: plain(4, 6), lambda: dense(8, 8), "of another kind"),
        (lambda: dense(6), lambda: dense(12, 8), "is new, and cannot hand on what it gets"),
        (
            lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)),
            lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)),
            "has inputs that no layer had before",
        ),
        (
            lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2)),
            lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(2), nn.Softmax(1)),
            "its outputs would differ",
        ),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.LayerNorm(4), nn.LazyLinear(2)),
            lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(6), nn.LayerNorm(6), nn.LazyLinear(2)),
            "no layer had before",  # two of six are copies: the mean is another
        ),
        (
            lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            lambda: nn.Sequential(nn.LazyConv2d(4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            "its outputs would differ",
        ),
    ],
)
def test_what_cannot_be_preserved_leaves_the_network_as_it_was(small, large, words):
    parent, child = trained(small(), IMAGES), materialize(large(), IMAGES)
    before = {name: tensor.clone() for name, tensor in child.state_dict().items()}
    with pytest.raises(NotPreservedError, match=words):
        grow(child, parent, IMAGES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in child.state_dict().items())


def test_a_layer_norm_of_twice_the_width_is_preserved():
    def norm(width):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.LayerNorm(width), nn.LazyLinear(2))

    assert grow(materialize(norm(8), IMAGES), trained(norm(4), IMAGES), IMAGES).difference <= TOLERANCE


def test_copies_part_when_they_are_trained():
    parent, child = trained(dense(4), IMAGES), materialize(dense(8), IMAGES)
    grow(child, parent, IMAGES)
    hidden = child[1].weight
    assert torch.equal(hidden[0], hidden[1])  # copies are neighbors
    child(IMAGES).square().mean().backward()
    assert not torch.allclose(hidden.grad[0], hidden.grad[1])


def test_new_normalizations_are_measured_on_what_they_get():
    parent, child = trained(plain(4), IMAGES), materialize(plain(4, 4), IMAGES)
    grow(child, parent, IMAGES)
    with torch.no_grad():
        got = child[:4].eval()(IMAGES)
        new = child[4]
        torch.testing.assert_close(new.running_mean, got.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        # In training, too, it hands on what it gets.
        torch.testing.assert_close(new.train()(got), got, rtol=1e-3, atol=1e-3)


# ---- in a search ----


class Bred(TrialSampler):
    """Every trial but the first is a child of the first."""

    def __init__(self, answers):
        super().__init__(0)
        self.answers = answers

    def prepare(self, study, trial, rng):
        if trial.number:
            record.PARENT.write(study, trial, 0)
        answers = self.answers[trial.number]
        return lambda name, distribution: answers[name]


def space(trial):
    layers = []
    for i in range(trial.suggest_int("depth", 1, 2)):
        layers += [nn.LazyLinear(trial.suggest_int(f"units_{i}", 4, 16)), nn.ReLU()]
    return nn.Sequential(*layers, nn.LazyLinear(2))


def search(tmp_path, answers, **options):
    x = torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
    data = TensorData((x, (x[:, 0] > 0).long()), batch_size=16)
    training = Training(
        Classification(2, lr=0.05), data, monitor="val_loss", mode="min", max_epochs=1, keep=9,
        folder=tmp_path, inherit="net2net", **options,
    )  # fmt: skip
    objective = Objective(space, training)
    study = create_study(objective, sampler=Bred(answers), pruner=None, seed=0, study_name="s")
    optimize(study, objective, n_trials=len(answers), show_progress=False)
    return study, objective


def test_a_child_begins_with_its_parents_function_and_says_so(tmp_path, caplog):
    small = {"depth": 1, "units_0": 6}
    wide, deep = {"depth": 1, "units_0": 12}, {"depth": 2, "units_0": 6, "units_1": 6}
    narrow = {"depth": 1, "units_0": 4}
    with caplog.at_level(logging.INFO, logger="optnas"):
        study, _ = search(tmp_path, [small, wide, deep, narrow])
    told = [record.WEIGHTS.of(trial) for trial in study.trials]
    assert told[0] is None
    for child in told[1:3]:
        assert (child["from"], child["how"]) == (0, "net2net")
        assert child["difference"] <= TOLERANCE
    assert told[1]["share"] == 1 > told[2]["share"] > 0
    # The last is narrower: it takes what fits by name and shape, of which there is the last layer's bias.
    assert (told[3]["from"], told[3]["how"]) == (0, "exact")
    assert "smaller than before" in told[3]["why"]
    assert 0 < told[3]["share"] < 0.2
    assert "Trial 3 does not begin with its parent's function" in caplog.text
    assert [record.EPOCHS.of(trial) for trial in study.trials] == [1, 2, 2, 2]


def test_without_training_a_child_scores_as_its_parent(tmp_path):
    small, wide = {"depth": 1, "units_0": 6}, {"depth": 2, "units_0": 11, "units_1": 13}
    study, objective = search(tmp_path, [small])
    later = objective.estimator
    later.task = Classification(2, lr=0.0)
    study.sampler = Bred([small, wide])
    optimize(study, objective, n_trials=2, show_progress=False)
    first, second = study.trials
    assert record.WEIGHTS.of(second)["how"] == "net2net"
    assert second.value == pytest.approx(first.value, abs=1e-5)


def test_who_cannot_build_the_parent_takes_what_matches(tmp_path):
    small = {"depth": 1, "units_0": 6}
    study, objective = search(tmp_path, [small])
    study.sampler = Bred([small, small])
    trial = study.ask()
    model = objective.build(trial)
    objective.estimator(model, trial)
    told = record.WEIGHTS.of(trial)
    assert (told["how"], told["share"]) == ("exact", 1)
    assert "nobody says how the parent's network is built" in told["why"]


def test_the_example_is_a_batch(tmp_path):
    _, objective = search(tmp_path, [{"depth": 1, "units_0": 6}])
    training = objective.estimator
    step = training._step_of(replay({}))
    assert len(step.example(replay({}), 64)) == 16
    assert len(step.example(replay({}))) == 2
