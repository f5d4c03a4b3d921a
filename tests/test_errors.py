import errno
import os
from pathlib import Path

import pytest
import torch
from optuna.exceptions import StorageInternalError
from torch import nn

from optnas.errors import (
    CheckpointError,
    SpaceError,
    StorageUnavailableError,
    TrialTakenError,
    cause_of,
    describe_error,
    failing_layer,
    is_infrastructure,
    is_users_code,
)


def test_the_cause_is_equal_for_equal_places():
    reasons, causes = [], []
    for size in (2, 3):
        try:
            torch.zeros(size).reshape(7)
        except RuntimeError as error:
            reasons.append(describe_error(error))
            causes.append(cause_of(error))
    assert reasons[0] != reasons[1]
    assert causes[0] == causes[1]
    assert causes[0].startswith("RuntimeError at test_errors.py:")


def test_the_cause_of_a_space_s_error_is_that_of_the_code_in_it():
    def fails():
        try:
            torch.zeros(2).reshape(7)
        except RuntimeError as error:
            raise SpaceError(f"{describe_error(error)} [parameters: {{}}]") from error

    with pytest.raises(SpaceError) as caught:
        fails()
    assert cause_of(caught.value) == cause_of(caught.value.__cause__)
    assert cause_of(caught.value).startswith("RuntimeError at test_errors.py:")


def test_a_reason_has_the_last_place_in_the_users_code():
    def mine():
        nn.Linear(3, 4)(torch.zeros(2))

    with pytest.raises(RuntimeError) as caught:
        mine()
    line = mine.__code__.co_firstlineno + 1
    assert describe_error(caught.value).startswith(f"RuntimeError at test_errors.py:{line} in mine: ")


def test_a_reason_is_one_line_even_without_a_message():
    assert describe_error(ValueError("one\ntwo")) == "ValueError: one"
    assert describe_error(ValueError()) == "ValueError: no message"
    assert describe_error(SpaceError("RuntimeError at a.py:1 in f: no")) == "RuntimeError at a.py:1 in f: no"


def test_users_code_is_neither_python_nor_installed_nor_ours():
    import optnas

    assert is_users_code(__file__)
    assert not any(map(is_users_code, (os.__file__, torch.__file__, optnas.__file__, "<frozen runpy>")))


def test_the_failing_layer_is_the_innermost():
    model = nn.Sequential(nn.Linear(4, 5), nn.Sequential(nn.ReLU(), nn.Linear(6, 7)))
    with pytest.raises(RuntimeError) as caught:
        model(torch.zeros(1, 4))
    assert failing_layer(model, caught.value) == "layer '1.1' (Linear)"
    assert failing_layer(nn.Linear(1, 1), caught.value) == ""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StorageUnavailableError("gone"), True),
        (StorageInternalError("gone"), True),
        (TrialTakenError("taken"), True),
        (CheckpointError("full"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (TimeoutError(errno.ETIMEDOUT, "Connection timed out"), True),
        (OSError("Caught OSError in DataLoader worker process 0.\n[Errno 5] Input/output error"), True),
        (RuntimeError("DataLoader worker (pid 1759) is killed by signal: Killed. "), True),
        (RuntimeError("DataLoader worker (pid(s) 1772, 1773) exited unexpectedly"), True),
        (FileNotFoundError(errno.ENOENT, "no data"), False),
        (OSError("Caught OSError in DataLoader worker process 0.\n[Errno 2] No such file"), False),
        (OSError("no number"), False),
        (RuntimeError("a layer named DataLoader worker (pid 1) is killed by signal"), False),
        (RuntimeError("bug"), False),
        (OSError(errno.EIO, "i/o"), True),
        (OSError(errno.ESTALE, "stale"), True),
        (OSError(errno.ENOMEM, "no memory to fork"), True),
        (OSError(errno.EMFILE, "too many files"), True),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), True),
        (OSError("Caught OSError in DataLoader worker process 0.\nOSError: [Errno 5] i/o: 'x'"), True),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), True),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), True),
        (FileNotFoundError(errno.ENOENT, "no such file"), False),
        (OSError("Caught OSError in DataLoader worker process 0.\nOSError: [Errno 2] x"), False),
    ],
)
def test_infrastructure_is_no_fault_of_the_trial(error, expected):
    assert is_infrastructure(error) == expected


def test_a_disk_that_is_full_is_recognized():
    if not (full := Path("/dev/full")).exists():
        pytest.skip("only Linux has a device that is always full")
    with pytest.raises(OSError, match="No space") as caught:
        full.write_text("x")
    assert is_infrastructure(caught.value)
