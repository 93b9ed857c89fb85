# SnakeTune: experiment YAMLs in, checkpoints, adapters, merged models and reports out.
#
#   snakemake                                    list the experiments
#   snakemake check                              validate every experiment file
#   snakemake experiments/oasst1_zero2/merged    build one target and all it needs

from snakemake.utils import min_version

min_version("9.27")


include: "rules/common.smk"


wildcard_constraints:
    experiment=one_of(STUDIES.experiments),
    base_id=one_of(BASES),
    data_id=one_of(DATA),
    dataset_id=one_of(DATASETS),
    study=one_of(sorted({each.study for each in STUDIES.experiments.values()})),
    at=r"(iter_[1-9]\d*/)?",


include: "rules/experiments.smk"
include: "rules/base.smk"
include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/convert.smk"
include: "rules/export.smk"
include: "rules/publish.smk"
include: "rules/evaluate.smk"
include: "rules/agent.smk"
include: "rules/compare.smk"
include: "rules/track.smk"
include: "rules/serve.smk"
include: "rules/questions.smk"


localrules:
    list,


rule list:
    default_target: True
    input:
        script=ancient("scripts/experiments.py"),
    log:
        "logs/list.log",
    conda:
        "envs/cpu.yaml"
    shell:
        "python {input.script} list --log {log}"


onerror:
    compare_what_is_there()
    print("The error and the last lines of its log are above; logs are kept in logs/.")
