"""Which data a study was made with."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from optnas.estimation.settings import digest


@runtime_checkable
class Fingerprinted(Protocol):
    """A data module that says itself what it contains; what lies in files, only it knows."""

    def fingerprint(self) -> str: ...


def data_fingerprint(data: object) -> str:
    """A hash of the contents of data: what its method `fingerprint()` returns, or else a hash of all that the
    object holds.

    Of a function that makes data, a hash of the function with all that it refers to.

    Examples:
        >>> optnas.data.data_fingerprint(data) == optnas.data.data_fingerprint(optnas.Digits())
        False
    """
    return str(data.fingerprint()) if isinstance(data, Fingerprinted) else digest(data)
