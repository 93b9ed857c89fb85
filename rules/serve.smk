# Talk to a model: as OpenAI's API for other programs.


localrules:
    serve,


rule serve:
    input:
        script=ancient("scripts/serve.py"),
        weights=lambda wildcards: served_weights("serve"),
    log:
        "logs/serve.log",
    conda:
        "../envs/cpu.yaml"
    params:
        models=lambda wildcards: read_models(config, STUDIES, "serve"),
    shell:
        "python {input.script} {params.models:q} --log {log}"
