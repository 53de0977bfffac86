# Computes scores from predictions: one job per run, or cohort of runs, and suite. Scoring is cheap, so it reruns when
# its code changes.

for dataset, suite in [(name, suite) for name, part in STUDY.parts.items() for suite in part.suites]:

    rule:
        name:
            f"score_{suite.name}"
        input:
            f"{RESULTS}/runs/{{run}}/predictions/{suite.name}.json",
            PLAN.score_manifests(suite.name),
        output:
            scores=[f"{RESULTS}/runs/{{run}}/scores/{name}.json" for name in suite.benchmarks],
        log:
            f"logs/score/{{run}}/{suite.name}.log",
        wildcard_constraints:
            run=f"{PLAN.outside_cohorts()}{dataset}/{BELOW_DATASET}",
        group:
            "scores_{run}"
        conda:
            "../envs/luab.yaml"
        threads: min(STUDY.compute.threads, 4)
        resources:
            one_at_a_time=1,
            mem_mb=4000,
            runtime=30,
        params:
            suite=suite.name,
            code=CODE("luab.benchmarks.score"),
        shell:
            "python -m luab score {wildcards.run} {params.suite} > {log} 2>&1"

    for name, runs in PLAN.cohorts().items():
        if runs[0].dataset == dataset:

            rule:
                name:
                    f"score_{suite.name}_{name}"
                input:
                    files_of(runs, f"predictions/{suite.name}.json"),
                    PLAN.score_manifests(suite.name),
                output:
                    scores=files_of(runs, *[f"scores/{name}.json" for name in suite.benchmarks]),
                log:
                    f"logs/score/{name}/{suite.name}.log",
                conda:
                    "../envs/luab.yaml"
                threads: min(STUDY.compute.threads, 4)
                resources:
                    mem_mb=4000,
                    runtime=30 * len(runs),
                params:
                    runs=[run.folder for run in runs],
                    suite=suite.name,
                    code=CODE("luab.benchmarks.score"),
                shell:
                    "python -m luab score {params.runs} {params.suite} > {log} 2>&1"


rule collect:
    input:
        PLAN.scores(),
    output:
        scores=f"{SHOWN}/scores.csv",
    log:
        "logs/collect.log",
    conda:
        "../envs/luab.yaml"
    params:
        code=CODE("luab.benchmarks.collect"),
    shell:
        "python -m luab collect > {log} 2>&1"
