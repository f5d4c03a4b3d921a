"""Changes to batches of training images, drawn from one generator, which a resumed epoch repeats."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Change: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]


def random_shift(x: Tensor, generator: torch.Generator, pixels: int = 1) -> Tensor:
    """Move each image of `x` (n, channels, height, width) by up to `pixels` each way; zeros move in.

    Examples:
        >>> optnas.data.random_shift(torch.rand(4, 1, 8, 8), torch.Generator(), pixels=2).shape
        torch.Size([4, 1, 8, 8])
    """
    height, width = x.shape[-2:]
    padded = torch.nn.functional.pad(x, (pixels,) * 4)
    n = len(x)
    down, right = torch.randint(0, 2 * pixels + 1, (2, n, 1), generator=generator).to(x.device)
    rows = (down + torch.arange(height, device=x.device)).unsqueeze(2)
    columns = (right + torch.arange(width, device=x.device)).unsqueeze(1)
    shifted = padded[torch.arange(n, device=x.device).view(n, 1, 1), :, rows, columns]
    return shifted.permute(0, 3, 1, 2)


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image of `x` (n, channels, height, width) left to right with probability one half.

    Examples:
        >>> rows = (torch.rand(20, 1, 8, 8), torch.arange(20) % 2)
        >>> flipped = optnas.TensorData(rows, augment=optnas.data.random_flip)
    """
    flip = torch.rand(len(x), generator=generator).to(x.device) < 0.5
    return torch.where(flip.view(-1, 1, 1, 1), x.flip(-1), x)


def random_cutout(x: Tensor, generator: torch.Generator, size: int = 4) -> Tensor:
    """Zero a square of `size` pixels in each image (n, channels, height, width) (arXiv:1708.04552).

    Its center is anywhere in the image, so that part of it may lie outside.

    Examples:
        >>> from functools import partial
        >>> augment = partial(optnas.data.random_cutout, size=2)
        >>> int((augment(torch.ones(1, 1, 8, 8), torch.Generator().manual_seed(0)) == 0).sum()) <= 4
        True
    """
    height, width = x.shape[-2:]
    row = torch.randint(0, height, (len(x), 1, 1), generator=generator)
    column = torch.randint(0, width, (len(x), 1, 1), generator=generator)
    low = size // 2
    rows = torch.arange(height).view(1, -1, 1) - row + low
    columns = torch.arange(width).view(1, 1, -1) - column + low
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    return x.masked_fill(inside.unsqueeze(1).to(x.device), 0)


def random_color(x: Tensor, generator: torch.Generator, strength: float = 0.2) -> Tensor:
    """Change brightness, contrast and each channel's level of images (n, channels, height, width).

    Each by a factor or an amount drawn evenly from up to `strength` down or up; values may leave 0..1.

    Examples:
        >>> optnas.data.random_color(torch.rand(4, 3, 16, 16), torch.Generator(), strength=0.1).shape
        torch.Size([4, 3, 16, 16])
    """

    def drawn(*shape: int) -> Tensor:
        return ((torch.rand(shape, generator=generator) * 2 - 1) * strength).to(x.device, x.dtype)

    n, channels = x.shape[:2]
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (1 + drawn(n, 1, 1, 1)) + mean + drawn(n, 1, 1, 1) + drawn(n, channels, 1, 1) / 2


def random_jitter(x: Tensor, generator: torch.Generator, sigma: float = 0.03) -> Tensor:
    """Add normal noise of standard deviation `sigma` to every value, of series for example.

    Examples:
        >>> series = torch.zeros(8, 1, 50)
        >>> float(optnas.data.random_jitter(series, torch.Generator(), sigma=0.1).std()) > 0.05
        True
    """
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x + sigma * noise.to(x.device)


def random_scale(x: Tensor, generator: torch.Generator, sigma: float = 0.1) -> Tensor:
    """Multiply each channel of series (n, channels, length) by a normal factor around 1.

    Examples:
        >>> optnas.data.random_scale(torch.ones(2, 3, 50), torch.Generator()).shape
        torch.Size([2, 3, 50])
    """
    factor = 1 + sigma * torch.randn((*x.shape[:2], 1), generator=generator, dtype=x.dtype)
    return x * factor.to(x.device)


def random_time_mask(x: Tensor, generator: torch.Generator, share: float = 0.1) -> Tensor:
    """Zero one stretch of up to `share` of each series (n, channels, length) (arXiv:1904.08779).

    Examples:
        >>> masked = optnas.data.random_time_mask(torch.ones(4, 1, 50), torch.Generator(), share=0.2)
        >>> int((masked == 0).sum(dim=2).max()) <= 10
        True
    """
    length = x.shape[-1]
    size = torch.randint(0, max(1, round(share * length)) + 1, (len(x), 1), generator=generator)
    start = (torch.rand((len(x), 1), generator=generator) * (length - size + 1)).long()
    steps = torch.arange(length) - start
    return x.masked_fill(((steps >= 0) & (steps < size)).unsqueeze(1).to(x.device), 0)


def random_token_mask(x: Tensor, generator: torch.Generator, mask: int, share: float = 0.1) -> Tensor:
    """Replace each token of `x` (n, length) by the token `mask`, with probability `share`.

    Examples:
        >>> optnas.data.random_token_mask(
        ...     torch.tensor([[5, 6, 7]]), torch.Generator(), mask=0, share=1.0
        ... )
        tensor([[0, 0, 0]])
    """
    return x.masked_fill((torch.rand(x.shape, generator=generator) < share).to(x.device), mask)


def in_turn(*augments: Change) -> Change:
    """Several changes one after the other: `augment=in_turn(random_flip, random_cutout)`.

    Examples:
        >>> from optnas.data import in_turn, random_cutout, random_flip
        >>> images = torch.rand(4, 3, 16, 16)
        >>> in_turn(random_flip, random_cutout)(images, torch.Generator()).shape
        torch.Size([4, 3, 16, 16])
    """
    return _InTurn(augments)


class _InTurn:
    def __init__(self, augments: tuple[Change, ...]) -> None:
        self.augments = augments

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        for augment in self.augments:
            x = augment(x, generator)
        return x
