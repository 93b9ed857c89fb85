"""Serve models on 127.0.0.1 as OpenAI's API: every program that speaks it can talk to them.

python scripts/serve.py X [Y ...] [--port 8000] [--bits 4] [--engine vllm]

X is an experiment, `X/iter_N` one of its kept checkpoints; their base model is served beside them.
Ctrl-C stops it. Other engines serve the merged model of one experiment.
"""

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from snaketune.core import cli
from snaketune.core.terminal import foreground
from snaketune.serving import artifacts, engines, lifetime
from snaketune.serving.port import open_port


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until told to stop."""
    parser = cli.parser(__doc__)
    parser.add_argument("models", nargs="+", help="experiments, X/iter_N or base models")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--bits", type=int, choices=[4, 8], help="hold the base quantised")
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    parser.add_argument("--engine", choices=engines.ENGINES, help="another server, if installed")
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)  # a socket of our own programs
    args = parser.parse_args(argv)
    served = artifacts.find_models(args.models)
    if args.engine:
        if len(args.models) > 1:
            parser.error("--engine serves one model")
        command = engines.command(args.engine, served[0], args.port)
        os.execv(command[0], command)
    listening = socket.socket(fileno=args.fd) if args.fd else open_port(args.port)
    if args.fd:
        lifetime.end_with_stdin()
    else:
        lifetime.end_with_snakemake()
        cli.console.print(f"OpenAI's API: http://127.0.0.1:{args.port}/v1   Ctrl-C stops it.")
        cli.console.print("ServedModels: " + ", ".join(each.name for each in served), markup=False)
    cli.open_log(args.log)
    from snaketune.serving.served_models import ServedModels
    from snaketune.serving.server import serve

    with foreground():
        serve(ServedModels(served, args.precision, args.bits), listening)
    os._exit(0)  # an answer may still be in the making, in a thread that Python cannot end


if __name__ == "__main__":
    sys.exit(cli.run(main))
