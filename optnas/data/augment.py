"""Changes to batches of training images, drawn from one generator, which a resumed epoch repeats."""

from __future__ import annotations

import torch
from torch import Tensor


def random_shift(x: Tensor, generator: torch.Generator, pixels: int = 1) -> Tensor:
    """Move each image of `x` (n, channels, height, width) by up to `pixels` each way; zeros move in."""
    height, width = x.shape[-2:]
    padded = torch.nn.functional.pad(x, (pixels,) * 4)
    n = len(x)
    down, right = torch.randint(0, 2 * pixels + 1, (2, n, 1), generator=generator).to(x.device)
    rows = (down + torch.arange(height, device=x.device)).unsqueeze(2)
    columns = (right + torch.arange(width, device=x.device)).unsqueeze(1)
    shifted = padded[torch.arange(n, device=x.device).view(n, 1, 1), :, rows, columns]
    return shifted.permute(0, 3, 1, 2)


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image of `x` (n, channels, height, width) left to right with probability one half."""
    flip = torch.rand(len(x), generator=generator).to(x.device) < 0.5
    return torch.where(flip.view(-1, 1, 1, 1), x.flip(-1), x)
