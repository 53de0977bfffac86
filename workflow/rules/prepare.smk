# From byproducts and images to what training and prediction read.


rule index:
    input:
        f"{DATA}/archives/imagenet_ab.json",
    output:
        card=f"{DATA}/byproducts/imagenet_ab.json",
        index=f"{DATA}/byproducts/imagenet_ab.parquet",
    log:
        "logs/index.log",
    conda:
        "../envs/luab.yaml"
    threads: 4
    resources:
        mem_mb=2000,
        runtime=120,
    shell:
        "python -m luab index > {log} 2>&1"


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
        f"{DATA}/byproducts/imagenet_ab.json",
    output:
        card=f"{DATA}/targets/imagenet/{{supervision}}.json",
        targets=f"{DATA}/targets/imagenet/{{supervision}}.parquet",
    log:
        "logs/targets/{supervision}.log",
    conda:
        "../envs/luab.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        seed=STUDY.random_points_seed,
        code=CODE("luab.data.targets"),
    shell:
        "python -m luab targets {wildcards.supervision} > {log} 2>&1"


# Only where the config has a `packing` section. The shards lie beside the index and are no declared outputs, so that an
# interrupted packing goes on.
rule pack:
    input:
        f"{DATA}/manifests/{{dataset}}.json",
    output:
        card=f"{DATA}/packs/{{dataset}}.json",
        index=f"{DATA}/packs/{{dataset}}.parquet",
    log:
        "logs/pack/{dataset}.log",
    wildcard_constraints:
        dataset="imagenet_train",
    conda:
        "../envs/luab.yaml"
    threads: STUDY.compute.threads
    resources:
        mem_mb=PLAN.job_mem_mb,
        runtime=24 * 60,
    params:
        packing=PLAN.packing,
        images=str(STUDY.paths.imagenet),
    shell:
        "python -m luab pack > {log} 2>&1"
