"""The real data set that every example runs on."""

from __future__ import annotations

import torch

from optnas.data.tensors import Augment, Mix, TensorData


class Digits(TensorData):
    """The 1,797 handwritten digits (8 x 8 pixels, 10 classes) that scikit-learn ships: no download.

    x is `(n, 1, 8, 8)` in 0..1, y the class. 1,079 samples to train on, 359 to validate, 359 to test; the
    split is the same for every seed. From the UCI data set "Optical Recognition of Handwritten Digits"
    (Alpaydin & Kaynak, 1998).

    Examples:
        >>> digits = optnas.Digits(batch_size=64)
        >>> digits.setup("fit")
        >>> x, y = next(iter(digits.train_dataloader()))
        >>> tuple(x.shape)
        (64, 1, 8, 8)
    """

    def __init__(
        self,
        batch_size: int = 128,
        seed: int = 0,
        augment: Augment | None = None,
        mix: Mix | None = None,
    ) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        y = torch.tensor(digits.target, dtype=torch.int64)
        super().__init__((x, y), val=0.2, test=0.2, batch_size=batch_size, augment=augment, mix=mix)
        self.seed = seed
