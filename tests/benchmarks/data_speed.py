"""How fast is the data stage, against one bare call of its tokenizer over the same text?

python tests/benchmarks/data_speed.py BASE [--rows 50000] [--workers 2] [--stage-only]

BASE is a base model's folder, e.g. store/models/smollm2-135m-instruct-.... Rows are generated,
shaped as alpaca's; both sides get the same text in the same process order, on the same cores.
"""

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from snaketune.data.data_spec import DataSpec
from snaketune.data.prepare import prepare
from snaketune.data.storage import Packs
from snaketune.data.template import ChatTemplate
from snaketune.rows.reading import read_rows

WORDS = Path(__file__).parents[2] / "experiments/data/general.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stage-only", action="store_true", help="leave the bare call out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder) / "rows.jsonl", args.rows)
        stage = timed(lambda: run_stage(rows, args.base, Path(folder) / "out", args.workers))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
        opened = timed(lambda: Packs(Path(folder) / "out/train.arrow")[0])
        print(f"stage     {stage:8.2f} s  {args.rows / stage:8.0f} rows/s")
        print(f"peak      {peak:8.0f} MiB, a worker {workers:.0f} MiB; reopened in {opened:.4f} s")
        if not args.stage_only:
            bare = bare_call(rows, args.base)
            print(f"bare call {bare:8.2f} s  {args.rows / bare:8.0f} rows/s")
            print(f"ratio     {bare / stage:8.2f}")


def write_rows(path: Path, count: int) -> Path:
    """Write alpaca rows of about 20 words asked and 60 answered."""
    texts = [row.value["text"] for row in read_rows(WORDS)]
    words = " ".join(texts).replace("###", "").split()
    choose = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            start = choose.randrange(len(words) - 120)
            asked, answered = choose.randint(5, 40), choose.randint(20, 80)
            row = {"instruction": f"{number}: {' '.join(words[start : start + asked])}"}
            row |= {"input": "", "output": " ".join(words[start + asked :][:answered])}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def run_stage(rows: Path, base: Path, output: Path, workers: int) -> None:
    source = {"label": "rows", "path": str(rows), "format": "alpaca", "vars": {}, "weight": 1.0}
    spec = {"sources": [source], "template": "auto", "loss_on": "assistant", "heldout": 0.1}
    spec |= {"max_length": 2048, "truncation": "right", "deduplicate": False, "pack": True}
    prepare(DataSpec.from_key(spec), base, output, workers)


def bare_call(rows: Path, base: Path) -> float:
    """Return the seconds of encode_batch over the rendered texts, rendering not counted."""
    template = ChatTemplate(base, "auto")
    texts = [
        template.render(
            [
                {"role": "user", "content": row.value["instruction"]},
                {"role": "assistant", "content": row.value["output"]},
            ]
        )
        for row in read_rows(rows)
    ]
    return timed(lambda: template.tokenizer.encode_batch(texts, add_special_tokens=False))


def timed(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
