"""`hosnn VERB`: parsing, and the one place where errors become messages and exit statuses.

Exit status: 0 done, 1 the time limit was reached before the end (the same command resumes), 2 an error that the user
can correct, 3 a check of an evaluation warns, 4 one failed, 128 + signal stopped by a signal (130: Ctrl-C; 141: the
reader of standard output ended, the work is done).
"""

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import tyro

from hosnn.cli.ablate import ablate
from hosnn.cli.bench import bench
from hosnn.cli.calibrate import calibrate
from hosnn.cli.compare import compare
from hosnn.cli.convert import convert
from hosnn.cli.doctor import doctor
from hosnn.cli.evaluate import evaluate
from hosnn.cli.inspect import inspect
from hosnn.cli.json_output import json_alone
from hosnn.cli.reproduce import reproduce
from hosnn.cli.sweep import sweep
from hosnn.cli.theory import theory
from hosnn.cli.train import train
from hosnn.deadline import Interrupted
from hosnn.errors import HosnnError, HosnnWarning
from hosnn.runtime import leave
from hosnn.terminal import SafeConsole, outlived

VERBS: dict[str, Callable[..., int]] = {
    "reproduce": reproduce,
    "train": train,
    "calibrate": calibrate,
    "convert": convert,
    "evaluate": evaluate,
    "inspect": inspect,
    "compare": compare,
    "ablate": ablate,
    "sweep": sweep,
    "theory": theory,
    "bench": bench,
    "doctor": doctor,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    with outlived() as status:
        return status(_status_of(arguments))


def _status_of(arguments: list[str] | None) -> int:
    errors = SafeConsole(stderr=True, highlight=False)
    try:
        with _warnings_as_lines(errors), json_alone(sys.argv[1:] if arguments is None else arguments):
            return _run(arguments)
    except Interrupted as stop:
        errors.print("[yellow]stopped[/] ", end="")
        errors.print(str(stop), markup=False)
        return stop.status
    except HosnnError as error:
        errors.print("[bold red]error[/] ", end="")
        errors.print(str(error), markup=False)
        return 2
    except OSError as error:
        errors.print("[bold red]error[/] ", end="")
        errors.print(
            f"the operating system reports: {error}; everything that was complete before is intact", markup=False
        )
        return 2
    except KeyboardInterrupt:
        errors.print("[yellow]interrupted[/]; everything that was complete is kept, no file is half-written")
        return 130


def _run(arguments: list[str] | None) -> int:
    status: int = tyro.extras.subcommand_cli_from_dict(
        VERBS,
        prog="hosnn",
        description="Train spiking networks that withstand attacks, and find out whether they really do.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    return status


@contextmanager
def _warnings_as_lines(errors: SafeConsole) -> Iterator[None]:
    """Inside, each of our own warnings is a line on standard error; others stay as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", HosnnWarning)
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, HosnnWarning):
                errors.print("[yellow]note[/] ", end="")
                errors.print(str(message), markup=False)
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def entry() -> None:
    """The console script."""
    leave(main())
