# MLflow: send it what it missed, put a model into its registry, and look at it.


localrules:
    track,
    ui,


rule track:
    input:
        script=ancient("scripts/track.py"),
    log:
        "logs/track.log",
    conda:
        "../envs/cpu.yaml"
    shell:
        "python {input.script} --log {log}"


rule register:
    input:
        script=ancient("scripts/register.py"),
        merged="experiments/{experiment}/{at}merged",
    output:
        "experiments/{experiment}/{at}registered",
    log:
        "logs/{experiment}/{at}register.log",
    conda:
        "../envs/cpu.yaml"
    params:
        checkpoints="experiments/{experiment}/checkpoints",
        server=shown_uri(),
    shell:
        "python {input.script} --merged {input.merged} --checkpoints {params.checkpoints} "
        "--output {output} --log {log}"


rule ui:
    input:
        script=ancient("scripts/ui.py"),
    log:
        "logs/ui.log",
    conda:
        "../envs/cpu.yaml"
    shell:
        "python {input.script} --log {log}"
