# One training per run, or per cohort of runs that see the same images (compute.cohort). It reruns when its data or recipe changes, not when code changes; `luab status` lists the
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
    wildcard_constraints:
        run=f"{PLAN.outside_cohorts()}({TASKS})/{BELOW_DATASET}",
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


for name, runs in PLAN.cohorts().items():

    rule:
        name:
            f"train_{name}"
        input:
            PLAN.cohort_inputs(runs),
        output:
            cards=files_of(runs, "run.json"),
            models=files_of(runs, "model.safetensors"),
            curves=files_of(runs, "log.csv"),
        log:
            f"logs/train/{name}.log",
        conda:
            "../envs/luab.yaml"
        threads: STUDY.compute.threads
        resources:
            gpu=PLAN.train_gpus,
            mem_mb=PLAN.cohort_mem_mb(runs),
            runtime=PLAN.cohort_minutes(runs),
        params:
            runs=[run.folder for run in runs],
            recipe=[PLAN.trained_with(run) for run in runs],
            images=images_of(runs[0]),
        shell:
            "python -m luab train {params.runs} > {log} 2>&1"
