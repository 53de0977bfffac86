# From byproducts and images to what training and prediction read.


rule index:
    input:
        f"{DATA}/archives/{{byproducts}}.json",
    output:
        card=f"{DATA}/byproducts/{{byproducts}}.json",
        index=f"{DATA}/byproducts/{{byproducts}}.parquet",
    log:
        "logs/index/{byproducts}.log",
    conda:
        "../envs/luab.yaml"
    resources:
        mem_mb=2000,
        runtime=120,
    shell:
        "python -m luab index {wildcards.byproducts} > {log} 2>&1"


rule manifest:
    input:
        lambda wildcards: PLAN.manifest_inputs(wildcards.dataset),
    output:
        card=f"{DATA}/manifests/{{dataset}}.json",
        manifest=f"{DATA}/manifests/{{dataset}}.parquet",
    log:
        "logs/manifest/{dataset}.log",
    conda:
        "../envs/luab.yaml"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        source=lambda wildcards: PLAN.own_copy(wildcards.dataset),
        partial=STUDY.paths.partial,
    shell:
        "python -m luab manifest {wildcards.dataset} > {log} 2>&1"


rule targets:
    input:
        lambda wildcards: PLAN.target_inputs(wildcards.taught),
    output:
        card=f"{DATA}/targets/{{taught}}/{{supervision}}.json",
        targets=f"{DATA}/targets/{{taught}}/{{supervision}}.parquet",
    log:
        "logs/targets/{taught}/{supervision}.log",
    conda:
        "../envs/luab.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        seed=STUDY.random_points_seed,
        code=lambda wildcards: CODE(PLAN.target_module(wildcards.taught)),
    shell:
        "python -m luab targets {wildcards.supervision} --dataset {wildcards.taught} > {log} 2>&1"
