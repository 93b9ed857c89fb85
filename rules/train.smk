# Training. Checkpoints besides last.pth are undeclared, so that Snakemake never deletes them.


rule train:
    input:
        script=ancient("scripts/train.py"),
        base=base_provenance,
        data=processed("data.json"),
        packs=ancient(processed("train.arrow")),
        start=start_checkpoint,
    output:
        "experiments/{experiment}/checkpoints/last.pth",
        "experiments/{experiment}/checkpoints/train.json",
    log:
        "logs/{experiment}/train.log",
    wildcard_constraints:
        experiment=one_of(STUDIES.experiments.keys() - CONVERTED),
    conda:
        "../envs/cpu.yaml"
    threads: workflow.cores
    params:
        train=lambda wildcards: canonical(result_key(experiment(wildcards))),
        id=lambda wildcards: train_id(experiment(wildcards)),
        base=subpath(input.base, parent=True),
        data=subpath(input.data, parent=True),
        folder="experiments/{experiment}/checkpoints",
        start=lambda wildcards, input: f"--start {input.start}" if input.start else "",
    shell:
        "python {input.script} --config {wildcards.experiment} --train-id {params.id} "
        "--base {params.base} --data {params.data} --output {params.folder} "
        "{params.start} --log {log}"
