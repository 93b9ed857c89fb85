"""Train LoRA as LLaMA-Factory does; prints JSON with each update's seconds and tokens.

PYTHON_WITH_LLAMAFACTORY tests/benchmarks/peers/llamafactory_train.py SETTINGS.json
"""

import json
import sys
from pathlib import Path

import torch
from llamafactory.train.sft import trainer as sft
from llamafactory.train.tuner import run_exp
from llamafactory_data import describe
from stopwatch import Stopwatch


def main(settings: dict) -> None:
    torch.set_num_threads(settings["threads"])
    watches = []
    create = sft.CustomSeq2SeqTrainer.__init__

    def watched(trainer, *args, **kwargs) -> None:
        create(trainer, *args, **kwargs)
        watches.append(Stopwatch(trainer))

    sft.CustomSeq2SeqTrainer.__init__ = watched
    run_exp(arguments(settings))
    print(json.dumps(watches[0].updates))


def arguments(settings: dict) -> dict:
    rows = Path(settings["rows"])
    describe(rows)
    method = settings["method"]
    quantised = {"quantization_bit": 4, "quantization_method": "bnb", "double_quantization": True}
    return {
        "model_name_or_path": settings["base"],
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full" if method == "full" else "lora",
        **(quantised if method == "qlora" else {}),
        "lora_rank": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.0,
        "lora_target": "all",
        "dataset": "rows",
        "dataset_dir": str(rows.parent),
        "template": "chatml",
        "cutoff_len": settings["length"],
        "packing": True,
        "max_steps": settings["updates"],
        "per_device_train_batch_size": settings["batch_size"],
        "gradient_accumulation_steps": 1,
        "bf16": True,
        "use_cpu": True,
        "disable_gradient_checkpointing": True,
        "learning_rate": 1e-4,
        "report_to": "none",
        "output_dir": settings["output"],
    }


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
