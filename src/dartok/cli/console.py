"""The consoles that every command prints through."""

from rich.console import Console
from rich.table import Table

__all__ = ["error_console", "output_console", "print_table", "say"]

_PIPE_COLUMNS = 500
"""Lines into a pipe or file are not broken: other programs read them."""

output_console = Console(highlight=False)
_pipe_console = Console(highlight=False, width=_PIPE_COLUMNS)
error_console = Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """Print a line as it is: no markup is read in it, and it is not broken into lines."""
    output_console.print(message, markup=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal; one line per row where there is no terminal."""
    (output_console if output_console.is_terminal else _pipe_console).print(table)
