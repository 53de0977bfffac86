# Fine-tunes trained backbones for detection and segmentation, predicts and scores: one job per fine-tuning and stage, or
# per cohort of one entry, backbone and seed (compute.cohort), whose fine-tunings run one after another. Like trainings,
# fine-tunings and their predictions do not rerun when code changes. Without a section `transfer` in the config there are
# no such rules.

if STUDY.transfer:

    rule finetune:
        input:
            lambda wildcards: PLAN.transfers.training_inputs(dense_job(wildcards)),
        output:
            card=f"{RESULTS}/transfer/{{fine_tuning}}/run.json",
            model=f"{RESULTS}/transfer/{{fine_tuning}}/model.safetensors",
            curve=f"{RESULTS}/transfer/{{fine_tuning}}/log.csv",
        log:
            "logs/finetune/{fine_tuning}.log",
        wildcard_constraints:
            fine_tuning=PLAN.transfers.pattern,
        conda:
            "../envs/luab.yaml"
        threads: STUDY.compute.threads
        resources:
            gpu=PLAN.train_gpus,
            nodes=STUDY.compute.nodes,
            mem_mb=PLAN.train_mem_mb,
            runtime=lambda wildcards: PLAN.transfers.training_minutes(dense_job(wildcards)),
        params:
            recipe=lambda wildcards: PLAN.transfers.fine_tuned_with(dense_job(wildcards)),
            images=lambda wildcards: PLAN.transfers.images_of(dense_job(wildcards)),
        shell:
            "python -m luab transfer train {wildcards.fine_tuning} > {log} 2>&1"

    rule predict_transfer:
        input:
            lambda wildcards: PLAN.transfers.predicted_inputs(dense_job(wildcards)),
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
            runtime=lambda wildcards: PLAN.transfers.prediction_minutes(dense_job(wildcards)),
        shell:
            "python -m luab transfer predict {wildcards.fine_tuning} > {log} 2>&1"

    rule score_transfer:
        input:
            lambda wildcards: PLAN.transfers.scored_inputs(dense_job(wildcards)),
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
            mem_mb=lambda wildcards: PLAN.transfers.scoring_mem_mb(dense_job(wildcards)),
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


for name, ones in PLAN.transfers.cohorts().items():

    rule:
        name:
            f"finetune_{name}"
        input:
            PLAN.transfers.training_inputs(ones),
        output:
            cards=dense_files(ones, "run.json"),
            models=dense_files(ones, "model.safetensors"),
            curves=dense_files(ones, "log.csv"),
        log:
            f"logs/finetune/{name}.log",
        conda:
            "../envs/luab.yaml"
        threads: STUDY.compute.threads
        resources:
            gpu=PLAN.train_gpus,
            mem_mb=PLAN.train_mem_mb,
            runtime=PLAN.transfers.training_minutes(ones),
        params:
            names=[one.folder for one in ones],
            recipe=PLAN.transfers.fine_tuned_with(ones),
            images=PLAN.transfers.images_of(ones),
        shell:
            "python -m luab transfer train {params.names} > {log} 2>&1"

    if PLAN.transfers.is_scored(ones):

        rule:
            name:
                f"predict_transfer_{name}"
            input:
                PLAN.transfers.predicted_inputs(ones),
            output:
                cards=dense_files(ones, "predictions.json"),
                tables=dense_files(ones, "predictions.parquet"),
            log:
                f"logs/predict_transfer/{name}.log",
            conda:
                "../envs/luab.yaml"
            threads: STUDY.compute.threads
            resources:
                gpu=PLAN.gpus,
                mem_mb=PLAN.job_mem_mb,
                runtime=PLAN.transfers.prediction_minutes(ones),
            params:
                names=[one.folder for one in ones],
            shell:
                "python -m luab transfer predict {params.names} > {log} 2>&1"

        rule:
            name:
                f"score_transfer_{name}"
            input:
                PLAN.transfers.scored_inputs(ones),
            output:
                scores=dense_files(ones, "scores.csv"),
                images=dense_files(ones, "per_image.parquet"),
            log:
                f"logs/score_transfer/{name}.log",
            conda:
                "../envs/luab.yaml"
            resources:
                mem_mb=PLAN.transfers.scoring_mem_mb(ones),
                runtime=60 * len(ones),
            params:
                names=[one.folder for one in ones],
                code=CODE("luab.transfer.score"),
            shell:
                "python -m luab transfer score {params.names} > {log} 2>&1"
