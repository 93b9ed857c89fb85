# Base models and hub data sets: fetched once, kept in store/ by id.


rule fetch_base:
    input:
        script=ancient("scripts/fetch_base.py"),
        local=local_model_files,
    output:
        "store/models/{base_id}/provenance.json",
    log:
        "logs/models/{base_id}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        spec=lambda wildcards: canonical(base_key(BASES[wildcards.base_id])),
        folder="store/models/{base_id}",
    shell:
        "python {input.script} --spec {params.spec:q} --output {params.folder} --log {log}"


rule fetch_dataset:
    input:
        script=ancient("scripts/fetch_dataset.py"),
    output:
        "store/datasets/{dataset_id}/provenance.json",
    log:
        "logs/datasets/{dataset_id}.log",
    conda:
        "../envs/cpu.yaml"
    params:
        spec=lambda wildcards: canonical(DATASETS[wildcards.dataset_id].model_dump()),
        folder="store/datasets/{dataset_id}",
    shell:
        "python {input.script} --spec {params.spec:q} --output {params.folder} --log {log}"
