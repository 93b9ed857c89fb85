"""Publish a merged model or an adapter, or list what would be published.

python scripts/publish.py --folder experiments/X/merged --to hf:ORG/NAME \
    --output experiments/X/published

HF_TOKEN or MODELSCOPE_API_TOKEN in the environment holds the access token.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli
from snaketune.core.files import locked
from snaketune.publish.publish_config import PublishConfig, read_destination


def main(argv: Sequence[str] | None = None) -> None:
    """Publish a folder, or list what would be sent."""
    parser = cli.parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="a merged model or an adapter")
    parser.add_argument(
        "--to", required=True, help="hf:ORG/NAME, modelscope:ORG/NAME or openxlab:FOLDER"
    )
    parser.add_argument("--public", action="store_true", help="create a new repository as public")
    parser.add_argument("--dry-run", action="store_true", help="list the files, send nothing")
    parser.add_argument("--output", type=Path, required=True, help="the record or the list")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    config = PublishConfig(*read_destination(args.to), args.folder.name, private=not args.public)
    from snaketune.publish.publish_model import list_to_publish, publish

    with locked(args.output):
        (list_to_publish if args.dry_run else publish)(args.folder, config, args.output)


if __name__ == "__main__":
    sys.exit(cli.run(main))
