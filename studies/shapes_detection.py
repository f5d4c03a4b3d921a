"""Search a one-stage detector for images made here: where are ellipses, rectangles and triangles?

    optnas run studies/shapes_detection.py

Each image of 64 x 64 pixels has one to three shapes, in colors that differ from what is around them, under
noise; a shape may hide a part of another. `val_map` is the mean average precision of COCO, over overlaps from
.50 to .95. The space is RetinaNet's, an eighth as wide, within the FLOPs of the baseline: RetinaNet with a
ResNet-18, a pyramid of 32 channels, and heads of two convolutions.
"""

from functools import partial

import torch
from torch import Tensor, nn

from optnas import Objective, TensorData, Training, Trial
from optnas.data import random_box_flip
from optnas.hub import resnet, retinanet
from optnas.tasks import Detection, Recipe
from optnas.trial import replay

SIZE, MOST = 64, 3
CLASSES = ("ellipse", "rectangle", "triangle")


def scenes(n: int, seed: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Images `(n, 3, SIZE, SIZE)`, and of each the boxes `(MOST, 4)` and classes: -1 where is no shape."""
    rng = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=rng)

    places = torch.arange(SIZE) + 0.5
    y, x = places.view(1, SIZE, 1), places.view(1, 1, SIZE)
    quarters = torch.rand(n, 4, generator=rng).argsort(1)[:, :MOST]  # each shape has one, about
    middles = SIZE // 4 + SIZE // 2 * torch.stack([quarters % 2, quarters // 2], 2) + uniform(-6, 6, MOST, 2)
    sides = uniform(14, 34, MOST, 2).round()
    corners = (middles - sides / 2).round().clamp(min=0)
    corners = torch.minimum(corners, SIZE - sides)
    boxes = torch.cat([corners, corners + sides], 2)
    classes = torch.randint(len(CLASSES), (n, MOST), generator=rng)
    shown = torch.arange(MOST) <= torch.randint(MOST, (n, 1), generator=rng)
    around = uniform(-0.2, 0.2, 3, 1, 1)
    images = around.expand(n, 3, SIZE, SIZE)
    for i in range(MOST):
        left, top, right, bottom = boxes[:, i].view(n, 4, 1, 1).unbind(1)
        across, down = (x - left) / (right - left), (y - top) / (bottom - top)  # 0 to 1 within the box
        inside = (across > 0) & (across < 1) & (down > 0) & (down < 1)
        forms = (
            (across - 0.5) ** 2 + (down - 0.5) ** 2 < 0.25,
            inside,
            inside & ((across - 0.5).abs() < down / 2),
        )
        form = torch.stack(forms, 1)[torch.arange(n), classes[:, i]] & shown[:, i].view(n, 1, 1)
        color = around + uniform(0.15, 0.5, 3, 1, 1) * uniform(-1, 1, 3, 1, 1).sign()
        images = torch.where(form[:, None], color, images)
    noise = 0.1 * torch.randn(images.shape, generator=rng)
    return images + noise, (boxes, classes.masked_fill(~shown, -1))


space = partial(
    retinanet.network,
    classes=len(CLASSES),
    depth=(1, 2, 3),
    groups="1x64",
    backbone_width=8,
    width=(16, 32, 48),
    head_depth=(1, 2, 3),
    smallest=16,
)


def baseline(trial: Trial) -> nn.Module:
    """An eighth of RetinaNet with a ResNet-18: 8 to 64 channels, a pyramid of 32; heads half as deep."""
    backbone = {f"backbone.{name}": answer for name, answer in resnet.R18.items()}
    return space(replay({**backbone, "width": 32, "bottom_up": False, "head_depth": 2}))


data = TensorData(scenes(480, 0), val=scenes(160, 1), test=scenes(320, 2), batch_size=16, mix=random_box_flip)
task = Detection(lr=6e-3, recipe=Recipe(clip=1.0))
estimator = Training(task, data, monitor="val_map", mode="max", max_epochs=12)
objective = Objective(space, estimator, limits={"flops": 1.8e7})

study_name = "shapes_detection"
storage = "sqlite:///shapes.db"
n_trials = 20
n_retrain = 5
