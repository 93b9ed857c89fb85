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
        "store/data/{data_id}/report.txt",
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
        processed("report.{extension}"),
    output:
        "experiments/{experiment}/data/report.{extension}",
    log:
        "logs/{experiment}/data_report.{extension}.log",
    wildcard_constraints:
        extension="json|txt",
    conda:
        "../envs/cpu.yaml"
    shell:
        "cp {input} {output} 2> {log}"
