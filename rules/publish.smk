# Publishing: send a model to a hub, or make a folder ready for one. --config to=hf:ORG/NAME says
# where; access tokens are read from the environment by the program.


localrules:
    publish,
    list_to_publish,


rule publish:
    input:
        script=ancient("scripts/publish.py"),
        folder=published_folder,
    output:
        "experiments/{experiment}/{at}published",
    log:
        "logs/{experiment}/{at}publish.log",
    conda:
        "../envs/cpu.yaml"
    params:
        to=lambda wildcards: requested().to,
        visibility=lambda wildcards: "" if requested().private else "--public",
    shell:
        "python {input.script} --folder {input.folder} --to {params.to:q} {params.visibility} "
        "--output {output} --log {log}"


rule list_to_publish:
    input:
        script=ancient("scripts/publish.py"),
        folder=published_folder,
    output:
        "experiments/{experiment}/{at}to_publish.txt",
    log:
        "logs/{experiment}/{at}list_to_publish.log",
    conda:
        "../envs/cpu.yaml"
    params:
        to=lambda wildcards: requested().to,
        visibility=lambda wildcards: "" if requested().private else "--public",
    shell:
        "python {input.script} --dry-run --folder {input.folder} --to {params.to:q} "
        "{params.visibility} --output {output} --log {log}"


onstart:
    refuse_publishing_without_token()
