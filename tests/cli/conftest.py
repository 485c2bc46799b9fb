"""Run `dartok` in this process."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from dartok.cli.app import main


class Run(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def dartok(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """`dartok("show", path)`: exit code, output and errors."""

    def run(*arguments: object) -> Run:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Run(code, out, err)

    return run


@pytest.fixture
def refused(dartok: Callable[..., Run]) -> Callable[..., str]:
    """The one line that answers a mistake, after checking that it is one and the exit code is 2."""

    def run(*arguments: object) -> str:
        code, out, err = dartok(*arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("dartok: error: ")
        assert err.count("\n") == 1
        return err.removeprefix("dartok: error: ").rstrip("\n")

    return run
