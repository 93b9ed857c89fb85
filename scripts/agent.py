"""Put questions to an agent with tools, with base and tuned model, and write one page.

python scripts/agent.py agent_tuned --output experiments/agent_tuned/agent \
    --checkpoints experiments/agent_tuned/checkpoints --server-log logs/agent_tuned/agent_server.log
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.layout import EXPERIMENTS
from snaketune.experiment.resolved import load_resolved


def main(argv: Sequence[str] | None = None) -> None:
    """Run the agent's stage."""
    parser = cli.parser(__doc__)
    parser.add_argument("experiment", help="its name, or a resolved.yaml")
    for name in ("output", "checkpoints", "server-log"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.agent.evaluate_agent import report_agent
    from snaketune.tracking.agent_traces import MlflowTracer
    from snaketune.tracking.tracked_run import send_run

    experiment = load_resolved(args.experiment)
    tracer = MlflowTracer(experiment.study)
    report_agent(experiment, EXPERIMENTS, args.output, args.server_log, tracer)
    tracer.close()
    send_run(args.checkpoints)


if __name__ == "__main__":
    sys.exit(cli.run(main))
