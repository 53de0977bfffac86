# Draws tables, figures and the report from scores.csv, the byproduct indexes and predictions.
# There is one rule per table and figure, because Snakemake ties a caption to a rule.

for name in PLAN.tables:

    rule:
        name:
            f"table_{name}"
        input:
            PLAN.product_inputs("table", name),
            STUDY.paths.published,
        output:
            csv=f"{SHOWN}/tables/{name}.csv",
            md=report(
                f"{SHOWN}/tables/{name}.md",
                caption=f"../report/table_{name}.rst",
                category="Tables",
                labels={"table": name.replace("_", " ")},
            ),
            tex=f"{SHOWN}/tables/{name}.tex",
        log:
            f"logs/render/table_{name}.log",
        localrule: True
        conda:
            "../envs/luab.yaml"
        params:
            name=name,
            label=STUDY.label,
            headline=PLAN.headline_lambda("table", name),
            code=CODE("luab.render.tables"),
        shell:
            "python -m luab render table {params.name} > {log} 2>&1"


for name in PLAN.figures:

    rule:
        name:
            f"figure_{name}"
        input:
            PLAN.product_inputs("figure", name),
        output:
            pdf=f"{SHOWN}/figures/{name}.pdf",
            png=report(
                f"{SHOWN}/figures/{name}.png",
                caption=f"../report/figure_{name}.rst",
                category="Figures",
                labels={"figure": name.replace("_", " ")},
            ),
        log:
            f"logs/render/figure_{name}.log",
        localrule: True
        conda:
            "../envs/luab.yaml"
        params:
            name=name,
            label=STUDY.label,
            headline=PLAN.headline_lambda("figure", name),
            code=CODE("luab.render.figures.figures"),
        shell:
            "python -m luab render figure {params.name} > {log} 2>&1"


rule report:
    input:
        PLAN.report_inputs(),
    output:
        f"{SHOWN}/report.html",
    log:
        "logs/render/report.log",
    localrule: True
    conda:
        "../envs/luab.yaml"
    params:
        label=STUDY.label,
        code=CODE("luab.render.report.report", "luab.render.headline"),
    shell:
        "python -m luab render report > {log} 2>&1"
