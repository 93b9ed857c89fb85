# MLflow: send it what it missed, and look at it.


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


rule ui:
    input:
        script=ancient("scripts/ui.py"),
    log:
        "logs/ui.log",
    conda:
        "../envs/cpu.yaml"
    shell:
        "python {input.script} --log {log}"
