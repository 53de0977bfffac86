# From scores.csv (and, for pictures of images, from the index or from predictions) to what people look at.


localrules:
    table,
    figure,


rule table:
    input:
        lambda wildcards: PLAN.table_inputs(wildcards.name),
    output:
        csv=f"{RESULTS}/tables/{{name}}.csv",
        md=report(
            f"{RESULTS}/tables/{{name}}.md",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{name}"},
        ),
        tex=f"{RESULTS}/tables/{{name}}.tex",
    params:
        label=STUDY.label,
        code=CODE("luab.render.tables"),
    log:
        "logs/table/{name}.log",
    conda:
        "luab"
    shell:
        "python -m luab render table {wildcards.name} > {log} 2>&1"


rule figure:
    input:
        lambda wildcards: PLAN.figure_inputs(wildcards.name),
    output:
        pdf=f"{RESULTS}/figures/{{name}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{name}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
    params:
        label=STUDY.label,
        code=CODE("luab.render.figures"),
    log:
        "logs/figure/{name}.log",
    conda:
        "luab"
    shell:
        "python -m luab render figure {wildcards.name} > {log} 2>&1"
