"""How the papers train their networks: one function for each, which makes a `Training` of your data.

    from optnas.hub import darts, recipes

    data = TensorData((x, y), batch_size=96, augment=recipes.crops_and_flips)
    objective = Objective(darts.network, recipes.darts(data, max_epochs=50))

Each says optimizer, learning rate, schedule, regularization, batch size and augmentation; the last two are up
to `data`. `max_epochs` is the paper's unless you say otherwise; further arguments are those of `Training`.
What a paper does beyond that (auxiliary classifiers, steps instead of a cosine) is left out, and said.
Learning rates belong to the batch size that is named with them.

Examples:
    >>> from optnas.hub import recipes, resnet
    >>> published = optnas.Objective(
    ...     resnet.network, recipes.resnet(data, n_classes=3, max_epochs=10)
    ... )
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optnas.data.augment import random_flip, random_shift
from optnas.data.cache import Data
from optnas.tasks.classification import Classification
from optnas.tasks.detection import Detection
from optnas.tasks.language_modeling import LanguageModeling
from optnas.tasks.recipe import Constant, Cosine, Recipe
from optnas.tasks.regression import Regression
from optnas.tasks.segmentation import Segmentation
from optnas.training.training import Training

SGD: Callable[..., torch.optim.Optimizer] = partial(torch.optim.SGD, momentum=0.9)
ADAM: Callable[..., torch.optim.Optimizer] = torch.optim.Adam


def crops_and_flips(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images moved by up to four pixels each way and mirrored, the usual augmentation of CIFAR."""
    return random_flip(random_shift(x, generator, pixels=4), generator)


def darts(data: Data, *, n_classes: int = 10, max_epochs: int = 600, **training: Any) -> Training:
    """CIFAR-10 in section 3.3 of DARTS: batches of 96, `crops_and_flips` and cutout.

    SGD at 0.025, weight decay 3e-4, a cosine to zero, gradients clipped at 5. The paper drops paths more and
    more, up to 0.2, where `network(..., drop_path=0.2)` does so all the time, and has an auxiliary
    classifier.
    """
    recipe = Recipe(SGD, Cosine(warmup=0.0), clip=5.0)
    task = Classification(n_classes, lr=0.025, weight_decay=3e-4, recipe=recipe)
    return _by_accuracy(task, data, max_epochs, training)


def nasnet(data: Data, *, n_classes: int = 10, max_epochs: int = 600, **training: Any) -> Training:
    """CIFAR-10 in the authors' code of NASNet: batches of 32, `crops_and_flips` and cutout.

    SGD at 0.025, weight decay 5e-4, a cosine to zero, gradients clipped at 5; without its scheduled drop path
    and auxiliary classifier.
    """
    recipe = Recipe(SGD, Cosine(warmup=0.0), clip=5.0)
    task = Classification(n_classes, lr=0.025, weight_decay=5e-4, recipe=recipe)
    return _by_accuracy(task, data, max_epochs, training)


def mobilenetv3(data: Data, *, n_classes: int = 1000, max_epochs: int = 180, **training: Any) -> Training:
    """ImageNet in Once-for-All: batches of 2,048, crops, flips and changes of color.

    SGD with Nesterov's momentum at 2.6, weight decay 3e-5, a cosine to zero, label smoothing 0.1.
    """
    nesterov = partial(torch.optim.SGD, momentum=0.9, nesterov=True)
    recipe = Recipe(nesterov, Cosine(warmup=0.0))
    task = Classification(n_classes, label_smoothing=0.1, lr=2.6, weight_decay=3e-5, recipe=recipe)
    return _by_accuracy(task, data, max_epochs, training)


def resnet(data: Data, *, n_classes: int = 1000, max_epochs: int = 120, **training: Any) -> Training:
    """ImageNet in section 3.4 of ResNet: batches of 256, crops, flips and changes of color.

    SGD at 0.1, weight decay 1e-4; a cosine instead of divisions by ten at plateaus. On CIFAR-10 the paper
    takes batches of 128, `crops_and_flips` and 164 epochs.
    """
    recipe = Recipe(SGD, Cosine(warmup=0.0))
    task = Classification(n_classes, lr=0.1, weight_decay=1e-4, recipe=recipe)
    return _by_accuracy(task, data, max_epochs, training)


def regnet(data: Data, *, n_classes: int = 1000, max_epochs: int = 100, **training: Any) -> Training:
    """ImageNet in the appendix of Designing Network Design Spaces: batches of 1,024, crops and flips.

    SGD at 0.8, weight decay 5e-5, a cosine to zero after five epochs of warm-up.
    """
    recipe = Recipe(SGD, Cosine(warmup=0.05))
    task = Classification(n_classes, lr=0.8, weight_decay=5e-5, recipe=recipe)
    return _by_accuracy(task, data, max_epochs, training)


def convnext(data: Data, *, n_classes: int = 1000, max_epochs: int = 300, **training: Any) -> Training:
    """ImageNet in table 5 of ConvNeXt: batches of 4,096, RandAugment, mixed images, erased rectangles.

    AdamW at 4e-3, weight decay 0.05, a cosine to zero after 20 epochs of warm-up, label smoothing 0.1, an
    average of the weights; `network(..., drop_path=0.1)` for the smallest. `optnas.data.random_mixup` and
    `random_cutmix` mix images; RandAugment and erased rectangles are up to you.
    """
    recipe = Recipe(schedule=Cosine(warmup=20 / 300), average=0.9999)
    task = Classification(n_classes, label_smoothing=0.1, lr=4e-3, weight_decay=0.05, recipe=recipe)
    return _by_accuracy(task, data, max_epochs, training)


def vit(data: Data, *, n_classes: int = 1000, max_epochs: int = 500, **training: Any) -> Training:
    """ImageNet in table 5 of AutoFormer: batches of 1,024, the augmentation of DeiT.

    AdamW at 1e-3, weight decay 0.05, a cosine to 1e-5 after 20 epochs of warm-up, label smoothing 0.1;
    `network(..., drop_path=0.1)`.
    """
    recipe = Recipe(schedule=Cosine(warmup=20 / 500, floor=0.01))
    task = Classification(n_classes, label_smoothing=0.1, lr=1e-3, weight_decay=0.05, recipe=recipe)
    return _by_accuracy(task, data, max_epochs, training)


def gpt(data: Data, *, vocabulary: int = 50_257, max_epochs: int = 1, **training: Any) -> Training:
    """Text, each token once; batches of half a million tokens. Targets are the inputs moved by one.

    AdamW at 6e-4 with betas of 0.9 and 0.95, weight decay 0.1, a cosine to a tenth after a short warm-up,
    gradients clipped at 1: GPT-3's settings for the size of GPT-2 (Brown et al., 2020, arXiv:2005.14165),
    whose own are not published.
    """
    recipe = Recipe(partial(torch.optim.AdamW, betas=(0.9, 0.95)), Cosine(warmup=0.01, floor=0.1), clip=1.0)
    task = LanguageModeling(vocabulary, lr=6e-4, weight_decay=0.1, recipe=recipe)
    return _by_loss(task, data, max_epochs, training)


def bert(data: Data, *, n_classes: int = 2, max_epochs: int = 3, **training: Any) -> Training:
    """A task of GLUE in appendix A.3 of BERT: batches of 32.

    AdamW at 5e-5, the learning rate rising during a tenth of all steps; a cosine, where the paper goes down
    linearly. These are meant for weights that were trained before; untrained ones need a larger `lr` and
    longer.
    """
    recipe = Recipe(schedule=Cosine(warmup=0.1), clip=1.0)
    task = Classification(n_classes, lr=5e-5, weight_decay=0.01, recipe=recipe)
    return _by_accuracy(task, data, max_epochs, training)


def nasbench_nlp(data: Data, *, vocabulary: int = 10_000, max_epochs: int = 500, **training: Any) -> Training:
    """Penn Treebank in the code of AWD-LSTM: 20 sequences of 70 tokens. Targets are the inputs moved by one.

    SGD at 30 without momentum, weight decay 1.2e-6, gradients clipped at 0.25, an average of the weights,
    where the paper begins to average when validation stops improving; `network(..., dropout=0.25)`, without
    its dropout of recurrent weights.
    """
    recipe = Recipe(torch.optim.SGD, Constant(), clip=0.25, average=0.999)
    task = LanguageModeling(vocabulary, lr=30.0, weight_decay=1.2e-6, recipe=recipe)
    return _by_loss(task, data, max_epochs, training)


def tcn(data: Data, *, n_classes: int = 10, max_epochs: int = 20, **training: Any) -> Training:
    """Sequential MNIST in the code of Bai et al.: batches of 64, Adam at 2e-3, `network(..., dropout=0.05)`.

    A cosine instead of a division by ten after ten epochs.
    """
    recipe = Recipe(ADAM, Cosine(warmup=0.0))
    task = Classification(n_classes, lr=2e-3, weight_decay=0.0, recipe=recipe)
    return _by_accuracy(task, data, max_epochs, training)


def inception_time(data: Data, *, n_classes: int = 10, max_epochs: int = 1500, **training: Any) -> Training:
    """The UCR archive in the code of InceptionTime: batches of 64, Adam at 1e-3.

    A cosine instead of a halving where the loss stops improving; the paper averages the scores of five
    networks.
    """
    recipe = Recipe(ADAM, Cosine(warmup=0.0, floor=0.1))
    task = Classification(n_classes, lr=1e-3, weight_decay=0.0, recipe=recipe)
    return _by_accuracy(task, data, max_epochs, training)


def tabular(data: Data, *, n_classes: int | None = None, max_epochs: int = 100, **training: Any) -> Training:
    """Tables in Gorishniy et al.: AdamW at 1e-4, weight decay 1e-5, batches of 256 or more, no schedule.

    Without `n_classes` the targets are numbers, standardized. The paper stops after 16 epochs without
    improvement: `callbacks=[EarlyStopping("val_loss", patience=16)]`.
    """
    settings: dict[str, Any] = {"lr": 1e-4, "weight_decay": 1e-5, "recipe": Recipe(schedule=Constant())}
    if n_classes is None:
        return _by_loss(Regression(**settings), data, max_epochs, training)
    return _by_loss(Classification(n_classes, **settings), data, max_epochs, training)


def unet(data: Data, *, n_classes: int = 2, max_epochs: int = 100, **training: Any) -> Training:
    """Pixels or voxels in section 3 of U-Net: single images, shifts and elastic deformations.

    SGD with a momentum of 0.99, cross-entropy. Labels of -100 do not count, as unlabeled voxels in 3D U-Net.
    The paper gives no learning rate; 1e-3 is ours, and so is the number of epochs.
    """
    recipe = Recipe(partial(torch.optim.SGD, momentum=0.99), Cosine(warmup=0.0))
    task = Segmentation(n_classes, dice=0.0, lr=1e-3, weight_decay=0.0, recipe=recipe)
    return _by_loss(task, data, max_epochs, training)


def retinanet(data: Data, *, max_epochs: int = 12, **training: Any) -> Training:
    """COCO in section 4.1 of RetinaNet: batches of 16, flips; see `optnas.tasks.Detection` for the targets.

    SGD at 0.01, weight decay 1e-4; a cosine instead of two divisions by ten. The paper begins with a backbone
    that was trained before. `TensorData(mix=optnas.data.random_box_flip)` flips boxes with their images.
    """
    recipe = Recipe(SGD, Cosine(warmup=0.01))
    settings = {"monitor": "val_map", "mode": "max", **training}
    task = Detection(lr=0.01, weight_decay=1e-4, recipe=recipe)
    return Training(task, data, max_epochs=max_epochs, **settings)


def nasbench_graph(data: Data, *, n_classes: int = 7, max_epochs: int = 200, **training: Any) -> Training:
    """Nodes of one graph in Kipf & Welling, 2017: Adam at 0.01, weight decay 5e-4; dropout 0.5.

    A batch is `((features, edges), labels)`, with -100 for nodes of another split. NAS-Bench-Graph tunes
    these settings for each data set.
    """
    recipe = Recipe(ADAM, Constant())
    task = Classification(n_classes, lr=0.01, weight_decay=5e-4, recipe=recipe)
    return _by_loss(task, data, max_epochs, training)


def _by_accuracy(task: Any, data: Data, max_epochs: int, training: dict[str, Any]) -> Training:
    settings = {"monitor": "val_acc", "mode": "max", **training}
    return Training(task, data, max_epochs=max_epochs, **settings)


def _by_loss(task: Any, data: Data, max_epochs: int, training: dict[str, Any]) -> Training:
    settings = {"monitor": "val_loss", "mode": "min", **training}
    return Training(task, data, max_epochs=max_epochs, **settings)
