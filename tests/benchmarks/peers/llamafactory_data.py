"""Prepare alpaca rows as LLaMA-Factory's `train` does; prints the seconds it took.

PYTHON_WITH_LLAMAFACTORY tests/benchmarks/peers/llamafactory_data.py BASE ROWS WORKERS OUTPUT
"""

import json
import sys
import time
from pathlib import Path

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer


def main(base: str, rows: Path, workers: int, output: Path) -> None:
    describe(rows)
    model, data, training, _, _ = get_train_args(
        {
            "model_name_or_path": base,
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "dataset": "rows",
            "dataset_dir": str(rows.parent),
            "template": "chatml",
            "cutoff_len": 2048,
            "packing": True,
            "neat_packing": True,
            "preprocessing_num_workers": workers,
            "output_dir": str(output),
            "use_cpu": True,
            "report_to": "none",
        }
    )
    loaded = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], data)
    start = time.perf_counter()
    prepared = get_dataset(template, model, data, training, "sft", **loaded)
    print(f"{time.perf_counter() - start:.2f} {len(prepared['train_dataset'])}")


def describe(rows: Path) -> None:
    """Write the file that tells LLaMA-Factory where the rows are and what their columns mean."""
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    described = {"rows": {"file_name": rows.name, "columns": columns}}
    (rows.parent / "dataset_info.json").write_text(json.dumps(described))


if __name__ == "__main__":
    base, rows, workers, output = sys.argv[1:]
    main(base, Path(rows), int(workers), Path(output))
