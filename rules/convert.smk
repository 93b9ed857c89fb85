# Conversion: a checkpoint of XTuner 0.1 in place of training, for experiments with convert_from.


rule convert_xtuner:
    input:
        script=ancient("scripts/convert_xtuner.py"),
        base=base_provenance,
        source=converted_files,
    output:
        "experiments/{experiment}/checkpoints/last.pth",
        "experiments/{experiment}/checkpoints/train.json",
    log:
        "logs/{experiment}/train.log",
    wildcard_constraints:
        experiment=one_of(CONVERTED),
    conda:
        "../envs/cpu.yaml"
    params:
        train=lambda wildcards: canonical(train_key(experiment(wildcards))),
        id=lambda wildcards: train_id(experiment(wildcards)),
        base=subpath(input.base, parent=True),
        source=lambda wildcards: experiment(wildcards).convert_from,
        folder="experiments/{experiment}/checkpoints",
    shell:
        "python {input.script} --config {wildcards.experiment} --train-id {params.id} "
        "--base {params.base} --source {params.source:q} --output {params.folder} --log {log}"
