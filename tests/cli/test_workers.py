"""What `--workers` means, read without starting anything."""

from __future__ import annotations

import pytest
import typer

from optnas.cli.workers import read


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8", ("", 8, {})),
        ("ray:8", ("ray", 8, {})),
        ("ray:8,GPU=0.5,own=1", ("ray", 8, {"GPU": "0.5", "own": "1"})),
        ("slurm:2,partition=gpu,time=04:00:00", ("slurm", 2, {"partition": "gpu", "time": "04:00:00"})),
    ],
)
def test_where_how_many_and_what_each_needs(text: str, meant: tuple[str, int, dict[str, str]]) -> None:
    assert read(text) == meant


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "two", "8,GPU=1", ":8", "pbs:8", "ray:", "ray:8,GPU", "ray:8,=1"]
)
def test_anything_else_is_refused_with_the_forms_that_there_are(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"neither a number from 1 up nor of the form ray:8,GPU=0.5"):
        read(text)
