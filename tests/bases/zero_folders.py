"""Save checkpoints with DeepSpeed as XTuner does: a step on a base's LoRA, or on all its weights.

python -m torch.distributed.run --nproc-per-node=2 zero_folders.py BASE FOLDER STAGE-METHOD...
"""

import sys
from pathlib import Path

import deepspeed
import torch
from transformers import AutoModelForCausalLM

from xtuner_run import CONFIG, SupervisedFinetune, peft_model


def save(base: Path, folder: Path, stage: int, method: str) -> None:
    """Take one step in bf16 and write `folder`/iter_500.pth."""
    if method == "lora":
        model = peft_model(base)
    else:
        model = SupervisedFinetune(AutoModelForCausalLM.from_pretrained(base))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    zero = {"stage": stage, "reduce_bucket_size": 1000, "stage3_param_persistence_threshold": 0}
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
    }
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    ids = torch.arange(3, 60)[None] + engine.global_rank
    engine.backward(engine.module.llm(input_ids=ids, labels=ids).loss)
    engine.step()
    meta = {"iter": 500, "epoch": 0, "cfg": CONFIG}
    engine.save_checkpoint(
        str(folder),
        tag="iter_500.pth",
        client_state={
            "meta": meta,
            "message_hub": {"device": torch.device("cpu"), "o": optimizer.__class__},
        },
        save_latest=False,
        exclude_frozen_parameters=True,
    )


if __name__ == "__main__":
    base, folder, *kinds = sys.argv[1:]
    deepspeed.init_distributed("gloo", verbose=False)
    for kind in kinds:
        stage, method = kind.split("-")
        save(Path(base), Path(folder) / kind, int(stage), method)
