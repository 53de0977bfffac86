# Descriptions of a finished study for other tools.


# Models, headline numbers and curves for DVC, which also plots the table lambda_sweep.
rule track:
    input:
        PLAN.tracking_inputs(),
    output:
        dvc=f"{RESULTS}/dvc.yaml",
        metrics=PLAN.tracking_outputs(),
        curves=f"{RESULTS}/plots/training.csv",
    log:
        "logs/track.log",
    localrule: True
    conda:
        "../envs/luab.yaml"
    params:
        label=STUDY.label,
        headline=[part.luab_lambda for part in STUDY.parts.values()],
        code=CODE("luab.provenance.dvc"),
    shell:
        "python -m luab track > {log} 2>&1"


# An RO-Crate: every file with its digest, and every step with its inputs and outputs.
rule describe:
    input:
        PLAN.crate_inputs(),
    output:
        f"{RESULTS}/ro-crate-metadata.json",
    log:
        "logs/describe.log",
    localrule: True
    conda:
        "../envs/luab.yaml"
    params:
        label=STUDY.label,
        code=CODE("luab.provenance.crate"),
    shell:
        "python -m luab describe > {log} 2>&1"
