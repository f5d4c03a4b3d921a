"""One set of weights for all networks of a space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from optnas.answers import Pick
from optnas.estimation.shared import mark_shared
from optnas.facts.inputs import Example
from optnas.supernet.layout import Layout
from optnas.supernet.skeleton import Skeleton, Weight, real, skeleton
from optnas.trial import Space, Trial, ask, replay


class Supernet(nn.Module):
    """All networks of a space in one module, which share their weights.

    The candidates of a `Choice` have weights of their own, at each place where the choice stands; so has each
    position of a `Repeat`. What differs in size only (the width, the kernel, the expansion that a block asks
    for) is a slice of the largest: the first channels, the middle of a kernel. A plain function may decide
    sizes, and what has no weights (an activation, a stride); decisions about which weights exist must be
    nodes.

    Called, it runs the sub-network that `choose` set last, at first the largest. Normalizations use the
    statistics of the batch, in evaluation mode too: running ones would belong to no sub-network.

    Guo et al., Single Path One-Shot NAS, 2020 (arXiv:1904.00420); slices: Cai et al., Once-for-All, 2020
    (arXiv:1908.09791).

    Attributes:
        passes: how many passes of sub-networks it was trained by; a tensor.

    Args:
        space: a function of a trial that builds a network, preferably one made of nodes.
        example: inputs of the networks, as `Objective` takes them: `(2, 1, 8, 8)`.
        draws: number of random networks that are built to find all weights, beside those that show every
            answer once.

    Raises:
        SpaceError: nothing says which weights two networks share; the message names the decision and says
            what to write.

    Examples:
        >>> conv = optnas.Choice(
        ...     "op", {str(k): lambda trial, k=k: nn.Conv2d(1, 4, k, padding=k // 2) for k in (3, 5)}
        ... )
        >>> supernet = optnas.Supernet(
        ...     optnas.Chain(conv=conv, head=lambda trial: blocks.head(trial, n_classes=3)), example
        ... )
        >>> small = supernet.subnet(
        ...     replay({"conv.op": "3"})
        ... )  # an ordinary network with a copy of its weights
        >>> optnas.count_params(small)
        55
    """

    passes: Tensor

    def __init__(self, space: Space[nn.Module], example: Example, *, draws: int = 100) -> None:
        super().__init__()
        self._begin(Layout(space, example, draws))

    def _begin(self, layout: Layout) -> None:
        self.layout = layout
        self.weights = nn.ParameterDict()
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        for params, keys in layout.sources:
            found = self.draw(answers(params))
            model = found.model if _on_meta() else real(self.space, answers(params), layout.example)
            for name, parameter in model.named_parameters():
                weight = found.weights[name]
                if weight.key in keys:
                    whole = _filled(parameter, layout.weights[weight.key].shape, weight)
                    self.weights[_torch_name(weight.key)] = nn.Parameter(whole, parameter.requires_grad)
        self._chosen = self.draw(answers(layout.largest))

    def untrained(self, trial: Trial) -> Supernet:
        """Another supernet of the same space, with new weights.

        It is a space that asks nothing: `Objective(supernet.untrained, Training(SinglePath(task), ...))`
        trains shared weights as the one trial of a study.
        """
        other = Supernet.__new__(Supernet)
        nn.Module.__init__(other)
        other._begin(self.layout)
        return other

    @property
    def space(self) -> Space[nn.Module]:
        """The space of the stand-alone networks."""
        return self.layout.space

    def draw(self, pick: Pick) -> Skeleton:
        """The sub-network of the answers that `pick(name, distribution)` gives, for `choose`."""
        found = skeleton(self.space, pick, self.layout.example)
        self.layout.check(found)
        return found

    def choose(self, path: Skeleton) -> None:
        """Let `forward` run this sub-network."""
        self._chosen = path

    @property
    def chosen(self) -> Skeleton:
        """The sub-network that `forward` runs."""
        return self._chosen

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the chosen sub-network says; gradients go to the shared weights, those of others stay None."""
        if self.training and torch.is_grad_enabled():
            self.passes += 1
        path = self._chosen
        path.model.train(self.training)
        for module in path.model.modules():
            if isinstance(module, _NormBase):
                module.train()
        first = next(iter(self.weights.values()), None)
        path.fresh_statistics(torch.get_default_device() if first is None else first.device)
        parts = {name: self._part(weight) for name, weight in path.weights.items()}
        return functional_call(path.model, parts, args, kwargs)

    def subnet(self, trial: Trial) -> nn.Module:
        """The network that `space(trial)` builds, with a copy of its part of the shared weights.

        It is a space like any other, with the same questions, so every sampler searches it; on the meta
        device it is the stand-alone network. Running statistics of normalizations are as in a new network:
        recalibrate them before the network is scored (`Validation` does). `FineTuning` trains such networks
        on; other trainings refuse them, since their trials would not tell that they began with shared
        weights. To train from scratch, take `space`.

        Raises:
            SpaceError: it has a weight that is not among the shared ones.
        """
        if _on_meta():
            return self.space(trial)
        found = self.draw(lambda name, distribution: ask(trial, name, distribution))
        device = torch.get_default_device()
        found.fresh_statistics(device)
        copies: dict[nn.Parameter, nn.Parameter] = {}
        for name, parameter in found.model.named_parameters():
            part = self._part(found.weights[name]).detach().to(device, copy=True)
            copies[parameter] = nn.Parameter(part, parameter.requires_grad)
        for module in found.model.modules():
            for name, own in module._parameters.items():
                if own is not None:
                    module._parameters[name] = copies[own]  # of tied ones there is one copy
        return mark_shared(found.model)

    def _part(self, weight: Weight) -> Tensor:
        """Its part of the shared one, laid out as in a network alone, so that it computes alike."""
        return weight.within(self.weights[_torch_name(weight.key)]).contiguous()


def answers(params: Mapping[str, Any]) -> Pick:
    """Answers from `params`, which have them all."""
    trial = replay(params)
    return lambda name, distribution: ask(trial, name, distribution)


def _on_meta() -> bool:
    return torch.get_default_device().type == "meta"


def _torch_name(key: str) -> str:
    return key.replace(".", "/")  # torch allows no dot in the name of a parameter


def _filled(part: Tensor, shape: tuple[int, ...], weight: Weight) -> Tensor:
    """A tensor of that shape, the weight's slice of which is `part`; the rest is drawn from its values."""
    known = part.detach()
    if tuple(known.shape) == shape or not known.numel():
        return known.clone()
    drawn = torch.randint(known.numel(), (math.prod(shape),), device=known.device)
    whole = known.flatten()[drawn].reshape(shape)
    place = weight.place(whole)
    place.copy_(known.reshape(place.shape))
    return whole
