"""Download a base model and normalise it: safetensors, config, tokenizer, chat template.

python scripts/fetch_base.py --spec JSON --output store/models/ID

The spec is source, revision and sha256, as in catalog/models.yaml.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from snaketune.bases.fetch import fetch_base
from snaketune.core import cli
from snaketune.core.files import locked


def main(argv: Sequence[str] | None = None) -> None:
    """Run the base model stage."""
    parser = cli.parser(__doc__)
    parser.add_argument("--spec", required=True, help="JSON: source, revision, sha256")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    started, made = time.time(), args.output / "provenance.json"
    with locked(args.output):
        if made.exists() and made.stat().st_mtime > started:
            return  # by the process that was waited for
        fetch_base(json.loads(args.spec), args.output)


if __name__ == "__main__":
    sys.exit(cli.run(main))
