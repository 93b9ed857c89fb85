# The experiments themselves: what there is, whether it is right, and one resolved in full.


localrules:
    check,
    resolve,


rule check:
    input:
        script=ancient("scripts/experiments.py"),
    log:
        "logs/check.log",
    conda:
        "../envs/cpu.yaml"
    shell:
        "python {input.script} check --log {log}"


rule resolve:
    input:
        script=ancient("scripts/resolve.py"),
    output:
        "experiments/{experiment}/resolved.yaml",
    log:
        "logs/{experiment}/resolve.log",
    conda:
        "../envs/cpu.yaml"
    params:
        config=lambda wildcards: canonical(experiment(wildcards).config.model_dump(mode="json")),
        ids=lambda wildcards: train_id(experiment(wildcards)),
    shell:
        "python {input.script} {wildcards.experiment} --output {output} --log {log}"
