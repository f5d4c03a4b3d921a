"""Make the pictures of the gallery, in docs/images (needs Chromium).

    python docs/gallery.py
    python studies/benchmarks/page.py --screenshot studies/images/dashboard.png

The first searches the digits for two objectives: the drawing of a network, the
front, the report. The second makes the page of a trial.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import optnas
import optuna
from optnas.space.blocks import conv, head, residual, separable_conv
from PIL import Image
from torch import nn

IMAGES = Path(__file__).parent / "images"
KINDS = {"conv": conv, "separable": separable_conv}


def space(trial: optnas.Trial) -> nn.Module:
    layers: list[nn.Module] = []
    for i in range(trial.suggest_int("depth", 1, 3)):
        block = optnas.scope(trial, "block", i)
        kind = KINDS[block.suggest_categorical("kind", list(KINDS))]
        stride = block.suggest_int("stride", 1, 2)
        layers.append(
            residual(
                block,
                lambda trial, k=kind, s=stride: k(
                    trial, width=(8, 16, 32), stride=s
                ),
            )
        )
    return nn.Sequential(*layers, head(trial, n_classes=10))


def photograph(page: Path, picture: Path, width: int, height: int) -> None:
    """What a browser of this size shows of a page, in few colors: a small file."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit(
            "The gallery needs Chromium (Debian: apt install chromium)."
        )
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    size = f"--window-size={width},{height}"
    shot = f"--screenshot={picture}"
    flags = ["--headless", "--disable-gpu", "--hide-scrollbars", size, shot, *root]
    subprocess.run(
        [chromium, *flags, "--virtual-time-budget=5000", page.as_uri()],
        check=True,
        capture_output=True,
    )
    with Image.open(picture) as image:
        image.convert("RGB").quantize(64).save(picture, optimize=True)


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        training = optnas.Training(
            optnas.Classification(10),
            optnas.Digits(),
            monitor="val_acc",
            mode="max",
            max_epochs=3,
            folder=folder / "runs",
        )
        values = {"val_acc": "maximize", "flops": "minimize"}
        objective = optnas.Objective(space, training, values=values)
        storage = f"sqlite:///{folder}/nas.db"
        study = optnas.create_study(
            objective,
            study_name="digits",
            storage=storage,
            sampler=optuna.samplers.RandomSampler(
                seed=0
            ),  # quick: these are pictures
            seed=0,
        )
        optnas.optimize(study, objective, n_trials=16)
        chosen = optnas.pick(optnas.front(study, objective))
        (IMAGES / "network.svg").write_text(optnas.draw(chosen.trial, objective))
        front = optnas.plots.plot_front(
            study, x="flops", y="val_acc", maximize=(False, True)
        )
        front.update_layout(width=900, height=450)
        front.write_html(folder / "front.html")
        photograph(folder / "front.html", IMAGES / "front.png", 920, 470)
        optnas.report(study, folder / "report.html", objective)
        photograph(folder / "report.html", IMAGES / "report.png", 1000, 1300)


if __name__ == "__main__":
    main()
