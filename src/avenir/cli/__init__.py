"""The command line: one file per verb. Heavy libraries are imported inside the verbs, so that
`avenir --help` answers at once. A user's mistake ends in one sentence, not in a traceback.
"""

import os
import signal
import sys
from typing import NoReturn

import typer

from avenir.cli.compare import compare
from avenir.cli.encode import encode
from avenir.cli.evaluate import evaluate
from avenir.cli.export import export
from avenir.cli.features import features
from avenir.cli.import_ import import_
from avenir.cli.passport import passport
from avenir.cli.plan import plan
from avenir.cli.play import play
from avenir.cli.predict import predict
from avenir.cli.probe import probe
from avenir.cli.quickstart import quickstart
from avenir.cli.show import show
from avenir.cli.study import study
from avenir.cli.train import train
from avenir.errors import AvenirError, sentence

_CTRL_C = 128 + signal.SIGINT

app = typer.Typer(
    help="World models on one bench: encode video, condition it, predict what comes next.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for name, verb in {
    "quickstart": quickstart,
    "import": import_,
    "train": train,
    "encode": encode,
    "predict": predict,
    "play": play,
    "plan": plan,
    "export": export,
    "evaluate": evaluate,
    "features": features,
    "compare": compare,
    "probe": probe,
    "passport": passport,
    "study": study,
    "show": show,
}.items():
    app.command(name)(verb)


def _of_files() -> tuple[type[Exception], ...]:
    """Name the errors of the libraries that read and write files, of those that were imported."""
    errors = {"av.error": "FFmpegError", "safetensors": "SafetensorError"}
    errors["pyarrow"] = "ArrowException"
    return tuple(getattr(sys.modules[name], e) for name, e in errors.items() if name in sys.modules)


def _end(code: str | int | None) -> NoReturn:
    """Leave; when that is because of Ctrl-C, another one leaves at once and in silence."""
    if code == _CTRL_C:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def main() -> None:
    """Run a verb; exit 0 when done, 1 on a mistake, 2 on wrong usage, 128 + n when stopped."""
    # Workers are Python processes of their own, and would look for every module here first.
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        app()
    except AvenirError as error:
        print(f"error: {error}", file=sys.stderr)
        _end(getattr(error, "exit_code", 1))
    except OSError as error:
        print(f"error: {sentence(error)}", file=sys.stderr)
        sys.exit(1)
    except _of_files() as error:
        print(f"error: a file is damaged, or no such file: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        _end(_CTRL_C)
    except SystemExit as end:
        _end(end.code)
