# Evaluation: base, kept checkpoints and merged model side by side.


rule evaluate:
    input:
        script=ancient("scripts/evaluate.py"),
        base=base_provenance,
        merged="experiments/{experiment}/merged",
        data=processed("data.json"),
        packs=ancient(processed("heldout.arrow")),
        train="experiments/{experiment}/checkpoints/train.json",
        probes=probe_files,
        lm_eval=lm_eval_files,
    output:
        report(
            "experiments/{experiment}/eval/report.html",
            category="{experiment}",
            labels={"page": "before and after", "experiment": "{experiment}"},
        ),
        "experiments/{experiment}/eval/report.json",
    log:
        "logs/{experiment}/evaluate.log",
    conda:
        "../envs/cpu.yaml"
    threads: workflow.cores
    params:
        evaluate=lambda wildcards: canonical(evaluate_key(experiment(wildcards))),
        base=subpath(input.base, parent=True),
        data=subpath(input.data, parent=True),
        checkpoints=subpath(input.train, parent=True),
        folder="experiments/{experiment}/eval",
    shell:
        "python {input.script} --config {wildcards.experiment} --base {params.base} "
        "--merged {input.merged} --data {params.data} --checkpoints {params.checkpoints} "
        "--output {params.folder} --log {log}"
