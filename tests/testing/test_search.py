"""Deliberate mistakes in study files: each is found before the first trial, with its line and a way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from optnas.testing.search import line_of

Cli = Callable[..., Result]

GOOD = """\
import optuna
import torch
from torch import nn
from optnas import Classification, Objective, TensorData, Training
x = torch.rand(96, 8, generator=torch.Generator().manual_seed(0))
y = (x[:, 0] > x[:, 1]).long()
data = TensorData((x, y), batch_size=16)

def space(trial):
    width = trial.suggest_int("width", 4, 16)
    kind = trial.suggest_categorical("kind", ["ReLU", "Tanh", "SiLU"])
    return nn.Sequential(nn.Linear(8, width), getattr(nn, kind)(), nn.Linear(width, 2))

estimator = Training(
    Classification(n_classes=2),
    data,
    monitor="val_acc",
    mode="max",
    max_epochs=2,
)
objective = Objective(space, estimator)
n_trials = 3
"""

# What is replaced in GOOD, by what; then the part, the line, and words of what is said.
MISTAKES: dict[str, tuple[dict[str, str], str, int, str]] = {
    "a misspelled metric": (
        {'"val_acc"': '"val_acuracy"'},
        *("metric", 17, "logged no such metric, but .*val_acc"),
    ),
    "a wrong number of classes": (
        {"n_classes=2": "n_classes=3"},
        *("training", 15, r"takes scores \(n, 3, ...\) .* the model returned \(16, 2\)"),
    ),
    "a wrong input shape": (
        {"nn.Linear(8, width)": "nn.Linear(9, width)"},
        *("space", 9, r"in layer '0' \(Linear\): .* cannot be multiplied .*called with \(2, 8\) float32"),
    ),
    "a space that raises for some answers": (
        {'"SiLU"]': '"SILU"]'},
        *("space", 12, r"no attribute 'SILU'.* \(\d of 20 .*raise optuna.TrialPruned"),
    ),
    "a name for two decisions": (
        {'categorical("kind", ': 'categorical("width", '},
        *("space", 11, "'width' is asked twice .* different names"),
    ),
    "a name asked twice": (
        {"nn.Linear(width, 2)": 'nn.Linear(trial.suggest_int("width", 4, 16), 2)'},
        *("space", 12, "both places get one answer.*use scope"),
    ),
    "a choice that cannot be stored": (
        {'["ReLU", "Tanh", "SiLU"]': "[nn.ReLU, nn.Tanh]", "getattr(nn, kind)": "kind"},
        *("space", 11, "which Optuna cannot store. Offer names"),
    ),
    "a folder that cannot be made": (
        {"max_epochs=2": 'max_epochs=2, folder="study.py/runs"'},
        *("folder", 19, "study.py: Not a directory. Choose another place"),
    ),
    "a storage that cannot be reached": (
        {"n_trials = 3": 'storage = "sqlite:///no/such/folder/nas.db"'},
        *("storage", 22, "No such file or directory.*can be written to"),
    ),
    "a storage of no known kind": (
        {"n_trials = 3": 'storage = "nowhere://me:tUlip@host/nas"'},
        *("storage", 22, "A storage is a URL such as sqlite:///nas.db"),
    ),
    "a batch that is larger than the data": (
        {
            "TensorData((x, y), batch_size=16)": "Data()",
            "data = ": "class Data(pl.LightningDataModule):\n"
            "    def train_dataloader(self):\n"
            "        return DataLoader(TensorDataset(x, y), batch_size=128, drop_last=True)\n"
            "    val_dataloader = train_dataloader\ndata = ",
            "import optuna": "import optuna\nimport pytorch_lightning as pl\n"
            "from torch.utils.data import DataLoader, TensorDataset",
        },
        *("data", 11, "training data have no batch.*make batch_size smaller"),
    ),
    "validation data without a batch": (
        {"data,\n": "data,\n    limit_val_batches=0,\n"},
        *("training", 17, "Nothing was validated.*limit_val_batches"),
    ),
    "a loss that is no number": (
        {"nn.Linear(width, 2))": 'nn.Linear(width, 2), nn.Threshold(1e9, float("nan")))'},
        *("training", 14, "The loss of the very first step is nan"),
    ),
    "an early stopping by no metric": (
        {
            "max_epochs=2": 'max_epochs=2, callbacks=[EarlyStopping("val_los")]',
            "import optuna": "import optuna\nfrom pytorch_lightning.callbacks import EarlyStopping",
        },
        *("training", 20, "val_los"),
    ),
    "a sampler that cannot do it": (
        {"n_trials = 3": "sampler = optuna.samplers.GridSampler({'other': [1]})"},
        *("study", 22, "other|width"),
    ),
    "a limit on what nobody measures": (
        {"estimator)\n": 'estimator, limits={"flop": 1e6})\n'},
        *("metric", 21, "limits names 'flop'.*there are flops"),
    ),
}


def checked(text: str, *options: object, cli: Cli) -> Result:
    Path("study.py").write_text(text)
    return cli("check", "study.py", *options)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found_before_the_first_trial(mistake: str, toy: Path, optnas_cli: Cli) -> None:
    changes, part, line, words = MISTAKES[mistake]
    text = GOOD
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    result = checked(text, cli=optnas_cli)
    found = [
        re.match(r"(ok|careful|WRONG) +(\w+): (?:study.py:(\d+): )?(.*)", row)
        for row in result.stdout.splitlines()
    ]
    bad = [row.groups() for row in found if row is not None and row[1] != "ok"]
    assert len(bad) == 1, result.stdout
    [(mark, where, at, said)] = bad
    assert (where, int(at or 0)) == (part, line)
    assert re.search(words, said), said
    assert result.exit_code == (1 if mark == "WRONG" else 0)
    assert not Path("nas.db").exists()
    assert not Path("runs").exists()


def test_a_sound_file_is_told_how_long_it_takes(toy: Path, optnas_cli: Cli) -> None:
    result = checked(GOOD, "--workers", 2, "--trials", 4, cli=optnas_cli)
    assert result.exit_code == 0, result.output
    assert not re.search("^(careful|WRONG)", result.stdout, re.MULTILINE)
    assert re.search(
        r"time: about [\d.]+ s for a trial .*; about [\d.]+ s for 4 trials and 2 workers", result.stdout
    )
    assert "Next: optnas run study.py --trials 4" in result.stdout
    assert not Path("nas.db").exists()


def test_all_that_is_wrong_is_said_at_once(toy: Path, optnas_cli: Cli) -> None:
    text = GOOD.replace('"val_acc"', '"val_acuracy"').replace('"SiLU"]', '"SILU"]')
    text = text.replace("max_epochs=2", 'max_epochs=2, folder="study.py/runs"')
    text = text.replace("n_trials = 3", 'n_trails = 3\nstorage = "sqlite:///no/folder/nas.db"')
    result = checked(text, cli=optnas_cli)
    parts = re.findall(r"^(?:careful|WRONG) +(\w+): study.py:(\d+)", result.stdout, re.MULTILINE)
    assert parts == [("file", "22"), ("space", "12"), ("storage", "23"), ("folder", "19"), ("metric", "17")]
    assert result.exit_code == 1
    assert "4 of these must be fixed" in result.stderr


def test_what_workers_cannot_get_is_wrong_only_where_there_are_workers(toy: Path, optnas_cli: Cli) -> None:
    text = GOOD.replace("def space", "import threading\ndata.lock = threading.Lock()\ndef space")
    for n, mark in ((1, "careful"), (2, "WRONG  ")):
        result = checked(text, "--workers", n, cli=optnas_cli)
        [row] = [row for row in result.stdout.splitlines() if "cannot be handed to other processes" in row]
        assert row.startswith(f"{mark} workers: study.py:")
        assert "the estimator" in row


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('mode="max"', 'mode="up"', "Give 'max' or 'min'"),
        (
            "Objective(space, estimator)",
            "Objective(space, lambda model, trial: {})",
            "must name a metric and its direction",
        ),
        ("n_classes=2", "n_class=2", "unexpected keyword argument 'n_class'"),
    ],
)
def test_a_file_that_cannot_be_read_shows_its_line(
    old: str, new: str, words: str, toy: Path, optnas_cli: Cli
) -> None:
    result = checked(GOOD.replace(old, new), cli=optnas_cli)
    assert result.exit_code == 1
    assert words in result.stderr
    assert re.search(r'study.py", line \d+', result.stderr)


def test_run_spends_no_trial_on_what_would_fail_them_all(toy: Path, optnas_cli: Cli) -> None:
    Path("study.py").write_text(
        GOOD.replace('["ReLU", "Tanh", "SiLU"]', "[nn.ReLU, nn.Tanh]").replace("getattr(nn, kind)", "kind")
    )
    result = optnas_cli("run", "study.py")
    assert result.exit_code == 1
    assert "study.py:11" in result.stderr
    assert "Offer names" in result.stderr
    assert "optnas check study.py" in result.stderr


def test_the_line_of_a_name_is_where_it_gets_that_value(tmp_path: Path) -> None:
    file = tmp_path / "some.py"
    file.write_text("a = f(x=1)\nb = f(\n    x=2,\n)\nx = 3\n")
    assert [line_of(file, "x", value) for value in (1, 2, 3)] == [1, 3, 5]
    assert line_of(file, "x", 4) == 1
    assert line_of(file, "y") is None
