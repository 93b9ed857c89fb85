# Questions that build nothing: what would a target do, and how do two experiments differ?


localrules:
    plan,
    diff,


rule plan:
    input:
        script=ancient("scripts/plan.py"),
    log:
        "logs/plan.log",
    conda:
        "../envs/cpu.yaml"
    params:
        targets=lambda wildcards: read_targets(config, STUDIES),
        config=lambda wildcards: canonical({k: v for k, v in config.items() if k != "target"}),
    shell:
        "python {input.script} {params.targets:q} --config {params.config:q} --log {log}"


rule diff:
    input:
        script=ancient("scripts/diff.py"),
    log:
        "logs/diff.log",
    conda:
        "../envs/cpu.yaml"
    params:
        pair=lambda wildcards: read_pair(config, STUDIES),
    shell:
        "python {input.script} {params.pair:q} --log {log}"
