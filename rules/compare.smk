# Comparison: a study's variants on one page. They are built first; `snakemake compare
# --config study=STUDY` instead makes the page of what is there, and so does a failed build.


localrules:
    compare,
    study_report,


rule study_report:
    input:
        script=ancient("scripts/compare.py"),
        reports=study_reports,
    output:
        report(
            "experiments/{study}/compare/report.html",
            category="{study}",
            labels={"page": "variants compared", "experiment": "{study}"},
        ),
        "experiments/{study}/compare/table.csv",
        "experiments/{study}/compare/report.json",
    log:
        "logs/{study}/compare.log",
    conda:
        "../envs/cpu.yaml"
    params:
        settings=study_settings,
        folder="experiments/{study}/compare",
    shell:
        "python {input.script} {wildcards.study} --output {params.folder} --log {log}"


rule compare:
    input:
        script=ancient("scripts/compare.py"),
    log:
        "logs/compare.log",
    conda:
        "../envs/cpu.yaml"
    params:
        study=config.get("study", ""),
    shell:
        "python {input.script} {params.study:q} --log {log}"
