"""Search small mobile networks: accuracy against latency and size, on Fashion-MNIST.

    optnas run studies/fashion_mobile.py       # a front of 24 trials
    optnas best studies/fashion_mobile.py --pick "latency<=0.1" --pick "size<=20000" --retrain 5
    python studies/fashion_mobile.py           # the front beside MobileNetV2 scaled by hand, and the floors

The networks are made of the blocks of MobileNetV2 (arXiv:1801.04381). Decided are the widths, depths, kernels
and expansions of three stages, and with how many bits each stage keeps its weights: these are rounded in
training too (arXiv:1902.08153). Size is what such weights take when they are packed. Latency is that of one
image in ONNX Runtime (`pip install 'optnas[onnx]'`) on one thread of this machine, once weights are rounded
for good and normalizations folded into them; it computes with floats, whatever the bits.

The data are read from `../shared/data/fashion_mnist.npz` beside the repository, or from where Debian's
package `dataset-fashion-mnist` has them. Without either, patterns made here stand in, and the study is called
`fashion_mobile_stand_in`.
"""

from __future__ import annotations

import copy
import gzip
import math
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

import optnas
from optnas import Classification, Fact, Objective, TensorData, Training, Trial, pareto, record, scope
from optnas.devices import latency
from optnas.search.best import Best, Mean, train

SHARED = Path(__file__).parents[2] / "shared" / "data" / "fashion_mnist.npz"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
N_TRAIN, N_VAL = 1_800, 3_000  # with 600, the luckiest network of some dozens would seem to be 2 % better
IMAGE = (1, 1, 28, 28)
SCALES = (0.5, 1.0, 1.5)  # of the networks by hand
STAGES = {
    "widths": ((8, 12, 16), (12, 16, 24, 32), (24, 32, 48, 64)),
    "depths": ((1, 2), (1, 2, 3), (1, 2, 3)),
}


def rounded(weight: Tensor, bits: int) -> Tensor:
    """The weights as multiples of one step for each output, of which `bits` bits can tell; gradients pass."""
    most = 2 ** (bits - 1) - 1
    step = 2 * weight.detach().abs().flatten(1).mean(1).clamp_min(1e-8) / math.sqrt(most)
    step = step.reshape(-1, *[1] * (weight.dim() - 1))
    return weight + ((weight / step).round().clamp(-most - 1, most) * step - weight).detach()


class Rounded(nn.Module):
    """A convolution whose weights have so many bits, normalization, and, where it `acts`, an activation."""

    def __init__(
        self,
        channels: int,
        width: int,
        kernel: int,
        bits: int,
        stride: int = 1,
        groups: int = 1,
        acts: bool = True,
    ):
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(width)
        self.act = nn.ReLU6() if acts else nn.Identity()
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        weight = conv.weight if isinstance(self.norm, nn.Identity) else rounded(conv.weight, self.bits)
        y = functional.conv2d(x, weight, conv.bias, conv.stride, conv.padding, groups=conv.groups)
        return self.act(self.norm(y))

    def fold(self) -> None:
        self.conv.weight = nn.Parameter(rounded(self.conv.weight, self.bits).detach())
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class Inverted(nn.Module):
    """MobileNetV2's inverted residual."""

    def __init__(self, channels: int, width: int, kernel: int, expansion: int, stride: int, bits: int):
        super().__init__()
        wide = channels * expansion
        self.expand = Rounded(channels, wide, 1, bits) if expansion > 1 else nn.Identity()
        self.depthwise = Rounded(wide, wide, kernel, bits, stride=stride, groups=wide)
        self.project = Rounded(wide, width, 1, bits, acts=False)
        self.adds = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.adds else y


Stage = tuple[int, int, int, int, int]  # width, depth, kernel, expansion, bits


def network(stem: int, stages: list[Stage], last: int) -> nn.Sequential:
    """From images (n, 1, 28, 28), over maps of 14, 7, 7 and 4, to ten logits; 8 bits at stem and end."""
    layers: list[nn.Module] = [Rounded(1, stem, 3, 8, stride=2)]
    channels = stem
    for i, (width, depth, kernel, expansion, bits) in enumerate(stages):
        for j in range(depth):
            layers.append(Inverted(channels, width, kernel, expansion, 1 if i == 1 or j else 2, bits))
            channels = width
    pool = nn.AdaptiveAvgPool2d(1)
    end = [Rounded(channels, last, 1, 8), pool, Rounded(last, 10, 1, 8, acts=False), nn.Flatten()]
    return nn.Sequential(*layers, *end)


def space(trial: Trial) -> nn.Module:
    stages = []
    for i, (widths, depths) in enumerate(zip(STAGES["widths"], STAGES["depths"], strict=True)):
        stage = scope(trial, "stage", i)
        asked = (("width", widths), ("depth", depths), ("kernel", (3, 5)), ("expansion", (1, 2, 4, 6)))
        answers = [
            stage.suggest_categorical(name, choices) for name, choices in (*asked, ("bits", (2, 4, 8)))
        ]
        stages.append(tuple(answers))
    stem = trial.suggest_categorical("stem", (4, 8, 16))
    return network(stem, stages, trial.suggest_categorical("last", (32, 64, 128)))


def by_hand(scale: float) -> nn.Module:
    """MobileNetV2 cut to three stages, its widths scaled as people scale them: to multiples of four."""
    stem, *widths, last = (max(4, round(scale * width / 4) * 4) for width in (16, 16, 24, 32, 64))
    stages = [(w, depth, 3, t, 8) for w, depth, t in zip(widths, (1, 2, 2), (1, 6, 6), strict=True)]
    return network(stem, stages, last)


def baseline(trial: Trial) -> nn.Module:
    return by_hand(1.0)


def packed_bytes(model: nn.Module) -> int:
    """Weights at their bits; for each output of a layer a scale and a shift of four bytes, into which the
    step of its weights and its normalization fold."""
    layers = [layer for layer in model.modules() if isinstance(layer, Rounded)]
    bits = (layer.bits * layer.conv.weight.numel() for layer in layers)
    return sum(math.ceil(n / 8) for n in bits) + sum(8 * layer.conv.out_channels for layer in layers)


def shipped(model: nn.Module) -> nn.Module:
    """A copy for inference: weights rounded for good, normalizations folded into them."""
    model = copy.deepcopy(model).eval()
    for layer in model.modules():
        if isinstance(layer, Rounded):
            layer.fold()
    return model


def images() -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Images and classes to train on and to test on, in 0..255."""
    if SHARED.exists():
        with np.load(SHARED) as file:
            found = [file[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    elif DEBIAN.exists():
        found = []
        for part in ("train", "t10k"):
            for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):
                raw = gzip.decompress((DEBIAN / f"{part}-{kind}-ubyte.gz").read_bytes())
                found.append(np.frombuffer(raw, np.uint8, offset=header).copy())
    else:
        return None
    x, y, x_test, y_test = map(torch.from_numpy, found)
    return x.reshape(-1, 1, 28, 28), y.long(), x_test.reshape(-1, 1, 28, 28), y_test.long()


def stand_in() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten smooth patterns under noise."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand((10, 1, 7, 7), generator=draw)
    patterns = functional.interpolate(coarse, size=28, mode="bilinear")
    y = torch.arange(600) % 10
    x = 200 * patterns[y] + 100 * torch.randn((600, 1, 28, 28), generator=draw)
    return x[:400], y[:400], x[400:], y[400:]


def data(found: tuple[Tensor, Tensor, Tensor, Tensor]) -> TensorData:
    """The first images, those after them for validation, and the test set of the data as it is."""
    x, y, x_test, y_test = found
    scale = lambda images: (images.float() - 72) / 90  # noqa: E731  # mean and deviation of the pixels
    n_train = min(N_TRAIN, 3 * len(x) // 4)
    n_all = n_train + N_VAL
    train, val = (scale(x[:n_train]), y[:n_train]), (scale(x[n_train:n_all]), y[n_train:n_all])
    return TensorData(train, val=val, test=(scale(x_test), y_test), batch_size=64)


size = Fact("size", lambda model, example: packed_bytes(model), "size", "bytes", "lower")
timing = latency(IMAGE, mode="onnxruntime", threads=1, max_seconds=1.0)
as_shipped = replace(timing, measure=lambda model, example: timing.measure(shipped(model), example))
real = images()
estimator = Training(
    Classification(n_classes=10, lr=1e-2),
    data(real or stand_in()),
    monitor="val_acc",
    mode="max",
    max_epochs=5,
)
objective = Objective(
    space,
    estimator,
    values={"val_acc": "maximize", "latency": "minimize", "size": "minimize"},
    facts=[as_shipped, size],
)

study_name = "fashion_mobile" if real else "fashion_mobile_stand_in"
storage = "sqlite:///fashion.db"
seed = 0
n_retrain = 3
n_trials = 24


def main() -> None:
    """Search, and draw as many networks at random; then both beside those by hand, within their costs."""
    found = {}
    for name, sampler in (("", None), ("_random", lambda seed: RandomSampler(seed=seed))):
        study = optnas.create_study(
            objective, study_name=study_name + name, storage=storage, sampler=sampler, seed=seed
        )
        optnas.optimize(study, objective, n_trials=n_trials)
        found[name] = optnas.front(study, objective)
    for scale in SCALES:
        model = by_hand(scale)
        costs = {
            "latency": median(as_shipped.of(model, IMAGE) for _ in range(3)),
            "size": packed_bytes(model),
        }
        print(f"\nWithin {costs['latency']:.3f} ms and {costs['size']:,} bytes:")
        member = found[""][0]
        hand = Objective(lambda trial, scale=scale: by_hand(scale), estimator, values={"val_acc": "maximize"})
        origin = record.origin(member.study)
        runs = [train(hand, {}, member.seed_of(i), origin=origin) for i in range(n_retrain)]
        say(f"MobileNetV2 by hand, {scale} times", model, runs)
        for words, front in (("front", found[""]), ("front of random search", found["_random"])):
            try:
                picked = optnas.pick(front, limits=costs)
            except ValueError as nothing:
                print(f"{words}: {nothing}")
            else:
                say(
                    f"{words}, trial {picked.trial.number}",
                    objective.build(picked.trial),
                    picked.retrain(n_retrain),
                )
        drawn = [trial for trial in pareto.valued(found["_random"][0].study) if within(trial, costs)]
        if drawn:
            most = max(drawn, key=lambda trial: record.facts(trial)["flops"])
            best = Best(found["_random"][0].study, objective, most)
            say("most FLOPs of those drawn", objective.build(most), best.retrain(n_retrain))


def within(trial: FrozenTrial, costs: dict[str, float]) -> bool:
    return all(record.facts(trial)[name] <= most for name, most in costs.items())


def say(words: str, model: nn.Module, runs: list[dict[str, float]]) -> None:
    """A row: test accuracy over the seeds, and what the network costs when it is measured again."""
    took = median(as_shipped.of(model, IMAGE) for _ in range(3))
    accuracy = Mean.of([run["test_acc"] for run in runs])
    print(f"{words:32} test_acc {accuracy}  {took:.3f} ms  {packed_bytes(model):,} bytes", flush=True)


if __name__ == "__main__":
    main()
