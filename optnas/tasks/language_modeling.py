"""The next token of a text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from optnas.tasks.classification import Classifier, CrossEntropy
from optnas.tasks.task import Task
from optnas.trial import Trial


@dataclass(frozen=True)
class LanguageModeling(Task):
    """Cross-entropy of scores `(n, length, vocabulary)` against the token that follows.

    A batch is a tensor of tokens `(n, length)`, or a dict with `input_ids` (and `attention_mask`, whose zeros
    do not count), of which every token but the last is followed by the next; or a pair `(inputs, targets)`
    in which the targets have been moved already. Logs the loss in nats per token, `ppl`, the perplexity (its
    exponential), and `bpb`, bits per byte.

    Args:
        vocabulary: number of different tokens.
        bytes_per_token: mean length of a token of the text, for `bpb`; 1 for bytes as tokens.
        ignore_index: the target of what does not count; and `padding`, a token that is none.

    The keyword arguments of `optnas.tasks.Task` are accepted too: `lr`, `recipe`, `metrics`, `call`, ...

    Examples:
        >>> task = optnas.tasks.LanguageModeling(vocabulary=256)
        >>> module = task(nn.Embedding(256, 256), trial)
    """

    vocabulary: int
    bytes_per_token: float = 1.0
    ignore_index: int = -100
    padding: int | None = None

    def __call__(self, model: nn.Module, trial: Trial) -> LightningModule:
        loss = CrossEntropy(self.vocabulary, 0.0, self.ignore_index)
        return self.supervised(
            model,
            trial,
            loss,
            {},
            _LanguageModel,
            classes_last=True,
            bytes_per_token=self.bytes_per_token,
            padding=self.padding,
        )


class _LanguageModel(Classifier):
    def __init__(self, *args: Any, bytes_per_token: float, padding: int | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bytes_per_token = bytes_per_token
        self.padding = padding

    def split(self, batch: Any) -> tuple[Any, Any]:
        if isinstance(batch, Mapping) and isinstance(batch.get("input_ids"), Tensor):
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            tokens = batch.get("labels", batch["input_ids"])
            if isinstance(mask := batch.get("attention_mask"), Tensor):
                tokens = torch.where(mask.bool(), tokens, self.loss.ignore_index)
            return inputs, self._padded(tokens[:, 1:])
        if isinstance(batch, tuple | list) and len(batch) == 1:
            batch = batch[0]
        if isinstance(batch, Tensor):
            return batch[:, :-1], self._padded(batch[:, 1:])
        x, y = super().split(batch)
        return x, self._padded(y)

    def _padded(self, y: Tensor) -> Tensor:
        return y if self.padding is None else torch.where(y == self.padding, self.loss.ignore_index, y)

    def pair(self, output: Any, y: Any) -> tuple[Any, Any]:
        if isinstance(output, Tensor) and output.ndim == 3 and output.shape[1] == y.shape[1] + 1:
            output = output[:, :-1]  # nothing follows the last token
        return super().pair(output, y)

    def derived(self, loss: float) -> dict[str, float]:
        return {
            "ppl": math.exp(min(loss, 700.0)),
            "bpb": loss / math.log(2) / self.bytes_per_token,
        }
