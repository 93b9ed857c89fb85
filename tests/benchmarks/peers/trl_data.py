"""Prepare alpaca rows as TRL's SFTTrainer does; prints the seconds it took.

PYTHON_WITH_TRL tests/benchmarks/peers/trl_data.py BASE ROWS WORKERS OUTPUT
"""

import sys
import time

from datasets import load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer


def main(base: str, rows: str, workers: int, output: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    settings = SFTConfig(
        output, max_length=2048, packing=True, dataset_num_proc=workers, use_cpu=True, bf16=False
    )
    few = {"train_dataset": load(rows, 100), "processing_class": tokenizer}
    trainer = SFTTrainer(tiny_model(len(tokenizer)), settings, **few)
    start = time.perf_counter()
    prepared = trainer._prepare_dataset(load(rows), tokenizer, settings, True, None, "train")
    print(f"{time.perf_counter() - start:.2f} {len(prepared)}")


def load(rows: str, count: int | None = None):
    """Return the rows as prompts and completions, of which the completion alone is learned."""
    data = load_dataset("json", data_files=rows, split=f"train[:{count}]" if count else "train")
    return data.map(
        lambda row: {
            "prompt": [{"role": "user", "content": row["instruction"]}],
            "completion": [{"role": "assistant", "content": row["output"]}],
        },
        remove_columns=data.column_names,
    )


def tiny_model(vocabulary: int) -> LlamaForCausalLM:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, num_attention_heads=1, **sizes))


if __name__ == "__main__":
    base, rows, workers, output = sys.argv[1:]
    main(base, rows, int(workers), output)
