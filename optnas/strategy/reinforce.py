"""Policy gradient with a recurrent controller (Zoph & Le, ICLR 2017, arXiv:1611.01578).

Also the REINFORCE baseline of NATS-Bench (Dong et al., TPAMI 2021), whose controller has no recurrence.
"""

from __future__ import annotations

import itertools
import math
import zlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from optnas import private
from optnas.answers import Pick, index, is_continuous, is_logarithmic, options
from optnas.seeds import cpu_threads
from optnas.strategy.base import TrialSampler, is_sound, loss

BINS = 16

Answered = list[tuple[str, BaseDistribution, Any]]
"""The questions of a trial that had a choice, in order: name, distribution, answer."""


class ReinforceSampler(TrialSampler):
    """An LSTM answers one question after the other, given its earlier answers; finished trials train it.

    The reward of a trial is the share of the trials before it that are worse (so no scale of the objective
    matters); pruned and infeasible trials have none. The update is `(reward - baseline) * grad log p` plus an
    entropy bonus, by Adam; the baseline is a moving average of the rewards. A question with very many answers
    is answered by one of 16 intervals and then at random within it. The controller is rebuilt from the stored
    trials, in the order in which they ended, whoever made them.

    Args:
        learning_rate: Learning rate of Adam.
        entropy: The weight of the entropy bonus.
        batch: Number of trials in an update.
        baseline_decay: Decay of the moving average of the rewards.
        hidden: Number of units of the LSTM.
        seed: See `TrialSampler`.

    Raises:
        ValueError: `learning_rate`, `batch` or `hidden` is not positive, or not `0 <= baseline_decay < 1`.

    Examples:
        >>> controlled = optnas.create_study(
        ...     objective, sampler=lambda seed: optnas.ReinforceSampler(seed=seed), seed=0
        ... )
        >>> optnas.optimize(controlled, objective, n_trials=6)
    """

    def __init__(
        self,
        learning_rate: float = 0.1,
        entropy: float = 0.7,
        batch: int = 5,
        baseline_decay: float = 0.9,
        hidden: int = 32,
        seed: int | None = None,
    ) -> None:
        if not (learning_rate > 0 and batch > 0 and hidden > 0 and 0 <= baseline_decay < 1):
            raise ValueError(
                "ReinforceSampler needs learning_rate, batch and hidden above 0 and 0 <= baseline_decay < 1, "
                f"got learning_rate={learning_rate}, batch={batch}, hidden={hidden}, "
                f"baseline_decay={baseline_decay}."
            )
        super().__init__(seed)
        self.learning_rate = learning_rate
        self.entropy = entropy
        self.batch = batch
        self.baseline_decay = baseline_decay
        self.hidden = hidden
        self._learners: dict[int, _Learner] = {}  # per study; lost with the process, rebuilt from its trials

    def prepare(self, study: Study, trial: FrozenTrial, rng: np.random.Generator) -> Pick:
        """Learn from the trials that have ended since, then answer by the policy."""
        controller = self._learned(study).controller
        state: State | None = None
        read: set[str] = set()

        def pick(name: str, distribution: BaseDistribution) -> Any:
            nonlocal state
            with torch.no_grad(), cpu_threads(1):
                # Optuna adds each answer to the trial, those that were enqueued too: they are context.
                for earlier in [e for e in trial.params if e not in read]:
                    read.add(earlier)
                    asked = trial.distributions[earlier]
                    if not asked.single():
                        state, _ = controller.step(state, earlier, asked)
                        state = state.after(_action(earlier, asked, trial.params[earlier]))
                read.add(name)
                state, log_p = controller.step(state, name, distribution)
                p = log_p.double().exp().numpy()
                action = int(rng.choice(len(p), p=p / p.sum()))
                state = state.after(action)
            return _value(name, distribution, action, rng)

        return pick

    def _learned(self, study: Study) -> _Learner:
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        trials.sort(key=lambda trial: (trial.datetime_complete, trial.number))
        learner = self._learners.get(private.study_id(study))
        if learner is None or learner.numbers != [t.number for t in trials[: len(learner.numbers)]]:
            learner = _Learner(self)
            self._learners[private.study_id(study)] = learner
        with cpu_threads(1):
            for trial in trials[len(learner.numbers) :]:
                learner.learn(study, trial)
        return learner


class _Learner:
    """A controller, and what its next update depends on."""

    def __init__(self, sampler: ReinforceSampler) -> None:
        self.numbers: list[int] = []
        self.controller = _Controller(sampler.hidden, sampler.seed)
        self._settings = sampler
        self._losses: list[float] = []  # sorted
        self._baseline: float | None = None
        self._batch: list[tuple[Answered, float]] = []
        self._adam = torch.optim.Adam(
            [self.controller.answers, *self.controller.lstm.parameters()], lr=sampler.learning_rate
        )

    def learn(self, study: Study, trial: FrozenTrial) -> None:
        """Note the trial's advantage; after as many as make a batch, one step of policy gradient."""
        self.numbers.append(trial.number)
        reward = 0.0
        if is_sound(trial):
            value = loss(study, trial)
            not_worse = bisect_right(self._losses, value)
            ties = not_worse - bisect_left(self._losses, value)
            reward = 1 - (not_worse - 0.5 * ties) / len(self._losses) if self._losses else 0.5
            insort(self._losses, value)
        baseline = reward if self._baseline is None else self._baseline
        decay = self._settings.baseline_decay
        self._baseline = decay * baseline + (1 - decay) * reward
        asked = [
            (name, distribution, trial.params[name])
            for name, distribution in trial.distributions.items()
            if not distribution.single()
        ]
        if asked:
            self._batch.append((asked, reward - baseline))
        if len(self._batch) == self._settings.batch:
            self._step(*zip(*self._batch, strict=True))
            self._batch.clear()

    def _step(self, answered: Sequence[Answered], advantages: Sequence[float]) -> None:
        self._meet(answered)
        with torch.enable_grad():
            log_p, entropy = self.controller.log_likelihood(answered)
            objective = torch.tensor(advantages, device="cpu") * log_p + self._settings.entropy * entropy
            self._adam.zero_grad()
            (-objective.mean()).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self._adam.step()

    def _meet(self, answered: Iterable[Answered]) -> None:
        """Make room for the answers to questions that no trial has asked before."""
        old = self.controller.answers
        new = self.controller.meet(answered)
        if new is old:
            return
        self._adam.param_groups[0]["params"][0] = new
        if moments := self._adam.state.pop(old, None):
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name] = torch.cat([moments[name], torch.zeros_like(new[len(old) :])])
            self._adam.state[new] = moments


@dataclass(frozen=True)
class State:
    """What the controller knows of the answers so far; the last of them is yet to be read."""

    memory: tuple[torch.Tensor, torch.Tensor] | None
    embeddings: torch.Tensor  # of the answers to the last question, (actions, hidden)
    action: int = 0

    def after(self, action: int) -> State:
        return replace(self, action=action)


class _Controller:
    """An LSTM over the sequence of decisions; it reads the last answer and scores the next.

    Too small for several threads: they wait for each other, long where a training uses the cores.

    `answers` has one row for each possible answer to each question, `(answers, 2 * hidden + 1)`: its
    embedding, and the weights and the bias of its score.
    """

    def __init__(self, hidden: int, seed: int) -> None:
        self.hidden = hidden
        self._seed = seed
        with torch.random.fork_rng(devices=[]):
            self.lstm = nn.LSTM(hidden, hidden, batch_first=True, device="cpu", dtype=torch.float32)
        for parameter in self.lstm.parameters():
            self._initialize(parameter, "lstm")
        self.answers = torch.zeros(0, 2 * hidden + 1, device="cpu", requires_grad=True)
        self._rows: dict[tuple[str, str], range] = {}

    def meet(self, answered: Iterable[Answered]) -> torch.Tensor:
        """The rows of `answers`, made longer where a question is new."""
        for name, distribution, _ in itertools.chain.from_iterable(answered):
            if (key := (name, repr(distribution))) not in self._rows:
                new = self._first_rows(name, distribution)
                self._rows[key] = range(len(self.answers), len(self.answers) + len(new))
                self.answers = torch.cat([self.answers.detach(), new]).requires_grad_()
        return self.answers

    def step(
        self, state: State | None, name: str, distribution: BaseDistribution
    ) -> tuple[State, torch.Tensor]:
        """The state at a question, and the log probability of each action, `(actions,)`."""
        read = state.embeddings[state.action] if state else torch.zeros(self.hidden, device="cpu")
        output, memory = self.lstm(read[None], state.memory if state else None)
        rows = self._rows.get((name, repr(distribution)))
        answers = (
            self._first_rows(name, distribution) if rows is None else self.answers[rows.start : rows.stop]
        )
        log_p = torch.log_softmax(self._scores(answers, output[0]), dim=0)
        return State(memory, answers[:, : self.hidden]), log_p

    def log_likelihood(self, answered: Sequence[Answered]) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each trial's answers to questions that were met, and the mean entropy of these, both `(n,)`."""
        lengths = torch.tensor([len(questions) for questions in answered], device="cpu")
        # What pads a short trial is a question with one answer, which has neither surprise nor entropy.
        starts, sizes, actions = torch.zeros(
            3, len(answered), int(lengths.max()), dtype=torch.long, device="cpu"
        )
        sizes += 1
        for i, questions in enumerate(answered):
            rows = [self._rows[name, repr(distribution)] for name, distribution, _ in questions]
            starts[i, : len(rows)] = torch.tensor([row.start for row in rows])
            sizes[i, : len(rows)] = torch.tensor([len(row) for row in rows])
            actions[i, : len(rows)] = torch.tensor([_action(*question) for question in questions])
        read = self.answers[(starts + actions)[:, :-1], : self.hidden]
        outputs, _ = self.lstm(nn.functional.pad(read, (0, 0, 1, 0)))  # at first, nothing was answered
        columns = torch.arange(int(sizes.max()), device="cpu")
        possible = columns < sizes[..., None]
        answers = self.answers[torch.where(possible, starts[..., None] + columns, 0)]
        log_policy = torch.log_softmax(self._scores(answers, outputs).masked_fill(~possible, -1e9), dim=-1)
        log_p = log_policy.gather(-1, actions[..., None]).sum(dim=(1, 2))
        return log_p, -(log_policy.exp() * log_policy).sum(dim=(1, 2)) / lengths

    def _scores(self, answers: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        return (answers[..., self.hidden : -1] * outputs[..., None, :]).sum(dim=-1) + answers[..., -1]

    def _first_rows(self, name: str, distribution: BaseDistribution) -> torch.Tensor:
        """Of an unknown question: by its name, so that the order in which questions turn up does not matter.

        The bias is zero: the first policy is nearly uniform.
        """
        rows = torch.zeros(_n_actions(name, distribution), 2 * self.hidden + 1, device="cpu")
        self._initialize(rows[:, :-1], name)
        return rows

    def _initialize(self, parameter: torch.Tensor, name: str) -> None:
        generator = torch.Generator(device="cpu").manual_seed(self._seed + zlib.crc32(name.encode()))
        with torch.no_grad():
            parameter.uniform_(-0.1, 0.1, generator=generator)


def _is_binned(name: str, distribution: BaseDistribution) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return False
    return is_continuous(distribution) or len(options(name, distribution)) > 2 * BINS


def _n_actions(name: str, distribution: BaseDistribution) -> int:
    return BINS if _is_binned(name, distribution) else len(options(name, distribution))


def _action(name: str, distribution: BaseDistribution, value: Any) -> int:
    """Which of a question's actions leads to an answer."""
    if _is_binned(name, distribution):
        low, high = _bounds(distribution)
        number = math.log(value) if is_logarithmic(distribution) else value
        return min(max(int((number - low) / (high - low) * BINS), 0), BINS - 1)
    if isinstance(distribution, CategoricalDistribution):
        return index(distribution.choices, value)
    return int(np.abs(np.array(options(name, distribution)) - value).argmin())


def _value(name: str, distribution: BaseDistribution, action: int, rng: np.random.Generator) -> Any:
    """An answer to which an action leads; at random within an interval."""
    if not _is_binned(name, distribution):
        return options(name, distribution)[action]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _bounds(distribution)
    number = low + (high - low) * (action + rng.random()) / BINS
    number = math.exp(number) if distribution.log else number
    if distribution.step is not None:
        number = distribution.low + distribution.step * round((number - distribution.low) / distribution.step)
    number = min(max(number, distribution.low), distribution.high)
    return int(number) if isinstance(distribution, IntDistribution) else float(number)


def _bounds(distribution: Any) -> tuple[float, float]:
    low, high = distribution.low, distribution.high
    return (math.log(low), math.log(high)) if distribution.log else (low, high)
