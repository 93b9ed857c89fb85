"""Chat with one or two models in the browser, side by side; Ctrl-C stops the program.

python scripts/demo.py [X ...] [--port 8501] [--canned tools.yaml] [--python]

X is an experiment or `X/iter_N`, one of its kept checkpoints; a single one is shown next to its
base model. Every other model that is built can be chosen on the page. Page and models are served
on 127.0.0.1 only.
"""

import importlib.util
import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.errors import UserError
from snaketune.core.layout import EXPERIMENTS, LOGS, ExperimentPaths
from snaketune.core.terminal import foreground
from snaketune.demo import app
from snaketune.demo.setup import TOOLS, Setup
from snaketune.experiment import load_studies
from snaketune.experiment.agent_files import read_canned
from snaketune.serving import lifetime
from snaketune.serving.artifacts import ServedModel
from snaketune.serving.available_models import available_models
from snaketune.serving.port import open_port
from snaketune.serving.server_process import model_server

LOG = LOGS / "demo_server.log"


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the models and the page until a signal ends the program."""
    parser = cli.parser(__doc__)
    parser.add_argument("models", nargs="*", help="experiments, X/iter_N or base models")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--canned", type=Path, help="a YAML file of tools with canned answers")
    parser.add_argument("--python", action="store_true", help="offer a tool that executes Python")
    args = parser.parse_args(argv)
    require_streamlit()
    if args.canned:
        read_canned(args.canned)
    names = list(dict.fromkeys([*args.models, *available_models()]))
    if not names:
        raise UserError(f"no model is built.\n  Fix: snakemake {ExperimentPaths('X').adapter()}")
    open_port(args.port).close()  # a port in use is an error before models are loaded
    lifetime.end_with_snakemake()
    experiments = load_studies(EXPERIMENTS).experiments
    with foreground(), model_server(names, LOG) as server:
        setup = Setup(
            client=server.client,
            models=[model.name for model in server.models],
            bases=[model.name for model in server.models if model.is_base],
            picked=first_choice(args.models, server.models),
            prompts={name: experiment.prompts for name, experiment in experiments.items()},
            studies={name: experiment.study for name, experiment in experiments.items()},
            tools=(*TOOLS, "python") if args.python else TOOLS,
            canned=args.canned,
            log=LOG,
        )
        cli.open_log(args.log)
        app.serve(setup, args.port, lambda: announce(f"http://127.0.0.1:{args.port}"))


def announce(address: str) -> None:
    """Print the page's address, and open it if there is a display."""
    cli.console.print(f"Demo: {address}   Ctrl-C stops it.", markup=False)
    if has_display():
        webbrowser.open(address)


def require_streamlit() -> None:
    """Raise UserError if Streamlit, of the extra `agent`, is not installed."""
    if importlib.util.find_spec("streamlit") is None:
        raise UserError(
            "the demo needs Streamlit, which is not installed.\n"
            "  Fix: .venv/bin/pip install -e '.[agent]'"
        )


def first_choice(named: Sequence[str], served: Sequence[ServedModel]) -> list[str]:
    """Choose the models that are shown at first: the first two named, or one and its base."""
    if len(named) > 1:
        return list(named[:2])
    first = next(model for model in served if not named or model.name == named[0])
    return list(dict.fromkeys([first.base, first.name]))


def has_display() -> bool:
    """Whether a browser would open in a window, not in the terminal."""
    return sys.platform == "darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


if __name__ == "__main__":
    sys.exit(cli.run(main))
