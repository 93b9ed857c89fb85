# The agent: base and trained model answer questions with tools, side by side.


rule agent:
    input:
        script=ancient("scripts/agent.py"),
        base=base_provenance,
        trained=lambda wildcards: weights_of(wildcards.experiment, STUDIES),
        train="experiments/{experiment}/checkpoints/train.json",
        files=lambda wildcards: experiment(wildcards).agent_files,
    output:
        report(
            "experiments/{experiment}/agent/report.html",
            category="{experiment}",
            labels={"page": "agent", "experiment": "{experiment}"},
        ),
        "experiments/{experiment}/agent/report.json",
    log:
        "logs/{experiment}/agent.log",
    conda:
        "../envs/agent.yaml"
    threads: workflow.cores
    params:
        agent=lambda wildcards: canonical(agent_key(experiment(wildcards))),
        checkpoints=subpath(input.train, parent=True),
        folder="experiments/{experiment}/agent",
        server_log="logs/{experiment}/agent_server.log",
    shell:
        "python {input.script} {wildcards.experiment} --output {params.folder} "
        "--checkpoints {params.checkpoints} --server-log {params.server_log} --log {log}"
