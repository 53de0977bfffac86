# Turns byproducts and images into the files that training and prediction read.


rule index:
    input:
        lambda wildcards: PLAN.index_inputs(wildcards.byproducts),
    output:
        card=f"{DATA}/byproducts/{{byproducts}}.json",
        index=f"{DATA}/byproducts/{{byproducts}}.parquet",
    log:
        "logs/index/{byproducts}.log",
    conda:
        "../envs/luab.yaml"
    # A drawn index takes a second, and a job of two cores would wait until both are free.
    threads: lambda wildcards: 4 if wildcards.byproducts == "imagenet_ab" and not STUDY.demo else 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        on_bad=STUDY.on_bad,
        options=lambda wildcards: PLAN.index_options(wildcards.byproducts),
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
        partial=lambda wildcards: PLAN.manifest_options(wildcards.dataset),
    shell:
        "python -m luab manifest {wildcards.dataset} > {log} 2>&1"


rule targets:
    input:
        lambda wildcards: PLAN.target_inputs(wildcards.taught, wildcards.target),
    output:
        card=f"{DATA}/targets/{{taught}}/{{target}}.json",
        targets=f"{DATA}/targets/{{taught}}/{{target}}.parquet",
    log:
        "logs/targets/{taught}/{target}.log",
    conda:
        "../envs/luab.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        seed=STUDY.random_points_seed,
        code=lambda wildcards: CODE(PLAN.target_module(wildcards.taught)),
    shell:
        "python -m luab targets {wildcards.target} --dataset {wildcards.taught} > {log} 2>&1"


# Only if the config has a `packing` section. The shards next to the index are not declared outputs, so that an
# interrupted packing resumes.
rule pack:
    input:
        f"{DATA}/manifests/{{dataset}}.json",
    output:
        card=f"{DATA}/packs/{{dataset}}.json",
        index=f"{DATA}/packs/{{dataset}}.parquet",
    log:
        "logs/pack/{dataset}.log",
    wildcard_constraints:
        dataset=PLAN.packed,
    conda:
        "../envs/luab.yaml"
    threads: STUDY.compute.threads
    resources:
        mem_mb=PLAN.job_mem_mb,
        runtime=24 * 60,
    params:
        packing=PLAN.packing,
        images=PLAN.own_copy(PLAN.packed),
    shell:
        "python -m luab pack > {log} 2>&1"
