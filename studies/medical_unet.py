"""Search a 3-d U-Net for volumes made here: find an organ and the lesion in it.

    optnas run studies/medical_unet.py

Each volume has an ellipsoid, brighter than what is around it, a small sphere within that is a little brighter
still, noise, and a brightness that changes from side to side, as in magnetic resonance. `val_dice` is the
mean of the three classes' Dice coefficients. The baseline is 3D U-Net with eight channels at the top and two
levels below.
"""

from functools import partial

import torch
from torch import Tensor, nn

from optnas import Objective, TensorData, Training, Trial
from optnas.hub import unet
from optnas.tasks import Segmentation
from optnas.trial import replay

SIZE = 16
N_CLASSES = 3  # background, organ, lesion


def volumes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Volumes `(n, 1, SIZE, SIZE, SIZE)` and the class of each voxel."""
    rng = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, 1, 1, 1, generator=rng)

    axis = torch.linspace(-1, 1, SIZE)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))[None]
    middle, radii = uniform(-0.2, 0.2, 3), uniform(0.5, 0.8, 3)
    organ = ((grid - middle) / radii).square().sum(1) < 1
    inside = middle + uniform(-0.5, 0.5, 3) * radii
    lesion = organ & ((grid - inside).square().sum(1) < uniform(0.15, 0.3).square())
    labels = organ.long() + lesion.long()
    drift = (uniform(-0.4, 0.4, 3) * grid).sum(1)
    noise = 0.4 * torch.randn(labels.shape, generator=rng)
    return (labels * 0.8 + drift + noise)[:, None], labels


space = partial(
    unet.network,
    width=(4, 8),
    depth=(1, 2),
    convs=(1, 2),
    classes=N_CLASSES,
    dims=3,
)


def baseline(trial: Trial) -> nn.Module:
    """3D U-Net, narrower and a level less deep."""
    return unet.network(replay({**unet.UNET_3D, "width": 8, "depth": 2}), classes=N_CLASSES, dims=3)


task = Segmentation(n_classes=N_CLASSES, lr=1e-2)
data = TensorData(volumes(96, 0), val=volumes(32, 1), test=volumes(64, 2), batch_size=8)
estimator = Training(task, data, monitor="val_dice", mode="max", max_epochs=30)
objective = Objective(space, estimator)

study_name = "medical_unet"
storage = "sqlite:///medical.db"
n_trials = 20
n_retrain = 5
