"""Time of an epoch on the digits: Lightning with TensorData, and Training, beside a hand-written loop.

    python studies/benchmarks/epoch.py [repeats]

All three train the same network on the same batches with the same optimizer and schedule, then validate.
Each repeat runs the three one after the other; an epoch's time is CPU time, since other processes may be
about. Prints the median ratio to the loop and its quartiles.
"""

import statistics
import sys
import tempfile
import time

import optuna
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional

from optnas.data import Digits
from optnas.tasks import Classification
from optnas.training import Training
from optnas.training.quiet import quiet

EPOCHS = 10
LR = 5e-3


def network():
    torch.manual_seed(0)
    layers = []
    for width_in, width in ((1, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(width_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def loop(data, epochs):
    model = network()
    loader = data.train_dataloader()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=epochs * len(loader), pct_start=0.25
    )
    for _ in range(epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
        model.eval()
        correct, loss = 0, 0.0
        with torch.no_grad():
            for x, y in data.val_dataloader():
                scores = model(x)
                loss += functional.cross_entropy(scores, y).item() * len(y)
                correct += (scores.argmax(1) == y).sum().item()


def lightning(data, epochs):
    with quiet():
        trainer = pl.Trainer(
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(Classification(10, lr=LR)(network(), None), datamodule=data)


def training(data, epochs):
    with tempfile.TemporaryDirectory() as folder:
        estimator = Training(
            Classification(10, lr=LR), data, monitor="val_acc", mode="max", max_epochs=epochs, folder=folder
        )
        estimator(network(), optuna.create_study(direction="maximize").ask())


def epoch_seconds(train, data):
    """The time of an epoch without the start-up of a training, which the first epoch pays."""
    times = []
    for epochs in (1, 1 + EPOCHS):
        start = time.process_time()
        train(data, epochs)
        times.append(time.process_time() - start)
    return (times[1] - times[0]) / EPOCHS


def main():
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    data = Digits()
    ways = {"hand-written loop": loop, "Lightning, TensorData": lightning, "the same in Training": training}
    for train in ways.values():
        train(data, 2)
    seconds = {name: [] for name in ways}
    for _ in range(repeats):
        for name, train in ways.items():
            seconds[name].append(epoch_seconds(train, data))
    base = seconds["hand-written loop"]
    print(
        f"{'':24}{'ms per epoch':>14}{'ratio':>8}{'quartiles':>16}   ({repeats} repeats of {EPOCHS} epochs)"
    )
    for name, values in seconds.items():
        ratios = [value / other for value, other in zip(values, base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:24}{1e3 * statistics.median(values):14.1f}{middle:8.2f}{low:8.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
