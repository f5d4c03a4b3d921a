"""The command line: run, resume, look at, export and serve the searches that study files describe.

Nothing heavy is imported before a command needs it, so that `optnas --help` answers at once.
"""

from optnas.cli import studies
from optnas.cli.commands import app

__all__ = ["main", "studies"]


def main() -> None:
    """The entry point of the `optnas` command."""
    import sys
    import traceback

    from optnas.cli.messages import warn

    try:
        app()
    except Exception:  # print the traceback as Python would, but without what controls a terminal
        warn(traceback.format_exc().rstrip())
        sys.exit(1)
