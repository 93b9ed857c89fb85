# Talk to a model: in this terminal, in the browser, or as OpenAI's API for other programs.


localrules:
    chat,
    demo,
    serve,


rule chat:
    input:
        script=ancient("scripts/chat.py"),
        weights=lambda wildcards: served_weights("chat"),
    log:
        "logs/chat.log",
    conda:
        "../envs/cpu.yaml"
    threads: workflow.cores  # nothing else may write to the terminal meanwhile
    params:
        model=lambda wildcards: read_model(config, STUDIES, "chat"),
    shell:
        "python {input.script} {params.model:q} --log {log}"


rule demo:
    input:
        script=ancient("scripts/demo.py"),
        weights=lambda wildcards: served_weights("demo"),
    log:
        "logs/demo.log",
    conda:
        "../envs/agent.yaml"
    threads: workflow.cores
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
    threads: workflow.cores
    params:
        models=lambda wildcards: read_models(config, STUDIES, "serve"),
    shell:
        "python {input.script} {params.models:q} --log {log}"
