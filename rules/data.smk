# Processed data: shared by all experiments with the same data_id, in store/data.


rule prepare_data:
    input:
        script=ancient("scripts/prepare_data.py"),
        base=base_provenance,
        sources=source_files,
    output:
        "store/data/{data_id}/data.json",
        "store/data/{data_id}/samples.arrow",
        "store/data/{data_id}/train.arrow",
        "store/data/{data_id}/heldout.arrow",
        "store/data/{data_id}/report.json",
    log:
        "logs/data/{data_id}.log",
    conda:
        "../envs/cpu.yaml"
    threads: workflow.cores
    params:
        spec=lambda wildcards: canonical(data_key(DATA[wildcards.data_id])),
        base=subpath(input.base, parent=True),
        folder="store/data/{data_id}",
    shell:
        "python {input.script} --spec {params.spec:q} --base {params.base} "
        "--output {params.folder} --workers {threads} --log {log}"


localrules:
    data_report,


rule data_report:
    input:
        script=ancient("scripts/data_report.py"),
        data=processed("data.json"),
        report=ancient(processed("report.json")),
    output:
        report(
            "experiments/{experiment}/data/report.html",
            category="{experiment}",
            labels={"page": "the data", "experiment": "{experiment}"},
        ),
        "experiments/{experiment}/data/report.json",
        "experiments/{experiment}/data/report.txt",
    log:
        "logs/{experiment}/data_report.log",
    conda:
        "../envs/cpu.yaml"
    params:
        train=lambda wildcards: canonical(report_key(experiment(wildcards))),
        data=subpath(input.data, parent=True),
        folder="experiments/{experiment}/data",
    shell:
        "python {input.script} --config {wildcards.experiment} --data {params.data} "
        "--output {params.folder} --log {log}"
