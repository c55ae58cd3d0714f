"""The command line: words, progress and exit codes; no mathematics. It imports no torch until a command runs."""

from __future__ import annotations

import io
import os
import sys

import typer

from classgraft.cli import comparing, growing, learning, measuring, shipping
from classgraft.cli.terminal import say
from classgraft.errors import InputError

app = typer.Typer(
    help="Graft new classes onto a trained image classifier: from a few photos, without the old data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    growing.import_, growing.extend, growing.remember, learning.distill, learning.train, learning.latent,
    learning.self_train, measuring.evaluate, measuring.predict, measuring.report, shipping.export, measuring.verify,
    shipping.serve, growing.undo, growing.remove, growing.rename, growing.merge, comparing.methods, comparing.demo,
    comparing.bench,
):  # fmt: skip
    app.command(command.__name__.strip("_").replace("_", "-"))(command)


def main() -> None:
    """Run a command. Exit code 0: done; 2: the input is at fault, one sentence on standard error; 1: a bug."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know every script that names come in
    try:
        os.getcwd()  # torch's libraries end the process where there is none
        code = app(sys.argv[1:] or ["--help"], prog_name="classgraft", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        _unheard()
    except SystemExit as exit_:
        if not isinstance(exit_.__context__, BrokenPipeError):  # which click and rich make an exit with code 1 of
            raise
        _unheard()
    except Exception as error:
        sentence = _fault(error)
        if not sentence:
            raise
        say(f"classgraft: {sentence}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _unheard() -> None:
    """Whoever read standard output has left, as ``head`` does: not a fault."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python still flushes when it ends
    sys.exit(0)


def _fault(error: Exception) -> str:
    """What is wrong with the input, in a sentence; empty for what is a bug."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"'{error.filename}' cannot be used: {error.strerror}; choose another path."
    if isinstance(error, FileNotFoundError) and error.errno:  # of a call without a name
        return "The folder that this was started in is gone; change to another one and repeat the command."
    if hasattr(error, "format_message"):  # of the command line's own words
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "classgraft"
        return f"{error.format_message().rstrip('.')}; see {command} --help."
    return ""
