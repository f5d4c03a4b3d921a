"""A device of the user's own, reached by a command: what it prints is a fact."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from torch import Tensor, nn

from optnas.devices.lock import one_at_a_time
from optnas.errors import DeviceError
from optnas.export import to_onnx, to_torch_export
from optnas.facts.fact import Fact, Measured
from optnas.facts.inputs import Example

_EXPORTS: dict[str, Callable[[nn.Module, Any, Path], Path]] = {"onnx": to_onnx, "pt2": to_torch_export}
_PAUSE = 1.0  # seconds before a command that failed is tried again, then twice as many
_LINES = 3  # of what a command said, in messages


def command(
    template: str,
    *,
    name: str = "latency",
    unit: str = "ms",
    better: Literal["lower", "higher", ""] = "lower",
    example: Example | None = None,
    timeout: float = 300.0,
    retries: int = 2,
) -> Fact:
    """A fact that a command of yours measures: `command("ssh board ./bench {onnx}")`.

    The untrained network is exported to a file, whose path stands for `{onnx}` (or `{pt2}`, a `torch.export`
    program) in the command; the shell runs it, one at a time on a machine. The last word that it prints is
    the number. A command that copies the file itself: `"scp -q {onnx} board:net.onnx && ssh board ./bench"`.

    A command that fails is tried again. If it still fails, it is run for a network that it has measured
    before, or for a trivial one with one input. If that works, the network is at fault: the fact is recorded
    as missing, with the message of the command. If that fails too, the device is at fault, and the trial goes
    back into the queue.

    Args:
        name: name of the fact; give one if a study has several.
        example: inputs of the exported network, whose batch size the device is free to change; by default the
            objective's.
        timeout: seconds after which the command is ended and taken for failed.
        retries: how often a failed command is run again.

    Raises:
        ValueError: the template has no place for the file; (when measured) the network cannot be exported, or
            the command fails for this network alone.
        DeviceError: (when measured) the command fails for any network.

    Examples:
        >>> energy = optnas.devices.command("echo {onnx} 12.5", name="energy", unit="mJ")
        >>> measured = optnas.Objective(space, training, facts=[energy], limits={"energy": 20})
    """
    kinds = [kind for kind in _EXPORTS if f"{{{kind}}}" in template]
    if len(kinds) != 1:
        raise ValueError(
            f"command({template!r}) needs one place for the network's file: {{onnx}} or {{pt2}}."
        )
    if not timeout > 0 or retries < 0:
        raise ValueError(f"command({timeout=}, {retries=}): give a time above 0, and 0 retries or more.")
    device = _Device(template, kinds[0], timeout, retries)
    return Fact(
        name,
        lambda model, given: device.measure(model, given if example is None else example),
        unit=unit,
        better=better,
        needs="batch",
    )


class _Device:
    """A command, and the file of a network that it has measured."""

    def __init__(self, template: str, kind: str, timeout: float, retries: int) -> None:
        self.template = template
        self.kind = kind
        self.timeout = timeout
        self.retries = retries
        self.works: bytes | None = None

    def measure(self, model: nn.Module, example: Any) -> Measured:
        with TemporaryDirectory() as folder:
            file = _EXPORTS[self.kind](model, example, Path(folder, f"network.{self.kind}"))
            digest = hashlib.sha256(self.template.encode()).hexdigest()[:16]
            with one_at_a_time(f"command-{digest}"):
                start = time.monotonic()
                number = self._number(file)
                if isinstance(number, str):
                    self._tell_apart(number, example, Path(folder, f"known.{self.kind}"))
            self.works = self.works or file.read_bytes()
        details = {"command": self.template, "seconds": time.monotonic() - start}
        assert isinstance(number, float)
        return Measured(number, f"by {self.template}", details)

    def _tell_apart(self, why: str, example: Any, known: Path) -> None:
        """Raise ValueError where the network is at fault, and DeviceError where the device is."""
        if self.works is not None:
            known.write_bytes(self.works)
        else:
            try:
                _EXPORTS[self.kind](_Trivial(), example, known)
            except ValueError as error:
                raise DeviceError(f"{why}. No network has been measured there yet.") from error
        other = self._number(known)
        if isinstance(other, str):
            raise DeviceError(f"{why}. It fails for a network that is known to work, too: {other}")
        raise ValueError(f"{why}. It works for another network.")

    def _number(self, file: Path) -> float | str:
        """What the command prints, or why it failed."""
        line = self.template.replace(f"{{{self.kind}}}", shlex.quote(str(file)))
        why = ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
            found = self._run(line)
            if isinstance(found, float):
                return found
            why = found
        return why

    def _run(self, line: str) -> float | str:
        with subprocess.Popen(
            line,
            shell=True,
            text=True,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                said, complained = process.communicate(timeout=self.timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return f"`{self.template}` took more than {self.timeout:g} s"
        if process.returncode != 0:
            return f"`{self.template}` ended with {process.returncode}: {_end(complained or said)}"
        try:
            return float(said.split()[-1])
        except (IndexError, ValueError):
            return f"`{self.template}` printed no number at its end: {_end(said)}"


class _Trivial(nn.Module):
    """The mean of each sample, of networks that read one tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float().flatten(1).mean(1)


def _end(said: str) -> str:
    lines = said.strip().splitlines()[-_LINES:]
    return " / ".join(line.strip() for line in lines) or "it said nothing"
