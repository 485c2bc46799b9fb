"""The `dartok` command: find the command's file, run it, answer errors in one line."""

import sys
import tomllib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from cyclopts import App, CycloptsError
from cyclopts.config import Toml

from dartok import __version__
from dartok.cli.console import error_console, output_console
from dartok.cli.convert import convert
from dartok.cli.demo import demo
from dartok.cli.env import env
from dartok.cli.models import models
from dartok.cli.show import show

__all__ = ["app", "main"]

_EXIT_ERROR = 2
_CONFIG = "--config"

app = App(
    name="dartok",
    help="Adaptive visual tokens: regions that follow the picture, on any vision encoder.",
    version=__version__,
    console=output_console,
    error_console=error_console,
    result_action="return_value",
)
for _command in (demo, show, models, convert, env):
    app.command(_command)
app.command("dartok.cli.audit:audit")
app.command("dartok.cli.evaluate:evaluate", name="eval")
app.command("dartok.cli.export:export")
app.command("dartok.cli.predict:predict")
app.command("dartok.cli.train:train")  # imported when asked for: its settings are many


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command.

    What the user can mend (a wrong option or value, a missing file or package) is answered by one
    line on the error stream and exit code 2; anything else is a defect and keeps its traceback.

    Args:
        argv: Arguments after the program's name; None for those of the process.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            tokens = _take_config(list(sys.argv[1:] if argv is None else argv))
            app(tokens, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            _fail(f"{error} See: {_help_command(error)}")
        except (ValueError, ImportError, OSError) as error:
            if _is_ours(error):
                raise
            _fail(str(error) or type(error).__name__)


def _take_config(tokens: list[str]) -> list[str]:
    """Take `--config FILE` out of the arguments; its settings stand in for what is not given.

    Raises:
        ValueError: If no file follows, or it does not exist or is no TOML.
    """
    app.config = ()
    if _CONFIG not in tokens:
        return tokens
    place = tokens.index(_CONFIG)
    if place + 1 == len(tokens):
        raise ValueError("--config must be followed by a TOML file, got nothing")
    path = Path(tokens[place + 1])
    if not path.is_file():
        raise ValueError(f"config {path} is not a file; check the path")
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"config {path} cannot be read as TOML ({error}); mend it") from error
    app.config = (Toml(path, use_commands_as_keys=False),)
    return tokens[:place] + tokens[place + 2 :]


def _is_ours(error: Exception) -> bool:
    """A module of ours that cannot be imported is a defect, not an extra that is missing."""
    return isinstance(error, ImportError) and (error.name or "").split(".")[0] == "dartok"


def _help_command(error: CycloptsError) -> str:
    return " ".join(["dartok", *(error.command_chain or ()), "--help"])


def _fail(message: str) -> NoReturn:
    line = " ".join(message.split())
    error_console.print(f"dartok: error: {line}", markup=False, soft_wrap=True)
    sys.exit(_EXIT_ERROR)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Warnings in one line too; the signature is that of `warnings.showwarning`."""
    text = " ".join(str(message).split())
    error_console.print(f"dartok: warning: {text}", markup=False, soft_wrap=True)
