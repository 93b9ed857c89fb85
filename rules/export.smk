# Export: checkpoint to PEFT adapter, adapter and base to a full model.


rule export_adapter:
    input:
        script=ancient("scripts/export_adapter.py"),
        base=base_provenance,
        trained="experiments/{experiment}/checkpoints/last.pth",
    output:
        directory("experiments/{experiment}/adapter"),
    log:
        "logs/{experiment}/export_adapter.log",
    conda:
        "../envs/cpu.yaml"
    params:
        base=subpath(input.base, parent=True),
        checkpoints=subpath(input.trained, parent=True),
        iteration="last",
        version=EXPORT_VERSION,
    shell:
        "python {input.script} --checkpoints {params.checkpoints} --iteration {params.iteration} "
        "--base {params.base} --output {output} --log {log}"


use rule export_adapter as export_adapter_of_iteration with:
    output:
        directory("experiments/{experiment}/iter_{iteration}/adapter"),
    log:
        "logs/{experiment}/export_adapter_{iteration}.log",
    params:
        base=subpath(input.base, parent=True),
        checkpoints=subpath(input.trained, parent=True),
        iteration="{iteration}",
        version=EXPORT_VERSION,


rule merge:
    input:
        script=ancient("scripts/merge.py"),
        base=base_provenance,
        trained=trained_weights,
    output:
        directory("experiments/{experiment}/merged"),
    log:
        "logs/{experiment}/merge.log",
    conda:
        "../envs/cpu.yaml"
    threads: workflow.cores
    params:
        base=subpath(input.base, parent=True),
        trained=merged_weights,
        version=EXPORT_VERSION,
    shell:
        "python {input.script} --base {params.base} --trained {params.trained} "
        "--output {output} --log {log}"


use rule merge as merge_of_iteration with:
    input:
        script=ancient("scripts/merge.py"),
        base=base_provenance,
        trained=trained_weights,
    output:
        directory("experiments/{experiment}/iter_{iteration}/merged"),
    log:
        "logs/{experiment}/merge_{iteration}.log",
