# Talk to a model: in the browser, and as OpenAI's API for other programs.


localrules:
    demo,
    serve,


rule demo:
    input:
        script=ancient("scripts/demo.py"),
        weights=lambda wildcards: served_weights("demo"),
    log:
        "logs/demo.log",
    conda:
        "../envs/agent.yaml"
    params:
        models=lambda wildcards: read_models(config, STUDIES, "demo"),
    shell:
        "python {input.script} {params.models:q} --log {log}"


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
