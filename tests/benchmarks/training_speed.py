"""How fast does training go, and in how much memory, against TRL and LLaMA-Factory?

python tests/benchmarks/training_speed.py BASE --trl PYTHON --llamafactory PYTHON [--method lora]

The peers live in environments of their own: PYTHON is the interpreter of one with `trl`, or with
`llamafactory`, installed. All train the same rows in packs of 512 tokens, batch 2, bf16, LoRA r 16
on all linear layers, without gradient checkpointing, one tool after the other. The first updates,
in which kernels are prepared, are left out; a tool's rate is the median of the others.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from data_speed import write_rows
from safetensors import safe_open

from snaketune.data.data_spec import DataSpec
from snaketune.data.prepare import prepare
from snaketune.experiment.resolved import to_yaml
from snaketune.experiment.schema import Configuration

HERE = Path(__file__).parent
LEFT_OUT = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--trl")
    parser.add_argument("--llamafactory")
    parser.add_argument("--method", choices=["lora", "qlora", "full"], default="lora")
    parser.add_argument("--updates", type=int, default=12)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder) / "rows.jsonl", 400)
        settings = {"base": str(args.base.resolve()), "rows": str(rows), "method": args.method}
        settings |= {"length": 512, "batch_size": 2, "updates": args.updates}
        settings |= {"threads": len(os.sched_getaffinity(0)), "output": f"{folder}/output"}
        rate = matrix_rate()
        print(f"{args.method}; bf16 matrix products reach {rate / 1e9:.0f} GFLOP/s here")
        ours = show("snaketune", run_ours(settings, Path(folder)), settings, rate, None)
        for name in ("trl", "llamafactory"):
            if getattr(args, name):
                show(name, run_peer(getattr(args, name), name, settings), settings, rate, ours)


def show(name: str, done: tuple[list, int], settings: dict, rate: float, ours: float | None):
    """Print a tool's line, and return its supervised tokens a second."""
    updates, peak = done[0][LEFT_OUT:], done[1]
    speed = statistics.median(update["supervised"] / update["seconds"] for update in updates)
    flops = statistics.median(
        needed_flops(settings, update["tokens"], update["supervised"]) / update["seconds"]
        for update in updates
    )
    compared = f"  snaketune is {ours / speed:.2f} times as fast" if ours else ""
    print(
        f"{name:<13} {speed:7.0f} supervised tokens/s  {flops / rate:4.0%} of the matrix rate  "
        f"peak {peak / 2**20:5.0f} MiB{compared}",
        flush=True,
    )
    return speed


def run_ours(settings: dict, folder: Path) -> tuple[list[dict], int]:
    data, output = folder / "data", folder / "checkpoints"
    source = {"label": "rows", "path": settings["rows"], "format": "alpaca", "vars": {}}
    spec = {"sources": [source | {"weight": 1.0}], "template": "auto", "loss_on": "assistant"}
    spec |= {"max_length": settings["length"], "truncation": "right", "deduplicate": False}
    prepare(DataSpec.from_key(spec | {"pack": True, "heldout": 0.0}), Path(settings["base"]), data)
    train = {"max_steps": settings["updates"], "batch_size": settings["batch_size"]}
    train |= {"accumulate": 1, "lr": 1e-4, "precision": "bf16", "save_every": 10**6}
    method = {"name": settings["method"], "r": 16, "alpha": 32, "dropout": 0.0}
    config = {"model": "base", "data": [{"path": "rows.jsonl"}], "train": train, "method": method}
    config = Configuration.model_validate(config).model_dump(mode="json")
    values = {"name": "speed", "study": "speed", "variant": None, "base_id": "base"}
    values |= {"data_id": "data", "train_id": "train", "prompts": [], "config": config}
    (folder / "resolved.yaml").write_text(to_yaml(values))
    program = [sys.executable, HERE.parents[1] / "scripts/train.py"]
    program += ["--config", folder / "resolved.yaml", "--base", settings["base"]]
    program += ["--data", data, "--output", output, "--log", folder / "train.log"]
    peak, _ = watched(program, folder)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    names = {"seconds": "time_seconds", "tokens": "tokens", "supervised": "supervised_tokens"}
    return [{ours: row[theirs] for ours, theirs in names.items()} for row in rows], peak


def run_peer(python: str, name: str, settings: dict) -> tuple[list[dict], int]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.json"
        file.write_text(json.dumps(settings | {"output": f"{folder}/output"}))
        peak, told = watched([python, HERE / "peers" / f"{name}_train.py", file], folder)
        return json.loads(told.splitlines()[-1]), peak


def watched(program: list, folder: Path | str) -> tuple[int, str]:
    """Run a program to its end; return its peak resident memory in bytes, and what it printed."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": folder}
        offline |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        process = subprocess.Popen(list(map(str, program)), env=offline, stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        out.seek(0)
        err.seek(0)
        if status:
            sys.exit(err.read()[-3000:])
        return used.ru_maxrss * 1024, out.read()


def needed_flops(settings: dict, tokens: int, supervised: int) -> float:
    """Return what a batch must compute in its matrix products, recomputing nothing.

    2 for each weight and token forward and 2 backward, 2 more where the weight itself is trained;
    the output layer works on the supervised tokens alone.
    """
    body, head = parameters(Path(settings["base"]))
    each = 6 if settings["method"] == "full" else 4
    return each * (body * tokens + head * supervised)


def parameters(base: Path) -> tuple[int, int]:
    """Return the matrix weights of a tied model's layers, and those of its embedding."""
    body = head = 0
    for file in base.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no dictionary)
                shape = tensors.get_slice(name).get_shape()
                if len(shape) == 2 and "embed" in name:
                    head += shape[0] * shape[1]
                elif len(shape) == 2 and "lm_head" not in name:
                    body += shape[0] * shape[1]
    return body, head


def matrix_rate() -> float:
    """Return the FLOP/s of a large bf16 matrix product, the best of several."""
    one = torch.randn(2048, 2048, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        one @ one
        best = max(best, 2 * 2048**3 / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
