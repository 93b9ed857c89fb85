# Export: checkpoint to PEFT adapter, adapter and base to a full model.
# {at} is `iter_N/` for a kept checkpoint and empty for the end of training.


rule export_adapter:
    input:
        script=ancient("scripts/export_adapter.py"),
        base=base_provenance,
        trained="experiments/{experiment}/checkpoints/last.pth",
    output:
        directory("experiments/{experiment}/{at}adapter"),
    log:
        "logs/{experiment}/{at}export_adapter.log",
    conda:
        "../envs/cpu.yaml"
    params:
        base=subpath(input.base, parent=True),
        checkpoint=checkpoint,
        version=EXPORT_VERSION,
    shell:
        "python {input.script} --config {wildcards.experiment} --checkpoint {params.checkpoint} "
        "--base {params.base} --output {output} --log {log}"


rule merge:
    input:
        script=ancient("scripts/merge.py"),
        base=base_provenance,
        trained=trained_weights,
        heldout=ancient(processed("heldout.arrow")),
    output:
        directory("experiments/{experiment}/{at}merged"),
    log:
        "logs/{experiment}/{at}merge.log",
    conda:
        "../envs/cpu.yaml"
    threads: workflow.cores
    params:
        base=subpath(input.base, parent=True),
        trained=merged_weights,
        export=lambda wildcards: canonical(export_key(experiment(wildcards))),
    shell:
        "python {input.script} --config {wildcards.experiment} --base {params.base} "
        "--trained {params.trained} --heldout {input.heldout} --output {output} --log {log}"


rule split:
    input:
        script=ancient("scripts/split.py"),
        merged="experiments/{experiment}/{at}merged",
    output:
        directory("experiments/{experiment}/{at}split"),
    log:
        "logs/{experiment}/{at}split.log",
    conda:
        "../envs/cpu.yaml"
    shell:
        "python {input.script} --model {input.merged} --output {output} --log {log}"


rule verify:
    input:
        script=ancient("scripts/verify.py"),
        merged="experiments/{experiment}/{at}merged",
    output:
        "experiments/{experiment}/{at}verify",
    log:
        "logs/{experiment}/{at}verify.log",
    conda:
        "../envs/cpu.yaml"
    params:
        now=time.time_ns(),  # bytes may have changed since the last time
    shell:
        "python {input.script} --model {input.merged} --output {output} --log {log}"
