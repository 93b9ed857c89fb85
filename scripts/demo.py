"""Talk to one or two models in the browser, side by side; Ctrl-C stops it.

python scripts/demo.py [X ...] [--port 8501] [--canned tools.yaml] [--python]

X is an experiment or `X/iter_N`, one of its kept checkpoints; it begins beside its base model.
Every other model that is built can be picked on the page. Everything is on 127.0.0.1 alone.
"""

import importlib.util
import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.errors import UserError
from snaketune.core.terminal import foreground
from snaketune.demo.setup import TOOLS, Setup
from snaketune.experiment import load_studies
from snaketune.experiment.agent_files import read_canned
from snaketune.serving import lifetime
from snaketune.serving.artifacts import ServedModel
from snaketune.serving.catalog import available
from snaketune.serving.port import open_port
from snaketune.serving.server_process import model_server

LOG = Path("logs/demo_server.log")


def main(argv: Sequence[str] | None = None) -> None:
    """Serve models and page until told to stop."""
    parser = cli.parser(__doc__)
    parser.add_argument("models", nargs="*", help="experiments, X/iter_N or base models")
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--canned", type=Path, help="a file of tools with canned answers")
    parser.add_argument("--python", action="store_true", help="offer a tool that runs Python")
    args = parser.parse_args(argv)
    require_streamlit()
    if args.canned:
        read_canned(args.canned)
    names = list(dict.fromkeys([*args.models, *available()]))
    if not names:
        raise UserError("no model is built.\n  Fix: snakemake experiments/X/adapter")
    open_port(args.port).close()  # a taken one is told before models are loaded
    lifetime.end_with_snakemake()
    experiments = load_studies(Path("experiments")).experiments
    with foreground(), model_server(names, LOG) as server:
        from snaketune.demo import app

        setup = Setup(
            client=server.client,
            models=[each.name for each in server.models],
            bases=[each.name for each in server.models if each.is_base],
            picked=side_by_side(args.models, server.models),
            prompts={name: each.prompts for name, each in experiments.items()},
            studies={name: each.study for name, each in experiments.items()},
            tools=(*TOOLS, "python") if args.python else TOOLS,
            canned=args.canned,
            log=LOG,
        )
        cli.open_log(args.log)
        app.serve(setup, args.port, lambda: announce(f"http://127.0.0.1:{args.port}"))


def announce(address: str) -> None:
    """Print where the page is, and open it where there is a screen."""
    cli.console.print(f"Demo: {address}   Ctrl-C stops it.", markup=False)
    if has_display():
        webbrowser.open(address)


def require_streamlit() -> None:
    """Refuse to start without the extra `agent`.

    Raises:
        UserError: Streamlit is not installed.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise UserError(
            "the demo needs Streamlit, which is not installed.\n"
            "  Fix: .venv/bin/pip install -e '.[agent]'"
        )


def side_by_side(asked: Sequence[str], served: Sequence[ServedModel]) -> list[str]:
    """Return the two models to begin with: those asked for, or one and its base before it."""
    if len(asked) > 1:
        return list(asked[:2])
    first = next(each for each in served if not asked or each.name == asked[0])
    return list(dict.fromkeys([first.base, first.name]))


def has_display() -> bool:
    """Tell whether a browser would open in a window, not in the terminal."""
    return sys.platform == "darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


if __name__ == "__main__":
    sys.exit(cli.run(main))
