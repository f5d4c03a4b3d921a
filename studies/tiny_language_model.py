"""Search a small decoder-only transformer for the text that every Python has: its standard library.

    optnas run studies/tiny_language_model.py

The model guesses each byte from those before it; `val_bpb` is how many bits each costs. Modules are split by
name, so that what is validated on was never seen. The space is that of `optnas.hub.gpt`: heads, depth, hidden
width, positions, gate, normalization, grouped queries. The baseline is GPT-2's block at a size between.
"""

import sysconfig
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from optnas import Objective, TensorData, Training, Trial
from optnas.hub import gpt
from optnas.tasks import LanguageModeling
from optnas.trial import replay

LENGTH, VOCABULARY = 64, 128
TRAIN = ("argparse", "ast", "collections/__init__", "dataclasses", "datetime", "enum", "functools", "inspect")
VAL, TEST = ("logging/__init__", "pathlib"), ("pickle", "statistics")


def text(*modules: str, n: int) -> tuple[Tensor, Tensor]:
    """`n` pieces of LENGTH bytes, evenly from the source of these modules, and the same moved by one."""
    folder = Path(sysconfig.get_path("stdlib"))
    found = [folder / f"{module}.py" for module in modules]
    source = "\n".join(file.read_text(encoding="utf-8") for file in found if file.exists())
    numbers = torch.tensor(list(source.encode("ascii", errors="replace")))
    starts = torch.linspace(0, len(numbers) - LENGTH - 1, n).long()
    pieces = numbers[starts[:, None] + torch.arange(LENGTH + 1)]
    return pieces[:, :-1], pieces[:, 1:]


space = partial(
    gpt.network,
    vocabulary=VOCABULARY,
    length=LENGTH,
    head_width=(8, 16),
    heads=(1, 2, 4),
    kv_heads=(None, 1),
    depth=(1, 2, 3),
    expansion=(2.0, 4.0),
    bias=False,
)


def baseline(trial: Trial) -> nn.Module:
    """GPT-2's block, twice, 32 wide."""
    params = gpt.params_of(2, 2, head_width=16)
    settings = {"vocabulary": VOCABULARY, "length": LENGTH, "head_width": (8, 16)}
    return gpt.network(replay(params), **settings)


data = TensorData(text(*TRAIN, n=1500), val=text(*VAL, n=300), test=text(*TEST, n=300), batch_size=32)
task = LanguageModeling(VOCABULARY, lr=5e-3)
estimator = Training(task, data, monitor="val_bpb", mode="min", max_epochs=8)
objective = Objective(space, estimator)

study_name = "tiny_language_model"
storage = "sqlite:///language.db"
n_trials = 20
n_retrain = 5
