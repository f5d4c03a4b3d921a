"""Images in folders, one folder a class."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from optnas.data.tensors import PARTS, Split, TensorData

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


class ImageFolder(TensorData):
    """Images below `folder/<class>/`, or below `folder/train/<class>/` with `val` (or `valid`, `validation`,
    `dev`) and `test` beside it.

        data = ImageFolder("flowers", size=64, augment=random_flip)

    All are read into memory when it is made, in color and in one size: `(n, 3, size, size)` in 0..1. Files
    and folders whose names begin with a dot are not read. Needs Pillow.

    Args:
        folder: where the classes, or the parts, are.
        size: height and width in pixels; images are stretched to it.
        **options: of `TensorData`: `val`, `test` (shares, of which those that have a folder are not used),
            `batch_size`, `seed`, `augment`, `mix`.

    Attributes:
        classes: names of the folders, in the order of the labels.

    Raises:
        ValueError: a class has no images, a part has a class that the training part lacks, or it is not known
            how large the numbers of an image are.

    Warns:
        UserWarning: it is unclear what a folder beside `train` is.

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
        has_parts = bool(_folders(place / "train"))
        train = place / "train" if has_parts else place
        self.classes = _folders(train)
        found: dict[str, Split] = {}
        for name in _folders(place) if has_parts else []:
            part = PARTS.get(name.lower())
            if part is None or part in found:
                warnings.warn(
                    f"{place / name} is not read: it is not clear which part of the data it is. Name the "
                    "parts train, val and test, or move it elsewhere.",
                    stacklevel=2,
                )
            elif part != "train":
                found[part] = self._read(place / name, size)
        super().__init__(self._read(train, size), **{**options, **found})
        labels = [self.train[1], self.val[1], self.test[1]]
        empty = set(range(len(self.classes))) - {int(label) for part in labels for label in part.unique()}
        if empty:
            raise ValueError(f"{train / self.classes[min(empty)]} is a class without images; remove it.")

    def _read(self, part: Path, size: int) -> Split:
        try:
            from PIL import Image
        except ImportError as error:
            raise ImportError("ImageFolder needs Pillow: pip install 'optnas[images]'") from error
        unknown = sorted({*_folders(part)} - {*self.classes})
        if unknown:
            raise ValueError(f"{part} has the class {unknown[0]!r}, which the training images lack.")
        files = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((part / name).rglob("*"))
            if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
        ]
        if not files:
            raise ValueError(f"There are no images below {part}/<class>/ (of {', '.join(sorted(ENDINGS))}).")
        pixels = np.empty((len(files), 3, size, size), np.float32)
        for i, (path, _) in enumerate(files):
            with Image.open(path) as image:
                if image.mode in ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "YCbCr"):
                    resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
                    pixels[i] = np.asarray(resized, np.float32).transpose(2, 0, 1) / 255
                elif image.mode.startswith("I"):  # of 16 bits, which convert() would cut to 8
                    gray = Image.fromarray(np.asarray(image, np.float32))
                    pixels[i] = np.asarray(gray.resize((size, size), Image.Resampling.BILINEAR)) / 65535
                else:
                    raise ValueError(
                        f"{path} is of the mode {image.mode!r}, of which it is not known from where to where "
                        "its numbers go. Save it with 8 or 16 bits, or give arrays to TensorData."
                    )
        return pixels, np.array([label for _, label in files])


def _folders(place: Path) -> list[str]:
    """Names of the folders in one, if that is there, but of hidden ones."""
    if not place.is_dir():
        return []
    hidden = (".", "__MACOSX")
    return sorted(path.name for path in place.iterdir() if path.is_dir() and not path.name.startswith(hidden))
