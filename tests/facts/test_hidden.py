"""Networks with equal fingerprints train to equal results: the oracle is plain torch on the CPU."""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from optnas.facts import materialize, sketch

Build = Callable[[], nn.Module]
SHAPE = (6, 8)
PRETRAINED = nn.Linear(8, 8).state_dict()


def trained(build: Build) -> list[Tensor]:
    """What three steps of training lead to, by a task that reads all that a model may bring along."""
    torch.manual_seed(0)
    model = materialize(build(), SHAPE)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([0, 1] * 3)
    has = functools.partial(getattr, model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    settings = {"lr": has("lr", has("hparams", {}).get("lr", 0.1)), "weight_decay": has("decay", 0.0)}
    make = has("configure_optimizers", None) if not isinstance(model, pl.LightningModule) else None
    optimizer = make() if make is not None else torch.optim.SGD(parameters, **settings)
    if isinstance(model, Lit):
        optimizer = model.configure_optimizers()
    criterion = has("criterion", F.cross_entropy)
    results = []
    for _ in range(3):
        optimizer.zero_grad()
        if isinstance(model, Lit):
            loss = model.training_step((x, y), 0)
        else:
            loss = criterion(model(x), y)
            for name in ("beta", "aux", "regularization"):
                term = has(name, 0.0)
                loss = loss + 0.1 * (term() if callable(term) else term) * sum(p.sum() for p in parameters)
            if isinstance(weight := has("class_weight", None), Tensor):
                loss = loss * weight.sum()
        loss.backward()
        optimizer.step()
        results.append(loss.detach())
    model.eval()
    for evaluation in (torch.no_grad, torch.inference_mode):
        with evaluation():
            results.append(model(x).clone())
    return results


def net(middle: nn.Module | None = None, **attributes: Any) -> nn.Module:
    model = nn.Sequential(
        nn.Linear(8, 8), *([middle] if middle is not None else []), nn.ReLU(), nn.Linear(8, 2)
    )
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


def changed(change: Callable[[nn.Module], Any]) -> Build:
    """A plain network with a change to its first layer."""

    def build() -> nn.Module:
        model = net()
        change(model[0])  # type: ignore[index]  # a Sequential
        return model

    return build


class Mine(nn.Module):
    """A class of a user's, with a forward pass that is given."""

    def __init__(self, run: Callable[..., Tensor], **attributes: Any) -> None:
        super().__init__()
        self.run = run
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 2)
        self.register_buffer("m", torch.zeros(8))
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def mine(run: Callable[..., Tensor], **attributes: Any) -> Build:
    return lambda: Mine(run, **copy.deepcopy(attributes))


def plain(s: Any, x: Tensor) -> Tensor:
    return s.b(s.a(x).relu())


def ema(momentum: float) -> Callable[..., Tensor]:
    def run(s: Any, x: Tensor) -> Tensor:
        h = s.a(x)
        out = s.b(h - s.m)
        if s.training:
            s.m.lerp_(h.mean(0).detach(), momentum)
        return out

    return run


def gradient_hook(scale: float) -> Callable[..., Tensor]:
    def run(s: Any, x: Tensor) -> Tensor:
        h = s.a(x)
        if h.requires_grad:
            h.register_hook(lambda g: g * scale)
        return s.b(h)

    return run


def in_eval(threshold: float) -> Callable[..., Tensor]:
    def run(s: Any, x: Tensor) -> Tensor:
        h = s.a(x)
        return s.b(h if s.training else torch.where(h.sigmoid() > threshold, h, 0))

    return run


def without_gradient(scale: float) -> Callable[..., Tensor]:
    return lambda s, x: s.b(s.a(x) * (1.0 if torch.is_grad_enabled() else scale))


def by_the_childs_mode(scale: float) -> Callable[..., Tensor]:
    return lambda s, x: s.b(s.a(x) * (1.0 if s.a.training else scale))


def annealed(rate: float) -> Callable[..., Tensor]:
    def run(s: Any, x: Tensor) -> Tensor:
        h = s.a(x) / s.tau
        if s.training:
            s.tau *= rate
        return s.b(h)

    return run


def after_steps(steps: int) -> Callable[..., Tensor]:
    def run(s: Any, x: Tensor) -> Tensor:
        s.count += s.training
        return s.b(s.a(x) * (2.0 if s.count > steps else 1.0))

    return run


def sets_beta(value: float) -> Callable[..., Tensor]:
    def run(s: Any, x: Tensor) -> Tensor:
        s.beta = value
        return plain(s, x)

    return run


def keeps(which: str) -> Callable[..., Tensor]:
    def run(s: Any, x: Tensor) -> Tensor:
        h = s.a(x)
        z = h.relu()
        s.aux = (h if which == "before" else z).mean()
        return s.b(z)

    return run


def cast(dtype: torch.dtype) -> Callable[..., Tensor]:
    def run(s: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return s.b(s.a(x)).float()

    return run


def checkpointed(s: Any, x: Tensor) -> Tensor:
    return s.b(checkpoint(lambda x: s.norm(s.a(x)), x, use_reentrant=False))


def not_checkpointed(s: Any, x: Tensor) -> Tensor:
    return s.b(s.norm(s.a(x)))


def reversal(factor: float) -> Callable[..., Tensor]:
    class Reverse(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.view_as(x)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return -factor * gradient

    return lambda s, x: s.b(Reverse.apply(s.a(x)))


class Lit(pl.LightningModule):
    def __init__(self, width: int, lr: float, kind: str = "attribute") -> None:
        super().__init__()
        if kind == "hparams":
            self.save_hyperparameters()
        elif kind == "attribute":
            self.lr = lr
        elif kind == "namespace":
            self.config = types.SimpleNamespace(lr=lr)
        elif kind == "closure":
            self.rate = lambda: lr
        self.kind = kind
        self.net = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        lr = {
            "hparams": lambda: self.hparams["lr"],
            "attribute": lambda: self.lr,
            "namespace": lambda: self.config.lr,
            "closure": lambda: self.rate(),
        }[self.kind]()
        return torch.optim.SGD(self.parameters(), lr)


def lit_of(smoothing: float) -> Build:
    """A class made for one answer, which is in its code only."""

    class Own(Lit):
        def training_step(self, batch: Any, index: int) -> Tensor:
            return F.cross_entropy(self(batch[0]), batch[1], label_smoothing=smoothing)

    return lambda: Own(8, 0.1)


def with_class_attribute(decay_of_class: float) -> Build:
    class WithDecay(Mine):
        decay = decay_of_class

    return lambda: WithDecay(plain)


def with_method(scale: float) -> Build:
    class WithMethod(Mine):
        def regularization(self) -> float:
            return scale

    return lambda: WithMethod(plain)


def norm(eval_mode: bool = False, **settings: Any) -> Build:
    def build() -> nn.Module:
        model = net(nn.BatchNorm1d(8, **settings))
        if eval_mode:
            model[1].eval()  # type: ignore[index]  # a Sequential
        return model

    return build


def in_mode(training: bool) -> Build:
    return lambda: net(nn.Dropout(0.5)).train(training)


def with_forward_hook(scale: float, *, only_in_eval: bool = False) -> Build:
    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output if only_in_eval and module.training else output * scale

    def build() -> nn.Module:
        model = net()
        model[0].register_forward_hook(hook)  # type: ignore[index]  # a Sequential
        return model

    return build


def shrink(parameter: Tensor) -> None:
    parameter.grad.mul_(0.3)  # type: ignore[union-attr]  # it has one by then


def with_backward_hook(scale: float) -> Build:
    def build() -> nn.Module:
        model = net()
        model[2].register_full_backward_pre_hook(lambda module, g: (g[0] * scale,))  # type: ignore[index]
        return model

    return build


def skipped_on_meta(value: float) -> Build:
    def init(layer: nn.Module) -> None:
        for p in layer.parameters():
            if not p.is_meta:
                nn.init.constant_(p, value)

    return changed(init)


def set_optimizer(lr: float) -> Build:
    def build() -> nn.Module:
        model = net()
        model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr)  # type: ignore[assignment]
        return model

    return build


def loaded(scale: float, frozen: bool = False) -> Build:
    def load(layer: nn.Module) -> None:
        layer.load_state_dict({name: scale * value for name, value in PRETRAINED.items()})
        layer.requires_grad_(not frozen)

    return changed(load)


def weight_of(tensor: Tensor) -> Build:
    return changed(lambda m: m.weight.data.copy_(tensor))


def frozen_after(init: Callable[[Tensor], Any]) -> Build:
    def change(layer: nn.Module) -> None:
        init(layer.weight)
        layer.weight.requires_grad_(False)

    return changed(change)


def with_buffer(value: float, persistent: bool = True) -> Build:
    def build() -> nn.Module:
        model = net()
        model.register_buffer("class_weight", torch.full((2,), value), persistent=persistent)
        return model

    return build


def with_tensors(value: float) -> Build:
    return mine(lambda s, x: s.b(s.a(x) + s.tables[0]), tables=[torch.full((8,), value)])


class Reset(nn.Module):
    """State that no attribute of a module shows: a list outside of it."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.a = nn.Linear(8, 2)
        self.history: list[int] = []
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        self.history.append(1)
        return self.a(x) * self.factor ** len(self.history)


@dataclasses.dataclass
class Settings:
    lr: float


def by_hand(model: pl.LightningModule) -> nn.Module:
    model.automatic_optimization = False
    return model


def with_head(width: int, init: Callable[[Tensor], Any] | None = None) -> Build:
    def build() -> nn.Module:
        model = Mine(plain, head=nn.Linear(8, width))
        if init is not None:
            init(model.head.weight)  # type: ignore[union-attr,arg-type]  # a Linear
        return model

    return build


def after_calls(calls: int) -> Build:
    def build() -> nn.Module:
        counter: list[int] = []

        def run(s: Any, x: Tensor) -> Tensor:
            counter.append(1)
            return s.b(s.a(x) * (2.0 if len(counter) > calls else 1.0))

        return Mine(run)

    return build


def with_counting_hook(calls: int) -> Build:
    def build() -> nn.Module:
        counter: list[int] = []

        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            counter.append(1)
            return output * (2.0 if len(counter) > calls else 1.0)

        model = net()
        model[0].register_forward_hook(hook)  # type: ignore[index]  # a Sequential
        return model

    return build


def in_inference_mode(scale: float) -> Callable[..., Tensor]:
    return lambda s, x: s.b(s.a(x) * (scale if torch.is_inference_mode_enabled() else 1.0))


def seeded(seed: int, *, forgotten: bool = False) -> Build:
    def build() -> nn.Module:
        before = torch.get_rng_state()
        torch.manual_seed(seed)
        model = net()
        if forgotten:
            torch.set_rng_state(before)
        return model

    return build


# Every entry is its own network unless it stands in one of SAME.
POOL: dict[str, Build] = {
    "plain": net,
    "identity": lambda: net(nn.Identity()),
    "dropout of nothing": lambda: net(nn.Dropout(0.0)),
    "relu in place": lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 2)),
    "dropout": lambda: net(nn.Dropout(0.1)),
    "more dropout": lambda: net(nn.Dropout(0.9)),
    "dropout, made in eval mode": in_mode(False),
    "dropout, made in train mode": in_mode(True),
    # attributes
    "lr 1e-3": lambda: net(lr=1e-3),
    "lr 1": lambda: net(lr=1.0),
    "decay": lambda: net(decay=0.5),
    "optimizer set on it, lr 1e-3": set_optimizer(1e-3),
    "optimizer set on it, lr 1": set_optimizer(1.0),
    "my class": mine(plain),
    "my class, beta 0.5": mine(plain, beta=0.5),
    "my class, beta 2": mine(plain, beta=2.0),
    "my class, beta in forward 0.5": mine(sets_beta(0.5)),
    "my class, beta in forward 2": mine(sets_beta(2.0)),
    "my class, aux before": mine(keeps("before")),
    "my class, aux after": mine(keeps("after")),
    "class attribute 0.1": with_class_attribute(0.1),
    "class attribute 0.9": with_class_attribute(0.9),
    "method 0.1": with_method(0.1),
    "method 0.9": with_method(0.9),
    "loss smoothed by 0.1": mine(plain, criterion=nn.CrossEntropyLoss(label_smoothing=0.1)),
    "loss smoothed by 0.4": mine(plain, criterion=nn.CrossEntropyLoss(label_smoothing=0.4)),
    "loss function": mine(plain, criterion=functools.partial(F.cross_entropy, label_smoothing=0.2)),
    "loss function again": mine(plain, criterion=functools.partial(F.cross_entropy, label_smoothing=0.3)),
    "class weight 1": with_buffer(1.0),
    "class weight 3": with_buffer(3.0),
    "my class weight 5": mine(plain, class_weight=torch.full((2,), 5.0)),
    "my class weight 6": mine(plain, class_weight=torch.full((2,), 6.0)),
    "array 5": mine(lambda s, x: s.b(s.a(x)), weights=np.full(2, 5.0)),
    "array 6": mine(lambda s, x: s.b(s.a(x)), weights=np.full(2, 6.0)),
    "parameter with a multiplier 0.1": changed(lambda m: setattr(m.weight, "decay", 0.1)),
    "parameter with a multiplier 0.9": changed(lambda m: setattr(m.weight, "decay", 0.9)),
    "unused layer": with_head(3),
    "unused layer, larger": with_head(4),
    "unused layer, zeros": with_head(3, nn.init.zeros_),
    "dataclass 0.1": mine(plain, settings=Settings(0.1)),
    "dataclass 0.9": mine(plain, settings=Settings(0.9)),
    # training code of its own
    "Lightning, optimized by hand": lambda: by_hand(Lit(8, 0.1)),
    "Lightning, lr 0.1": lambda: Lit(8, 0.1),
    "Lightning, lr 0.5": lambda: Lit(8, 0.5),
    "Lightning, wider": lambda: Lit(9, 0.1),
    "Lightning, hyperparameter lr 0.1": lambda: Lit(8, 0.1, "hparams"),
    "Lightning, hyperparameter lr 0.5": lambda: Lit(8, 0.5, "hparams"),
    "Lightning, namespace lr 0.1": lambda: Lit(8, 0.1, "namespace"),
    "Lightning, namespace lr 0.5": lambda: Lit(8, 0.5, "namespace"),
    "Lightning, closure lr 0.1": lambda: Lit(8, 0.1, "closure"),
    "Lightning, closure lr 0.5": lambda: Lit(8, 0.5, "closure"),
    "Lightning, smoothed by 0.1": lit_of(0.1),
    "Lightning, smoothed by 0.4": lit_of(0.4),
    # what changes from step to step, and what only evaluation shows
    "EMA 0.1": mine(ema(0.1)),
    "EMA 0.9": mine(ema(0.9)),
    "annealed 0.5": mine(annealed(0.5), tau=1.0),
    "annealed 0.9": mine(annealed(0.9), tau=1.0),
    "after 1 step": mine(after_steps(1), count=0),
    "after 2 steps": mine(after_steps(2), count=0),
    "after 1 call": after_calls(1),
    "after 2 calls": after_calls(2),
    "hook after 1 call": with_counting_hook(1),
    "hook after 2 calls": with_counting_hook(2),
    "in inference mode 1.5": mine(in_inference_mode(1.5)),
    "in inference mode 2": mine(in_inference_mode(2.0)),
    "history 1.1": lambda: Reset(1.1),
    "history 1.2": lambda: Reset(1.2),
    "in eval 0.1": mine(in_eval(0.1)),
    "in eval 0.9": mine(in_eval(0.9)),
    "without gradient 1.5": mine(without_gradient(1.5)),
    "without gradient 2": mine(without_gradient(2.0)),
    "by the child's mode 1.5": mine(by_the_childs_mode(1.5)),
    "by the child's mode 2": mine(by_the_childs_mode(2.0)),
    "norm": norm(),
    "norm, momentum": norm(momentum=0.9),
    "norm, eps": norm(eps=0.1),
    "norm in eval mode": norm(eval_mode=True),
    "norm without statistics": norm(track_running_stats=False),
    "bfloat16": mine(cast(torch.bfloat16)),
    "float16": mine(cast(torch.float16)),
    "norm in my class": mine(not_checkpointed, norm=nn.BatchNorm1d(8)),
    "norm under a checkpoint": mine(checkpointed, norm=nn.BatchNorm1d(8)),
    # hooks and gradients
    "forward hook 0.1": with_forward_hook(0.1),
    "forward hook 0.9": with_forward_hook(0.9),
    "forward hook in eval 0.1": with_forward_hook(0.1, only_in_eval=True),
    "forward hook in eval 0.9": with_forward_hook(0.9, only_in_eval=True),
    "backward hook 0.1": with_backward_hook(0.1),
    "backward hook 0.9": with_backward_hook(0.9),
    "gradient hook 0.1": mine(gradient_hook(0.1)),
    "gradient hook 0.9": mine(gradient_hook(0.9)),
    "hook on a parameter 0.1": changed(lambda m: m.weight.register_hook(lambda g: g * 0.1)),
    "hook on a parameter 0.9": changed(lambda m: m.weight.register_hook(lambda g: g * 0.9)),
    "hook on another parameter": changed(lambda m: m.bias.register_hook(lambda g: g * 0.9)),
    "hook after accumulation": changed(lambda m: m.weight.register_post_accumulate_grad_hook(shrink)),
    "reversal 1": mine(reversal(1.0)),
    "reversal 2": mine(reversal(2.0)),
    "frozen weight": changed(lambda m: m.weight.requires_grad_(False)),
    "frozen layer": changed(lambda m: m.requires_grad_(False)),
    "loaded": loaded(1.0),
    "loaded, doubled": loaded(2.0),
    "loaded, frozen": loaded(1.0, frozen=True),
    "times 0.5": changed(lambda m: m.weight.data.mul_(0.5)),
    "times 50": changed(lambda m: m.weight.data.mul_(50)),
    "times 0.5, frozen": frozen_after(lambda w: w.data.mul_(0.5)),
    "orthogonal": changed(lambda m: nn.init.orthogonal_(m.weight)),
    "orthogonal, doubled": changed(lambda m: nn.init.orthogonal_(m.weight, 2.0)),
    "orthogonal, frozen": frozen_after(nn.init.orthogonal_),
    "truncated": changed(lambda m: nn.init.trunc_normal_(m.weight)),
    "truncated, narrow": changed(lambda m: nn.init.trunc_normal_(m.weight, std=0.02)),
    "truncated, frozen": frozen_after(nn.init.trunc_normal_),
    "sparse": changed(lambda m: nn.init.sparse_(m.weight, 0.5)),
    "sparser": changed(lambda m: nn.init.sparse_(m.weight, 0.9)),
    "normal of half a layer": changed(lambda m: nn.init.orthogonal_(m.weight[:4].detach())),
    "normal of the other half": changed(lambda m: nn.init.orthogonal_(m.weight[4:].detach())),
    "seed 1": seeded(1),
    "seed 2": seeded(2),
    "seed 1, forgotten after": seeded(1, forgotten=True),
    "seed 2, forgotten after": seeded(2, forgotten=True),
    "zeros": changed(lambda m: nn.init.zeros_(m.weight)),
    "constant 0": changed(lambda m: nn.init.constant_(m.weight, 0.0)),
    "skipped on meta 0": skipped_on_meta(0.0),
    "skipped on meta 1": skipped_on_meta(1.0),
    "from a tensor": weight_of(torch.full((8, 8), 0.3)),
    "from another tensor": weight_of(torch.full((8, 8), 0.4)),
    "spectral norm": changed(parametrizations.spectral_norm),
    "spectral norm, twice": changed(lambda m: parametrizations.spectral_norm(m, n_power_iterations=2)),
    "weight norm": changed(parametrizations.weight_norm),
    "tensors in a list 1": with_tensors(1.0),
    "tensors in a list 2": with_tensors(2.0),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2)),
}
# Those that are one network.
SAME = [
    {"plain", "identity", "dropout of nothing", "relu in place", "lazy"},
    {"zeros", "constant 0"},
    {"without gradient 1.5", "by the child's mode 1.5"},
    {"without gradient 2", "by the child's mode 2"},
]


@pytest.fixture(scope="module")
def named() -> dict[str, str | None]:
    return {name: sketch(build, SHAPE, ()).fingerprint for name, build in POOL.items()}


def test_equal_fingerprints_are_equal_trainings(named: dict[str, str | None]) -> None:
    groups = defaultdict(list)
    for name, found in named.items():
        groups[found or name].append(name)
    for first, *others in groups.values():
        expected = trained(POOL[first])
        for other in others:
            assert all(map(torch.equal, expected, trained(POOL[other]))), (first, other)


def test_one_network_has_one_fingerprint_and_no_other_has_it(named: dict[str, str | None]) -> None:
    one = [{name for name in named if named[name] == named[next(iter(same))]} for same in SAME]
    assert one == SAME
    apart = [found for name, found in named.items() if not any(name in same for same in SAME)]
    assert None not in apart
    assert len(set(apart)) == len(apart)


def test_a_fingerprint_does_not_depend_on_when_it_is_taken(named: dict[str, str | None]) -> None:
    assert {name: sketch(build, SHAPE, ()).fingerprint for name, build in POOL.items()} == named
