# Downloads archives, verifies them and unpacks them. The outputs are cards, small files that identify the large ones by
# content, so that a rerun never deletes an archive.

if STUDY.demo:

    rule demo_world:
        input:
            # Code digests do not cover tables.
            "luab/demo/tables/classes.json",
            "luab/demo/tables/coco_classes.json",
            "luab/demo/tables/silhouettes.json",
        output:
            card=f"{DATA}/world/world.json",
            archives=STUDY.paths.archives,
        log:
            "logs/demo_world.log",
        conda:
            "../envs/luab.yaml"
        threads: 2
        params:
            demo=STUDY.demo.model_dump_json(),
            code=CODE("luab.demo.world"),
        shell:
            "python -m luab demo-world > {log} 2>&1"

    if STUDY.paths.tags:

        # Beside the world and not in it, so that studies with and without tags share one world.
        rule demo_tags:
            input:
                "luab/demo/tables/classes.json",
                "luab/demo/tables/silhouettes.json",
            output:
                STUDY.paths.tags,
            log:
                "logs/demo_tags.log",
            conda:
                "../envs/luab.yaml"
            params:
                demo=STUDY.demo.model_dump_json(),
                code=CODE("luab.demo.tags"),
            shell:
                "python -m luab demo-world --tags > {log} 2>&1"

    # PASCAL VOC is apart, since only fine-tunings read it (workflow/rules/transfer.smk).
    rule demo_voc:
        input:
            "luab/demo/tables/classes.json",
            "luab/demo/tables/silhouettes.json",
        output:
            archives=PLAN.drawn_voc,
        log:
            "logs/demo_voc.log",
        conda:
            "../envs/luab.yaml"
        params:
            demo=STUDY.demo.model_dump_json(),
            code=CODE("luab.demo.voc"),
        shell:
            "python -m luab demo-world --voc > {log} 2>&1"


rule fetch:
    input:
        lambda wildcards: PLAN.archive_list(wildcards.archive),
    output:
        card=f"{DATA}/archives/{{archive}}.json",
    log:
        "logs/fetch/{archive}.log",
    conda:
        "../envs/luab.yaml"
    resources:
        downloads=1,
        runtime=24 * 60,
    params:
        entry=lambda wildcards: PLAN.archive_digest(wildcards.archive),
    shell:
        "python -m luab fetch {wildcards.archive} > {log} 2>&1"


rule unpack:
    input:
        lambda wildcards: expand(f"{DATA}/archives/{{archive}}.json", archive=PLAN.trees(wildcards.dataset)),
    output:
        card=f"{DATA}/raw/{{dataset}}.json",
    log:
        "logs/unpack/{dataset}.log",
    conda:
        "../envs/luab.yaml"
    resources:
        runtime=12 * 60,
    shell:
        "python -m luab unpack {wildcards.dataset} > {log} 2>&1"
