"""Turn a merged model into one GGUF file, which llama.cpp and what is built on it can run.

python scripts/export_gguf.py --merged experiments/X/merged --output experiments/X/gguf
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from snaketune.core import cli


def main(argv: Sequence[str] | None = None) -> None:
    """Write the GGUF."""
    parser = cli.parser(__doc__)
    parser.add_argument("--merged", type=Path, required=True, help="the merged model's folder")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the .gguf file")
    parser.add_argument("--dtype", choices=["f16", "bf16", "f32"], default="f16")
    args = parser.parse_args(argv)
    cli.open_log(args.log)
    from snaketune.export.gguf import export_gguf

    export_gguf(args.merged, args.output, args.dtype)


if __name__ == "__main__":
    sys.exit(cli.run(main))
