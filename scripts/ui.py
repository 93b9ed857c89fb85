"""Open MLflow's UI on this machine; Ctrl-C stops it.

python scripts/ui.py [--port 5000]
"""

import os
import sys
from collections.abc import Sequence

from snaketune.core import cli
from snaketune.core.terminal import foreground
from snaketune.serving import lifetime
from snaketune.serving.port import open_port
from snaketune.tracking.mlflow_client import DEFAULT_STORE, shown_uri, tracking_uri


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the UI on 127.0.0.1."""
    parser = cli.parser(__doc__)
    parser.add_argument("--port", type=int, default=5000)
    args = parser.parse_args(argv)
    if tracking_uri().startswith(("http:", "https:")):
        return cli.console.print(f"MLflow runs elsewhere already: {shown_uri()}", markup=False)
    open_port(args.port).close()
    DEFAULT_STORE.mkdir(parents=True, exist_ok=True)
    cli.console.print(
        f"MLflow: http://127.0.0.1:{args.port}/#/experiments?workflowType=machine_learning\n"
        "  Open a study, then Views: Ablation. Ctrl-C stops it.",
        markup=False,
    )
    cli.open_log(args.log)
    # the store goes by the environment: a password in its address is nobody's to see in `ps`
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": tracking_uri()}
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1"]
    with foreground():
        lifetime.run_server([*command, "--port", str(args.port)], environment)


if __name__ == "__main__":
    sys.exit(cli.run(main))
