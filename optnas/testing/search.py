"""All that can fail before the first trial of a search, found out at once and without a trial."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import sqlite3
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from torch import Tensor
from torch.utils._pytree import tree_leaves

from optnas.answers import keep_or_draw
from optnas.errors import ConformanceError, OptnasError, cause_of, describe_error, place_of
from optnas.estimation import remote
from optnas.estimation.estimator import Preview
from optnas.estimation.run import Run
from optnas.facts.inputs import Example, as_inputs
from optnas.facts.memory import estimate_memory, memory_of_device
from optnas.objective import Objective
from optnas.passwords import without_password, without_secrets
from optnas.search.fits import check_fits
from optnas.search.rehearsal import random_numbers_as_before, some_answers
from optnas.search.study import SamplerFactory, check_values, create_study
from optnas.space.explore import on_meta, walk
from optnas.storage.location import parse_url
from optnas.storage.open import open_storage
from optnas.testing.spaces import find_faults
from optnas.trial import Draw, name_of, replay

Kind = Literal["wrong", "careful", "fine"]

_NETWORKS = 12
"""How many random architectures are drawn, of which one of middle size and the largest are tried."""

_PATIENCE = 3.0
"""Seconds that a database may take to answer."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        part: which part of the search was checked: space, data, training, metric, study, storage, folder,
            workers, memory, time.
        words: what is wrong and the way out, or what works.
        where: `file:line` where that is known, else "".
        kind: "wrong" where the search would fail or mislead, "careful" where it may, else "fine".

    Examples:
        >>> findings = optnas.testing.check_search(objective, quick=True)
        >>> {finding.kind for finding in findings}
        {'fine'}
    """

    part: str
    words: str
    where: str = ""
    kind: Kind = "wrong"

    def __str__(self) -> str:
        return f"{self.part}: {f'{self.where}: ' if self.where else ''}{self.words}"


def check_search(
    objective: Objective,
    *,
    study_name: str | None = None,
    storage: str | None = None,
    sampler: BaseSampler | SamplerFactory | None = None,
    pruner: BasePruner | None = None,
    n_trials: int | None = None,
    n_workers: int = 1,
    file: Path | None = None,
    quick: bool = False,
) -> list[Finding]:
    """Look for everything that would go wrong in a search, and say all of it; nothing is stored or changed.

        for finding in check_search(objective, storage="sqlite:///nas.db", n_trials=100):
            print(finding)

    Random architectures are built and run, two of them are trained for a few batches and validated; storage
    and checkpoint folder are tried; and from the time that a batch takes follows that of the whole search.

    Args:
        study_name, storage, sampler, pruner: as for `optnas.create_study`.
        n_trials, n_workers: as for `optnas.optimize`.
        file: the study file, in which to find the line of what is wrong.
        quick: only what takes no training: space, study, storage and folder. What costs some trials, but not
            all, is then "careful".

    Examples:
        >>> findings = optnas.testing.check_search(objective, n_trials=100, quick=True)
        >>> [finding.part for finding in findings]
        ['study', 'space']
    """
    search = _Search(objective, study_name or name_of(objective.space), storage, n_trials, n_workers, file)
    with random_numbers_as_before(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [*search.storage_and_study(sampler, pruner), *search.folder()]
        if quick:
            return [*found, *search.space(None, n_samples=10, strict=False)]
        try:
            example, of_data = search.example(), []
        except Exception as error:
            example, of_data = None, [search.told("data", error)]
        of_space = [*search.space(example)]
        found = [*of_data, *of_space, *found]
        if not of_data:
            found += search.estimate(example, bad=any(finding.kind == "wrong" for finding in of_space))
        return [*found, *search.workers(sampler, pruner)]


@dataclass(frozen=True)
class _Search:
    objective: Objective
    study_name: str
    storage: str | None
    n_trials: int | None
    n_workers: int
    file: Path | None

    def told(self, part: str, error: BaseException, way_out: str = "", **hint: Any) -> Finding:
        """An error as a finding, with the line of the user's code, or of what the error names."""
        place = place_of(error) or place_of(error.__cause__ or error)
        where = place.partition(" in ")[0] or self._line_named(str(error)) or self.line(**hint)
        words = next(iter(str(error).strip().splitlines()), "no message")
        if not isinstance(error, OptnasError):
            words = f"{type(error).__name__}: {words}"
        return Finding(part, f"{words} {way_out}".strip(), where)

    def line(self, **hint: Any) -> str:
        """`file:line` where the study file says `name=value`, as an argument or an assignment."""
        if self.file is None:
            return ""
        for name, value in hint.items():
            if (line := line_of(self.file, name, value)) is not None:
                return f"{self.file.name}:{line}"
        return ""

    def _line_named(self, message: str) -> str:
        """The line of a string that the message quotes, or else of an argument that it names."""
        line = None if self.file is None else line_named(self.file, message)
        return "" if self.file is None or line is None else f"{self.file.name}:{line}"

    # ---- space and data ----

    def example(self) -> Example:
        return self.objective.example_for(Draw(keep_or_draw({}, np.random.default_rng(0))))

    def space(self, example: Example | None, n_samples: int = 20, strict: bool = True) -> Iterator[Finding]:
        """What `check_space` finds; unless `strict`, only what no trial can survive is wrong."""
        faults: dict[str, list[ConformanceError]] = {}
        for fault in find_faults(self.objective.space, example, n_samples=n_samples):
            faults.setdefault(f"{fault.check} {cause_of(fault.__cause__ or fault)}", []).append(fault)
        for alike in faults.values():
            first = alike[0]
            way_out = f"({len(alike)} of {n_samples} random architectures fail in this way.)"
            if first.check == "build":
                way_out += " Fix it, or refuse such answers: raise optuna.TrialPruned('why')."
            elif first.check in ("forward", "backward") and example is not None:
                way_out += f" The model is called with {_shapes(example)}."
            found = replace(self.told("space", first, way_out), where=self._in_space(first))
            lasting = first.check in ("choices", "names", "same choices") or len(alike) == n_samples
            careful = first.check == "shared names" or not (strict or lasting)
            yield replace(found, kind="careful") if careful else found
        if not faults:
            run = "" if example is None else f" and ran on {_shapes(example)}"
            yield Finding("space", f"{n_samples} random architectures were built{run}.", kind="fine")

    def _in_space(self, fault: ConformanceError) -> str:
        """Where in the user's code it came up, or where the space begins."""
        place = place_of(fault) or place_of(fault.__cause__ or fault)
        if place:
            return place.partition(" in ")[0]
        code = getattr(inspect.unwrap(self.objective.space), "__code__", None)  # of a function of the user's
        return f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code is not None else ""

    # ---- the estimate ----

    def estimate(self, example: Example, bad: bool) -> Iterator[Finding]:
        """Let two random architectures go through a short estimate."""
        previews: list[tuple[dict[str, Any], Preview]] = []
        errors: list[Exception] = []
        networks = self.networks()
        for params in networks:
            try:
                model = self.objective.build(replay(params))
            except optuna.TrialPruned:
                continue
            except Exception as error:
                if not bad:  # the space has not said it
                    errors.append(error)
                continue
            try:
                previews.append((params, self.objective.estimator.preview(model, Run.of(replay(params)))))
            except optuna.TrialPruned:
                continue
            errors += previews[-1][1].errors
        known: set[str] = set()
        for raised in errors:
            if describe_error(raised) not in known:
                known.add(describe_error(raised))
                yield self._of_estimate(raised, all(p.errors for _, p in previews))
        if previews and not errors:
            tried = f"{len(previews)} random architectures went through a short estimate"
            words = {True: f"{tried}: a few batches of training and a validation.", False: f"{tried}."}
            yield Finding("training", words[previews[0][1].seconds is not None], kind="fine")
            yield from self.names(previews[0][1])
            yield from self.memory(example, previews)
        yield from self.time(previews)

    def _of_estimate(self, error: Exception, everywhere: bool) -> Finding:
        ours = isinstance(error, ValueError | TypeError) and not place_of(error)
        part = "metric" if "monitor=" in str(error) else "training"
        way_out = "" if ours else "It was raised in the first step of a training."
        found = self.told(part, error, way_out, estimator=_ANY, objective=_ANY)
        kind: Kind = "careful" if isinstance(error, FloatingPointError) and not everywhere else "wrong"
        return replace(found, kind=kind)

    def networks(self) -> list[dict[str, Any]]:
        """Complete answers for an architecture of middle size and for the largest of some."""
        drawn = [some_answers(self.objective, {}, seed) for seed in range(_NETWORKS)]
        costs = [self.objective.foresee(params).get("flops", 0.0) for params in drawn]
        order = sorted(range(_NETWORKS), key=lambda i: costs[i])
        return [drawn[order[_NETWORKS // 2]], drawn[order[-1]]]

    def names(self, preview: Preview) -> Iterator[Finding]:
        """Metrics that the objective or a limit names and nobody measures, or that are called like a fact."""
        if preview.metrics is None:
            return
        for words in self.objective.misnamed(preview.metrics):
            yield Finding("metric", words, self.line(**{words.partition(" ")[0]: _ANY}))

    def memory(self, example: Example, previews: list[tuple[dict[str, Any], Preview]]) -> Iterator[Finding]:
        params, preview = previews[-1]
        if preview.batch_size is None:
            return
        with suppress(Exception):  # it cannot be estimated: then nothing is said of it
            model = on_meta(lambda: self.objective.space(replay(params)))
            with warnings.catch_warnings():
                model(*as_inputs(example, "meta")[0], **as_inputs(example, "meta")[1])  # settles lazy shapes
            needs = estimate_memory(
                model, example, batch_size=preview.batch_size, training=True, optimizer_states=2
            ).total
            has = memory_of_device()
            share = f"about {_bytes(needs)} of {_bytes(has)} for batches of {preview.batch_size}"
            if needs > has:
                words = f"the largest of {_NETWORKS} random architectures needs {share}: make batch_size or "
                words += "the space smaller, or give Objective(limits=...) one on memory."
                yield Finding("memory", words, self.line(batch_size=_ANY))
            else:
                words = f"the largest of {_NETWORKS} random architectures needs {share}."
                yield Finding("memory", words, kind="fine")

    def time(self, previews: list[tuple[dict[str, Any], Preview]]) -> Iterator[Finding]:
        took = [preview.seconds for _, preview in previews if preview.seconds is not None]
        if not took:
            if previews and not any(preview.errors for _, preview in previews):
                words = "how long an estimate takes is not known: the estimator does not say."
                yield Finding("time", words, kind="fine")
            return
        words = f"about {_duration(took[0])} for a trial of middle size"
        if len(took) > 1:
            words += f", {_duration(took[1])} for the largest of {_NETWORKS}"
        if self.n_trials:
            total = self.n_trials * took[0] / self.n_workers
            several = f" and {self.n_workers} workers" if self.n_workers > 1 else ""
            words += (
                f"; about {_duration(total)} for {self.n_trials} trials{several}, less if some are pruned"
            )
        yield Finding("time", f"{words}.", kind="fine")

    # ---- where it is kept ----

    def storage_and_study(
        self, sampler: BaseSampler | SamplerFactory | None, pruner: BasePruner | None
    ) -> Iterator[Finding]:
        opened = None
        if self.storage is not None:
            try:
                opened = self._opened()
            except Exception as error:
                reason = next(iter(str(error).strip().splitlines()), "no reason given.")
                words = without_secrets(reason, self.storage)
                if without_password(self.storage) not in words:
                    words = f"{without_password(self.storage)}: {words}"
                way_out = "A storage is a URL such as sqlite:///nas.db, in a folder that can be written to."
                yield Finding("storage", f"{words} {way_out}", self.line(storage=self.storage))
            else:
                words = f"{without_password(self.storage)} can be {'used' if opened else 'made'}."
                yield Finding("storage", words, kind="fine")
        try:
            if opened is not None and self.study_name in optuna.get_all_study_names(opened):
                study = optuna.load_study(study_name=self.study_name, storage=opened)
                check_values(study, self.objective)
                check_fits(study, self.objective)
        except Exception as error:
            yield self.told("study", error, study_name=_ANY)
            return
        try:
            self._propose(sampler, pruner)
        except Exception as error:
            found = self.told("study", error, "The sampler raised it at its first trial.")
            yield replace(found, where=self.line(sampler=_ANY) or found.where)
        else:
            yield Finding("study", f"{self.study_name!r}; sampler and pruner fit the objective.", kind="fine")

    def _opened(self) -> optuna.storages.BaseStorage | None:
        """The storage, which is not made where it is a file that does not exist yet."""
        assert self.storage is not None
        url = parse_url(self.storage)
        if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
            return open_storage(self.storage, patience=_PATIENCE)
        path = Path(str(url.database))
        if path.exists():
            if not os.access(path, os.W_OK):
                raise PermissionError(f"{path} may not be written to.")
            return open_storage(self.storage, patience=_PATIENCE, read_only=True)
        try:
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                sqlite3.connect(Path(folder, "try.db")).close()
        except OSError as error:
            raise PermissionError(f"{path.parent}: {error.strerror or error}.") from error
        return None

    def _propose(self, sampler: BaseSampler | SamplerFactory | None, pruner: BasePruner | None) -> None:
        """Let the sampler answer for one trial, in a study of no storage."""
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            study = create_study(self.objective, sampler=sampler, pruner=pruner, seed=0)
            trial = study.ask()
            asked = Draw(lambda name, distribution: Run.of(trial).answer(name, distribution))
            walk(self.objective.space, asked)
        finally:
            optuna.logging.set_verbosity(verbosity)

    def folder(self) -> Iterator[Finding]:
        """Try to write where checkpoints will be."""
        estimator = self.objective.estimator
        if not estimator.keeps_weights:
            return
        where = self.line(folder=_ANY) or self.line(storage=_ANY)
        try:
            wanted = estimator.folder or self._beside() / "runs" / self.study_name
            if remote.is_remote(wanted):
                probe = wanted / f"probe-{uuid.uuid4().hex}"
                probe.parent.mkdir(parents=True, exist_ok=True)
                probe.touch()
                remote.upload(probe)
                remote.remove(probe)
                yield Finding("folder", f"{remote.shown(wanted)} takes files.", kind="fine")
                return
        except (ImportError, ValueError, OSError) as error:
            yield Finding("folder", f"Training(folder=...): {error}", where)
            return
        there = next(path for path in (wanted, *wanted.parents) if path.exists() or path.is_symlink())
        try:
            with tempfile.TemporaryDirectory(dir=there):
                free = shutil.disk_usage(there).free
        except OSError as error:
            words = f"{wanted} cannot be made: {there}: {error.strerror or error}. Choose another place with "
            yield Finding("folder", f"{words}Training(folder=...).", where)
        else:
            yield Finding("folder", f"{wanted}, with {_bytes(free)} free.", kind="fine")

    def _beside(self) -> Path:
        with suppress(ValueError):
            url = parse_url(self.storage or "")
            if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
                return Path(str(url.database)).parent
        return Path.cwd()

    def workers(
        self, sampler: BaseSampler | SamplerFactory | None, pruner: BasePruner | None
    ) -> Iterator[Finding]:
        """Whether all that workers need can be handed to another process."""
        estimator = self.objective.estimator
        parts = {"space": self.objective.space, "estimator": estimator, "sampler": sampler, "pruner": pruner}
        try:
            cloudpickle.dumps((self.objective, sampler, pruner))
        except Exception as error:
            culprit = next((name for name, part in parts.items() if not _can_be_pickled(part)), "objective")
            words = (
                f"the {culprit} cannot be handed to other processes ({type(error).__name__}: {error}). What "
                "holds a lock, a file or a connection must be made where it is used, in a function of the "
                "trial; a search in one process does not need it."
            )
            where = self.line(**{culprit: _ANY}) or self.line(objective=_ANY)
            yield Finding("workers", words, where, "wrong" if self.n_workers > 1 else "careful")


_ANY = object()


def line_of(file: Path, name: str, value: Any = _ANY) -> int | None:
    """The line of a Python file that gives `name` this value: as an argument, or by an assignment."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    lines: list[tuple[bool, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == name:
            given: ast.expr = node.value
        elif isinstance(node, ast.Assign) and any(
            isinstance(leaf, ast.Name) and leaf.id == name
            for target in node.targets
            for leaf in ast.walk(target)
        ):
            given = node.value
        else:
            continue
        says_it = value is _ANY or any(
            isinstance(leaf, ast.Constant) and leaf.value == value for leaf in ast.walk(given)
        )
        lines.append((says_it, given.lineno))
    exact = sorted(line for says_it, line in lines if says_it)
    return next(iter(exact or sorted(line for _, line in lines)), None)


def line_named(file: Path, message: str) -> int | None:
    """The line of a string in a Python file that a message quotes, or else of an argument that it names."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    strings = {n.value: n.lineno for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    arguments = {n.arg: n.value.lineno for n in nodes if isinstance(n, ast.keyword) and n.arg}
    quoted = re.findall(r"[`'\"]([^`'\"]+)[`'\"]", message)
    named = re.findall(r"\w+(?==)|\w+_\w+", message)
    lines = [strings[text] for text in quoted if text in strings]
    lines += [arguments[name] for name in named if name in arguments]
    return next(iter(lines), None)


def _can_be_pickled(part: Any) -> bool:
    try:
        cloudpickle.dumps(part)
    except Exception:
        return False
    return True


def _shapes(example: Example) -> str:
    args, kwargs = as_inputs(example, "meta")
    shown = [f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in _tensors((args, kwargs))]
    return " and ".join(shown[:3]) + (" and more" if len(shown) > 3 else "")


def _tensors(parts: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(parts) if isinstance(leaf, Tensor)]


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2g} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
