# Fine-tunes trained backbones for detection and segmentation, predicts and scores: one job per fine-tuning and stage.
# Like trainings, fine-tunings and their predictions do not rerun when code changes. Without a section `transfer` in the
# config there are no such rules.

if STUDY.transfer:

    rule fine_tune:
        input:
            lambda wildcards: PLAN.transfers.training_inputs(wildcards.fine_tuning),
        output:
            card=f"{RESULTS}/transfer/{{fine_tuning}}/run.json",
            model=f"{RESULTS}/transfer/{{fine_tuning}}/model.safetensors",
            curve=f"{RESULTS}/transfer/{{fine_tuning}}/log.csv",
        log:
            "logs/fine_tune/{fine_tuning}.log",
        wildcard_constraints:
            fine_tuning=PLAN.transfers.pattern,
        conda:
            "../envs/luab.yaml"
        threads: STUDY.compute.threads
        resources:
            gpu=PLAN.train_gpus,
            nodes=STUDY.compute.nodes,
            mem_mb=PLAN.train_mem_mb,
            runtime=lambda wildcards: PLAN.transfers.training_minutes(wildcards.fine_tuning),
        params:
            recipe=lambda wildcards: PLAN.transfers.fine_tuned_with(wildcards.fine_tuning),
            images=lambda wildcards: PLAN.transfers.images_of(wildcards.fine_tuning),
        shell:
            "python -m luab transfer train {wildcards.fine_tuning} > {log} 2>&1"

    rule predict_transfer:
        input:
            lambda wildcards: PLAN.transfers.predicted_inputs(wildcards.fine_tuning),
        output:
            card=f"{RESULTS}/transfer/{{fine_tuning}}/predictions.json",
            table=f"{RESULTS}/transfer/{{fine_tuning}}/predictions.parquet",
        log:
            "logs/predict_transfer/{fine_tuning}.log",
        wildcard_constraints:
            fine_tuning=PLAN.transfers.pattern,
        conda:
            "../envs/luab.yaml"
        threads: STUDY.compute.threads
        resources:
            gpu=PLAN.gpus,
            mem_mb=PLAN.job_mem_mb,
            runtime=lambda wildcards: PLAN.transfers.prediction_minutes(wildcards.fine_tuning),
        shell:
            "python -m luab transfer predict {wildcards.fine_tuning} > {log} 2>&1"

    rule score_transfer:
        input:
            lambda wildcards: PLAN.transfers.scored_inputs(wildcards.fine_tuning),
        output:
            scores=f"{RESULTS}/transfer/{{fine_tuning}}/scores.csv",
            images=f"{RESULTS}/transfer/{{fine_tuning}}/per_image.parquet",
        log:
            "logs/score_transfer/{fine_tuning}.log",
        wildcard_constraints:
            fine_tuning=PLAN.transfers.pattern,
        conda:
            "../envs/luab.yaml"
        resources:
            mem_mb=8000,
            runtime=60,
        params:
            code=CODE("luab.transfer.score"),
        shell:
            "python -m luab transfer score {wildcards.fine_tuning} > {log} 2>&1"

    rule collect_transfers:
        input:
            PLAN.transfers.scores(),
        output:
            scores=f"{SHOWN}/transfer.csv",
        log:
            "logs/collect_transfers.log",
        conda:
            "../envs/luab.yaml"
        params:
            code=CODE("luab.transfer.score"),
        shell:
            "python -m luab transfer collect > {log} 2>&1"
