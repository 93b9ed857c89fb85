"""How fast is a merge, and in how much memory, against PEFT's and a bare copy of the files?

python tests/benchmarks/merge_speed.py [--sizes 1B 3B] [--rounds 3]

Random Llamas in bf16 with LoRA r 64 on all linear layers. Ours reads, sums and writes a block at a
time; PEFT's is from_pretrained, merge_and_unload and save_pretrained; the copy is the base's own
files. All end with fsync. Each runs in a process of its own, in turns; memory is the peak beyond
what the process held after its imports. What is told are medians of the rounds' ratios.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from snaketune.export.merged_weights import MergedWeights
from snaketune.export.model_assembly import base_weights, without_weights
from snaketune.export.weight_delta import read_adapter
from snaketune.models.weights import write_weights

SIZES = {
    "1B": {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32},
    "3B": {"hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24},
}
SAME = {"intermediate_size": 8192, "num_key_value_heads": 8, "vocab_size": 128256}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(measured(RUNS[args.run], args.folder)))
        return
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            compare(size, Path(folder), args.rounds)


def compare(size: str, folder: Path, rounds: int) -> None:
    write_model(folder, LlamaConfig(**SAME, **SIZES[size], tie_word_embeddings=True))
    done = [{name: in_a_process(name, folder) for name in RUNS} for _ in range(rounds)]
    for name in RUNS:
        seconds = statistics.median(each[name]["seconds"] for each in done)
        peak = max(each[name]["peak_bytes"] for each in done) / 2**20
        ratio = statistics.median(each[name]["seconds"] / each["ours"]["seconds"] for each in done)
        print(f"{size} {name}: {seconds:.1f} s, {ratio:.2f} times ours, {peak:,.0f} MiB")


def in_a_process(name: str, folder: Path) -> dict:
    command = [sys.executable, __file__, "--run", name, "--folder", str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    shutil.rmtree(folder / "merged")
    return json.loads(output.splitlines()[-1])


def measured(merge, folder: Path) -> dict:
    before = psutil.Process().memory_info().rss
    (folder / "merged").mkdir()
    start = time.perf_counter()
    merge(folder / "base", folder / "adapter", folder / "merged")
    for file in (folder / "merged").iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    seconds = time.perf_counter() - start
    # of this program alone: getrusage also counts what the parent held when it started this one
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {"seconds": seconds, "peak_bytes": 1024 * int(peak) - before}


def ours(base: Path, adapter: Path, output: Path) -> None:
    model = without_weights(base)
    weights = MergedWeights(*base_weights(base, model), read_adapter(adapter, model))
    write_weights(output, weights.shapes(), weights.blocks, "2GB")


def peft(base: Path, adapter: Path, output: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged.save_pretrained(output, max_shard_size="2GB")


def copy(base: Path, adapter: Path, output: Path) -> None:
    for file in base.glob("*.safetensors"):
        shutil.copyfile(file, output / file.name)


RUNS = {"ours": ours, "peft": peft, "copy": copy}


def write_model(folder: Path, config: LlamaConfig) -> None:
    """Write a random base and adapter, a tensor at a time."""
    (folder / "base").mkdir()
    config.save_pretrained(folder / "base")
    model = without_weights(folder / "base").to(torch.bfloat16)
    shapes = dict(model.named_parameters())

    def values(name: str) -> list[torch.Tensor]:
        return [torch.empty(shapes[name].shape, dtype=torch.bfloat16).normal_(std=0.02)]

    write_weights(folder / "base", shapes, values, "2GB")
    lora = LoraConfig(task_type="CAUSAL_LM", r=64, lora_alpha=16, target_modules="all-linear")
    adapted = get_peft_model(model, lora, low_cpu_mem_usage=True)
    adapted.peft_config["default"].save_pretrained(folder / "adapter")
    weights = {
        name.replace(".default", ""): torch.empty(parameter.shape).normal_(std=0.02)
        for name, parameter in adapted.named_parameters()
        if "lora_" in name
    }
    save_file(weights, folder / "adapter/adapter_model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    main()
