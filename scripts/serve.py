"""Serve models on 127.0.0.1 with an OpenAI-compatible API.

python scripts/serve.py X [Y ...] [--port 8000] [--bits 4] [--engine vllm]

X is an experiment, `X/iter_N` one of its kept checkpoints; their base models are served as well.
Ctrl-C stops the server. Other engines serve the merged model of one experiment.
"""

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from snaketune.core import cli
from snaketune.core.terminal import foreground
from snaketune.serving import lifetime
from snaketune.serving.artifacts import find_models
from snaketune.serving.engines import ENGINES, engine_command
from snaketune.serving.port import open_port


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until a signal."""
    parser = cli.parser(__doc__)
    parser.add_argument("models", nargs="+", help="experiments, X/iter_N or base models")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--bits", type=int, choices=[4, 8], help="quantise the base")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--engine", choices=list(ENGINES), help="another server, if installed")
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)  # from model_server()
    args = parser.parse_args(argv)
    served = find_models(args.models)
    if args.engine:
        if len(args.models) > 1:
            parser.error("--engine serves one model")
        command = engine_command(args.engine, served[0], args.port)
        os.execv(command[0], command)
    listening = socket.socket(fileno=args.fd) if args.fd else open_port(args.port)
    if args.fd:
        lifetime.end_with_stdin()
    else:
        lifetime.end_with_snakemake()
        cli.console.print(f"OpenAI API: http://127.0.0.1:{args.port}/v1   Ctrl-C stops it.")
        cli.console.print("Models: " + ", ".join(model.name for model in served), markup=False)
    cli.open_log(args.log)
    from snaketune.serving.served_models import ServedModels
    from snaketune.serving.server import serve

    with foreground():
        serve(ServedModels(served, args.precision, args.bits), listening)
    # an answer may still be generated in a thread, which Python would wait for
    os._exit(0)


if __name__ == "__main__":
    sys.exit(cli.run(main))
