"""How fast is the data stage, against TRL's and LLaMA-Factory's preparation of the same rows?

python tests/benchmarks/data_peers.py BASE --trl PYTHON --llamafactory PYTHON [--rows 50000]

The peers live in environments of their own: PYTHON is the interpreter of one with `trl`, or with
`llamafactory`, installed. All template, tokenise, mask and pack the same alpaca-shaped rows at
2,048 tokens, one after the other: the peers once in as many processes as we use, and once in one,
which is their default. Imports are not counted.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from data_speed import run_stage, timed, write_rows

PEERS = Path(__file__).with_name("peers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--trl")
    parser.add_argument("--llamafactory")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder) / "rows.jsonl", args.rows)
        ours = timed(lambda: run_stage(rows, args.base, Path(folder) / "out", args.workers))
        print(f"{'snaketune':<13} {ours:8.2f} s  {args.rows / ours:8.0f} rows/s")
        for name in ("trl", "llamafactory"):
            python = getattr(args, name)
            for workers in [args.workers, 1] if python else []:
                seconds, packs = run_peer(name, python, args.base, rows, workers)
                rate = f"{args.rows / seconds:8.0f} rows/s  {seconds / ours:5.1f} times our time"
                print(f"{name:<13} {seconds:8.2f} s  {rate}  ({packs} packs, {workers} processes)")


def run_peer(name: str, python: str, base: Path, rows: Path, workers: int) -> tuple[float, int]:
    """Return the seconds a peer took, and how many packs it made."""
    with tempfile.TemporaryDirectory() as folder:
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": folder}
        program = [python, PEERS / f"{name}_data.py", base.resolve(), rows, str(workers), folder]
        done = subprocess.run(
            program, env=os.environ | offline, stdout=subprocess.PIPE, text=True, check=True
        )
    seconds, packs = done.stdout.splitlines()[-1].split()
    return float(seconds), int(packs)


if __name__ == "__main__":
    main()
