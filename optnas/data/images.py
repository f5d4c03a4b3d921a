"""Images in folders, one folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from optnas.data.tensors import Split, TensorData

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


class ImageFolder(TensorData):
    """Images below `folder/<class>/`, or below `folder/train/<class>/` with `val` and `test` beside it.

        data = ImageFolder("flowers", size=64, augment=random_flip)

    All are read into memory when it is made, in color and in one size: `(n, 3, size, size)` in 0..1. Needs
    Pillow.

    Args:
        folder: where the classes, or the parts, are.
        size: height and width in pixels; images are stretched to it.
        **options: of `TensorData`: `val`, `test` (shares, of which those that have a folder are not used),
            `batch_size`, `seed`, `augment`, `mix`.

    Attributes:
        classes: names of the folders, in the order of the labels.

    Raises:
        ValueError: there are no images, or a part has a class that the training part lacks.

    Examples:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> for kind in ("daisy", "rose"):
        ...     Path("flowers", kind).mkdir(parents=True)
        ...     for i in range(6):
        ...         Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(f"flowers/{kind}/{i}.png")
        >>> flowers = optnas.data.ImageFolder("flowers", size=16, augment=optnas.data.random_flip)
        >>> flowers.classes
        ['daisy', 'rose']
    """

    def __init__(self, folder: str | Path, size: int = 32, **options: Any) -> None:
        place = Path(folder)
        has_parts = (place / "train").is_dir()
        train = place / "train" if has_parts else place
        self.classes = sorted(path.name for path in train.iterdir() if path.is_dir())
        for name in ("val", "test"):
            if has_parts and (place / name).is_dir():
                options[name] = self._read(place / name, size)
        super().__init__(self._read(train, size), **options)

    def _read(self, part: Path, size: int) -> Split:
        try:
            from PIL import Image
        except ImportError as error:
            raise ImportError("ImageFolder needs Pillow: pip install 'optnas[images]'") from error
        unknown = sorted({path.name for path in part.iterdir() if path.is_dir()} - set(self.classes))
        if unknown:
            raise ValueError(f"{part} has the class {unknown[0]!r}, which the training images lack.")
        files = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((part / name).rglob("*"))
            if path.suffix.lower() in ENDINGS
        ]
        if not files:
            raise ValueError(f"There are no images below {part}/<class>/ (of {', '.join(sorted(ENDINGS))}).")
        pixels = np.empty((len(files), 3, size, size), np.float32)
        for i, (path, _) in enumerate(files):
            with Image.open(path) as image:
                resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
                pixels[i] = np.asarray(resized, np.float32).transpose(2, 0, 1) / 255
        return pixels, np.array([label for _, label in files])
