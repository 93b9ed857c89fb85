"""Open MLflow's UI on this machine; Ctrl-C stops it.

python scripts/ui.py [--port 5000]
"""

import os
import sys
from collections.abc import Sequence

from snaketune import cli
from snaketune.tracking.mirror import DEFAULT_STORE, tracking_uri


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the UI on 127.0.0.1."""
    parser = cli.parser(__doc__)
    parser.add_argument("--port", type=int, default=5000)
    args = parser.parse_args(argv)
    DEFAULT_STORE.mkdir(parents=True, exist_ok=True)
    cli.console.print(f"MLflow: http://127.0.0.1:{args.port}  (Ctrl-C stops it)")
    cli.open_log(args.log)
    command = ["mlflow", "ui", "--host", "127.0.0.1", "--port", str(args.port)]
    os.execvp(command[0], [*command, "--backend-store-uri", tracking_uri()])


if __name__ == "__main__":
    sys.exit(cli.run(main))
