# One job per run, or cohort of runs, and suite of test sets. This is the last stage that uses a GPU.

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
            run=f"{PLAN.outside_cohorts()}{dataset}/{BELOW_DATASET}",
        group:
            PLAN.prediction_group(suite.name)
        conda:
            "../envs/luab.yaml"
        threads: STUDY.compute.threads
        resources:
            one_at_a_time=1,
            gpu=PLAN.gpus,
            mem_mb=PLAN.job_mem_mb,
            runtime=PLAN.predict_minutes(suite.name),
        params:
            suite=suite.name,
        shell:
            "python -m luab predict {wildcards.run} {params.suite} > {log} 2>&1"

    for name, runs in PLAN.cohorts().items():
        if runs[0].dataset == dataset:

            rule:
                name:
                    f"predict_{suite.name}_{name}"
                input:
                    files_of(runs, "run.json"),
                    PLAN.suite_manifests(suite.name),
                output:
                    cards=files_of(runs, f"predictions/{suite.name}.json"),
                    tables=files_of(runs, *[f"predictions/{name}.parquet" for name in PLAN.test_sets(suite.name)]),
                log:
                    f"logs/predict/{name}/{suite.name}.log",
                conda:
                    "../envs/luab.yaml"
                threads: STUDY.compute.threads
                resources:
                    gpu=PLAN.gpus,
                    mem_mb=PLAN.cohort_mem_mb(runs),
                    runtime=PLAN.predict_minutes(suite.name),
                params:
                    runs=[run.folder for run in runs],
                    suite=suite.name,
                shell:
                    "python -m luab predict {params.runs} {params.suite} > {log} 2>&1"
