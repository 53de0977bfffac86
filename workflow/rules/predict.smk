# One job per run and suite of test sets. This is the last stage that uses a GPU.

for dataset, suite in [(name, suite) for name, part in STUDY.parts.items() for suite in part.suites]:

    rule:
        name:
            f"predict_{suite.name}"
        input:
            f"{RESULTS}/runs/{{run}}/run.json",
            PLAN.suite_manifests(suite.name),
        output:
            card=f"{RESULTS}/runs/{{run}}/predictions/{suite.name}.json",
            tables=[f"{RESULTS}/runs/{{run}}/predictions/{name}.parquet" for name in PLAN.test_sets(suite.name)],
        log:
            f"logs/predict/{{run}}/{suite.name}.log",
        wildcard_constraints:
            run=f"{dataset}/{BELOW_DATASET}",
        conda:
            "../envs/luab.yaml"
        threads: STUDY.compute.threads
        resources:
            gpu=PLAN.gpus,
            mem_mb=PLAN.job_mem_mb,
            runtime=PLAN.predict_minutes(suite.name),
        params:
            suite=suite.name,
        shell:
            "python -m luab predict {wildcards.run} {params.suite} > {log} 2>&1"
