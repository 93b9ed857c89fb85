"""Train LoRA as TRL's SFTTrainer does; prints JSON with each update's seconds and tokens.

PYTHON_WITH_TRL tests/benchmarks/peers/trl_train.py SETTINGS.json
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig
from stopwatch import Stopwatch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer
from trl_data import load


def main(settings: dict) -> None:
    torch.set_num_threads(settings["threads"])
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        settings["base"],
        dtype=torch.bfloat16,
        quantization_config=quantised if settings["method"] == "qlora" else None,
    )
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    config = SFTConfig(
        settings["output"],
        max_length=settings["length"],
        max_steps=settings["updates"],
        per_device_train_batch_size=settings["batch_size"],
        gradient_accumulation_steps=1,
        packing=True,
        bf16=True,
        use_cpu=True,
        gradient_checkpointing=False,
        learning_rate=1e-4,
        report_to="none",
        save_strategy="no",
    )
    trainer = SFTTrainer(
        model,
        config,
        train_dataset=load(settings["rows"]),
        processing_class=AutoTokenizer.from_pretrained(settings["base"]),
        peft_config=None if settings["method"] == "full" else lora,
    )
    watch = Stopwatch(trainer)
    trainer.train()
    print(json.dumps(watch.updates))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
