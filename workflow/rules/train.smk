# One training per run. It reruns when its data or recipe changes, not when code changes; `luab status` lists the
# results of older code.


rule train:
    input:
        lambda wildcards: PLAN.training_inputs(run_of(wildcards)),
    output:
        card=f"{RESULTS}/runs/{{run}}/run.json",
        model=f"{RESULTS}/runs/{{run}}/model.safetensors",
        curve=f"{RESULTS}/runs/{{run}}/log.csv",
    log:
        "logs/train/{run}.log",
    conda:
        "../envs/luab.yaml"
    threads: STUDY.compute.threads
    resources:
        gpu=PLAN.train_gpus,
        nodes=STUDY.compute.nodes,
        mem_mb=PLAN.train_mem_mb,
        runtime=lambda wildcards: PLAN.train_minutes(run_of(wildcards)),
    params:
        recipe=lambda wildcards: PLAN.trained_with(run_of(wildcards)),
        images=lambda wildcards: images_of(run_of(wildcards)),
    shell:
        "python -m luab train {wildcards.run} > {log} 2>&1"
