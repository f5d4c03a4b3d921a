"""A search whose networks are trained, from the shell to the files it leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import optuna
import torch
from scipy import stats
from typer.testing import Result

from optnas import record


def load() -> optuna.Study:
    return optuna.load_study(study_name="trained", storage="sqlite:///nas.db")


def test_training_ends_with_a_tested_exported_winner_beside_the_baseline(
    trained: Path, optnas_cli: Callable[..., Result]
) -> None:
    result = optnas_cli("run", trained)
    assert result.exit_code == 0, result.output
    assert "Test data, which the search never saw" in result.stdout
    assert "Trained anew from 2 seeds" in result.stdout
    assert "by hand" in result.stdout
    [onnx] = Path("runs/trained").glob("*.onnx")
    assert str(onnx) in result.stdout

    # Both files carry the same trained network.
    assert optnas_cli("export", trained, "best.pt2").exit_code == 0
    x = torch.rand(5, 1, 8, 8)
    [from_onnx] = onnxruntime.InferenceSession(onnx).run(None, {"input": x.numpy()})
    np.testing.assert_allclose(torch.export.load("best.pt2").module()(x).detach(), from_onnx, atol=1e-4)

    # What was trained anew is kept in the study, and not trained a second time.
    kept = record.all_retrained(load())
    assert [(type(k["who"]), len(k["runs"])) for k in kept] == [(int, 2), (str, 2)]
    ours, others = ([run["test_acc"] for run in k["runs"]] for k in kept)
    low, high = stats.ttest_rel(ours, others).confidence_interval()
    mean = np.mean(ours) - np.mean(others)
    assert f"test_acc {mean:+.4f} ({low:+.4f} to {high:+.4f})" in " ".join(result.stdout.split())
    again = optnas_cli("best", trained, "--retrain", 2)
    assert again.exit_code == 0, again.output
    assert record.all_retrained(load()) == kept

    # Weights fit a network with another activation: what it scores is not what was searched.
    file = trained.read_text()
    trained.write_text(file.replace("nn.ReLU()", "nn.Sigmoid()"))
    assert "began under other circumstances" in optnas_cli("best", trained).stderr
    trained.write_text(file)
    assert optnas_cli("best", trained).stderr == ""

    # A final trains those anew that have not been.
    final = optnas_cli("best", trained, "--finalists", 2, "--retrain", 2)
    assert final.exit_code == 0, final.output
    assert "The best 2 are trained anew from 2 seeds each" in final.stdout
    assert sum(isinstance(k["who"], int) for k in record.all_retrained(load())) == 2


def test_a_search_without_test_data_ends_as_well(trained: Path, optnas_cli: Callable[..., Result]) -> None:
    split = """
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import TensorDataset
digits = Digits()
data = LightningDataModule.from_datasets(
    TensorDataset(*digits.train), TensorDataset(*digits.val), batch_size=128
)
estimator ="""
    trained.write_text(
        trained.read_text().replace("estimator =", split, 1).replace("Digits(), mon", "data, mon")
    )
    result = optnas_cli("run", trained)
    assert result.exit_code == 0, result.output
    assert "There is no test: LightningDataModule has no test_dataloader()." in result.stdout
    trained_anew = [line for line in result.stdout.splitlines() if "val_acc" in line and " ± " in line]
    assert len(trained_anew) == 2  # the winner and the one by hand
    assert Path("runs/trained/best.onnx").exists()
