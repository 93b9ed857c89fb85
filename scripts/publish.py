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
from snaketune.publish.request import Request, read_destination


def main(argv: Sequence[str] | None = None) -> None:
    """Publish."""
    parser = cli.parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="with a manifest.json")
    parser.add_argument(
        "--to", required=True, help="hf:ORG/NAME, modelscope:ORG/NAME or openxlab:FOLDER"
    )
    parser.add_argument("--public", action="store_true", help="for everyone, if it is new")
    parser.add_argument("--dry-run", action="store_true", help="list the files, send nothing")
    parser.add_argument("--output", type=Path, required=True, help="what was, or would be, sent")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    request = Request(*read_destination(args.to), args.folder.name, private=not args.public)
    from snaketune.publish.stage import list_to_publish, publish

    with locked(args.output):
        (list_to_publish if args.dry_run else publish)(args.folder, request, args.output)


if __name__ == "__main__":
    sys.exit(cli.run(main))
