"""The workflow's plan and its rules, with no data, no GPU and no network."""

import re
import time
from pathlib import Path

import pytest
import yaml

from luab.render.products import PRODUCTS

from .conftest import Checkout, planned

EXPENSIVE = {"train", "predict_accuracy", "predict_corruption", "predict_background", "predict_localization"}
REPORTING = {"rerun-incomplete", "show-failed-logs", "printshellcmds", "quiet", "verbose", "nocolor", "show-temp"}
DEMO = ("--profile", "profiles/demo")


@pytest.fixture(scope="session")
def full_plan(clean: Checkout) -> tuple[dict[str, int], float]:
    """Planned jobs of the full study, and the seconds that planning took."""
    start = time.monotonic()
    done = clean.snakemake("-n")
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    return planned(done.stdout + done.stderr), seconds


def test_the_full_study_is_planned_from_nothing(full_plan: tuple[dict[str, int], float]) -> None:
    counts, seconds = full_plan
    print(f"snakemake -n on the full study: {seconds:.1f} s")  # the aim is 10 s on two free cores
    # 7 ImageNet backbones and 2 beyond, 4 supervisions, 3 seeds, and the rest of the grid for click on two of them.
    imagenet = 9 * 4 * 3 + 2 * 4 * 3
    # 2 COCO backbones, 5 supervisions, 3 seeds, and the rest of the grid for click on one of them.
    coco = 2 * 5 * 3 + 7 * 3
    assert counts["train"] == imagenet + coco
    assert {counts[name] for name in EXPENSIVE if name != "train"} == {imagenet}
    assert counts["predict_coco"] == counts["score_coco"] == coco
    assert counts["collect"] == 1
    assert seconds < 60


def test_the_plan_leaves_no_file_but_the_kept_configuration(
    clean: Checkout, full_plan: tuple[dict[str, int], float]
) -> None:
    assert not (clean.folder / "data").exists() and not (clean.folder / "logs").exists()
    assert [path.suffix for path in (clean.folder / ".snakemake" / "luab").iterdir()] == [".yaml"]


def test_imagenet_alone_is_planned(clean: Checkout, tmp_path: Path) -> None:
    (tmp_path / "alone.yaml").write_text("coco: null\n", encoding="utf-8")
    counts = clean.plan("--configfile", str(tmp_path / "alone.yaml"))
    assert counts["train"] == 132 and not [name for name in counts if "coco" in name or "interfaces" in name]
    assert counts["track"] == counts["describe"] == counts["report"] == 1


def test_fine_tunings_are_planned_from_nothing(clean: Checkout, full_plan: tuple[dict[str, int], float]) -> None:
    counts = clean.plan("--configfile", "config/transfer.yaml")
    tuned = {name: counts.pop(name) for name in ("finetune", "predict_transfer", "score_transfer")}
    assert set(tuned.values()) == {7 * 4 * 3}
    drawn = ("table_detection", "table_segmentation", "figure_detection_examples", "figure_segmentation_examples")
    assert {counts.pop(name) for name in (*drawn, "collect_transfers")} == {1}
    full, _ = full_plan
    assert counts["fetch"] == full["fetch"] + 3 and counts["unpack"] == full["unpack"] + 1  # VOC
    assert {name: n for name, n in counts.items() if n != full.get(name)}.keys() <= {"fetch", "unpack"}


def test_the_pilot_s_fine_tunings_are_planned_from_nothing(clean: Checkout) -> None:
    pilot = ("--profile", "profiles/pilot", "--configfile", "config/demo.yaml", "config/pilot.yaml")
    counts, without = clean.plan(*pilot, "config/pilot_transfer.yaml"), clean.plan(*pilot)
    for stage in ("finetune", "predict_transfer", "score_transfer"):
        assert len([name for name in counts if name.startswith(f"{stage}_")]) == 3 * 5
    assert counts["demo_voc"] == counts["collect_transfers"] == 1 and "demo_voc" not in without
    assert all(counts[name] == n for name, n in without.items() if name not in ("fetch", "unpack"))


NO_LOCALIZATION = """suites:
  - {name: accuracy, benchmarks: [imagenet_val, imagenet_a]}
  - {name: corruption, benchmarks: [imagenet_c]}
  - {name: background, benchmarks: [in9]}
"""
ONLY_COCO = """backbones: []
suites: []
sweep: null
coco:
  backbones: [{name: resnet50, recipe: resnet, gpu_images_per_s: 1218}]
"""


@pytest.mark.parametrize(
    ("overlay", "absent", "reason"),
    [
        (NO_LOCALIZATION, {"table_localization", "figure_cam_examples", "predict_localization"}, "wsol_test"),
        ("sweep: null\n", {"table_lambda_sweep", "figure_lambda_sweep"}, "`sweep`"),
        ("supervisions: [none, trace]\nsweep: null\n", {"table_lambda_sweep"}, "`sweep`"),
        (ONLY_COCO, {"predict_accuracy", "table_imagenet_main", "table_interfaces"}, "ImageNet (`backbones`)"),
        ("paths: {results: my results, data: /elsewhere/data}\n", set(), ""),
    ],
)
def test_an_edited_study_is_planned_and_says_what_it_leaves_out(
    clean: Checkout, tmp_path: Path, overlay: str, absent: set[str], reason: str
) -> None:
    if overlay is ONLY_COCO:  # its recipe may have no mixup
        recipe = yaml.safe_load((clean.folder / "config/recipes/coco_resnet.yaml").read_text(encoding="utf-8")) | {
            "begins_with": "random"
        }
        overlay += yaml.safe_dump({"recipes": {"resnet": recipe}})
        overlay += "  # recipes given here are not read from files\n"
    (tmp_path / "edit.yaml").write_text(overlay, encoding="utf-8")
    done = clean.snakemake("-n", "--configfile", str(tmp_path / "edit.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    counts = planned(done.stdout + done.stderr)
    assert counts["train"] > 0 and counts["report"] == counts["describe"] == 1
    assert not absent & counts.keys()
    line = (done.stdout + done.stderr).partition("Left out: ")[2].partition("\n")[0]
    assert reason in line and all(name.partition("_")[2] in line for name in absent if not name.startswith("predict"))


def test_the_demo_is_planned_through_its_profile(clean: Checkout) -> None:
    counts = clean.plan(*DEMO)
    assert counts["demo_world"] == 1
    jobs = {kind: [name for name in counts if name.startswith(kind)] for kind in ("train", "predict", "score")}
    # One job per data set, backbone and seed (compute.cohort: null).
    assert all(len(names) == 3 for names in jobs.values()) and "train_imagenet_test_vit_seed0" in jobs["train"]
    run = "results/demo/runs/imagenet/test_vit/click-1/seed0/run.json"
    assert [name for name in clean.plan(*DEMO, run) if name.startswith("train")] == ["train_imagenet_test_vit_seed0"]
    alone = clean.plan(*DEMO, run, "--config", "compute={cohort: 1}")
    assert [name for name in alone if name.startswith("train")] == ["train"]
    assert len([name for name in counts if name.startswith(("table_", "figure_"))]) == sum(
        product.kind != "section" and product.dataset != "folder" and not product.optional for product in PRODUCTS
    )


@pytest.mark.parametrize(
    ("target", "needs"),
    [
        ("results/figures/click_density.pdf", {"fetch": 1, "index": 1, "figure_click_density": 1}),
        ("data/targets/coco/click.json", {"fetch": 4, "index": 1, "targets": 1}),
        ("results/tables/byproduct_statistics.md", {"fetch": 1, "index": 1, "table_byproduct_statistics": 1}),
        (
            "results/tables/interfaces.md",
            {
                "fetch": 5,
                "index": 2,
                "table_byproduct_statistics": 1,
                "table_coco_statistics": 1,
                "table_interfaces": 1,
            },
        ),
        ("results/figures/coco_samples.png", {"fetch": 4, "index": 1, "figure_coco_samples": 1}),
        (
            "results/figures/cam_examples.png",
            {"train": 2, "predict_localization": 2, "figure_cam_examples": 1, "fetch": 10, "index": 1, "targets": 1},
        ),
    ],
)
def test_one_table_or_figure_plans_what_it_needs(clean: Checkout, target: str, needs: dict[str, int]) -> None:
    counts = clean.plan(target)
    rest = {name: count for name, count in counts.items() if name not in ("manifest", "unpack")}
    assert rest.pop("fetch") <= needs.pop("fetch")
    assert rest == needs


def test_trainings_wait_for_the_pack_where_there_is_one(clean: Checkout) -> None:
    target = "results/runs/imagenet/resnet18/none-0/seed0/run.json"
    assert clean.plan(target) == {"manifest": 1, "train": 1}
    counts = clean.plan(target, "--config", "packing={shorter_side_px: 256, quality: 90, shard_mb: 500}")
    assert counts == {"manifest": 1, "pack": 1, "train": 1}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("luab_lamda=2", ["luab_lamda: unknown key", "luab_lambda"]),
        ("luab_lambda=-1", ["luab_lambda", "greater than 0", "-1"]),
        ("supervisions=[click]", ["supervisions: the baseline 'none' is missing"]),
        ("backbones=[{name: resnet5O, recipe: resnet, gpu_images_per_s: 1}]", ["timm has no model 'resnet5O'"]),
    ],
)
def test_a_wrong_configuration_is_one_message(clean: Checkout, setting: str, words: list[str]) -> None:
    done = clean.snakemake("-n", "--config", setting)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert [word for word in [*words, "docs/config.md"] if word not in said] == [], said
    assert "Traceback" not in said


def test_lint_finds_nothing(clean: Checkout) -> None:
    done = clean.snakemake("--lint")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Congratulations" in done.stdout + done.stderr


def test_the_default_profile_only_says_how_to_report_and_compare(repository: Path) -> None:
    """Its keys win over those of every other profile."""
    settings = yaml.safe_load((repository / "profiles" / "default" / "config.yaml").read_text(encoding="utf-8"))
    assert set(settings) <= REPORTING | {"max-checksum-file-size"}


def rule_files() -> list[Path]:
    root = Path(__file__).resolve().parents[2]
    return [root / "Snakefile", *sorted((root / "workflow" / "rules").glob("*.smk"))]


@pytest.mark.parametrize("file", rule_files(), ids=lambda file: file.name)
def test_rules_only_call_the_command_line(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(retries|script|run|notebook|wrapper):|^\s*checkpoint\b", text, re.MULTILINE)
    for command in re.findall(r"^\s*shell:\s*\n(.*?)(?=\n\s*\n|\Z)", text, re.MULTILINE | re.DOTALL):
        assert re.fullmatch(r'\s*"python -m luab [^|;&`$]*> \{log\} 2>&1"\s*', command), command


@pytest.mark.parametrize("file", rule_files(), ids=lambda file: file.name)
def test_every_rule_keeps_a_log(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(re.findall(r"^\s*shell:", text, re.MULTILINE)) == len(re.findall(r"^\s*log:", text, re.MULTILINE))


def test_snakemake_refuses_a_key_that_stands_twice(clean: Checkout, tmp_path: Path) -> None:
    """Snakemake merges these files itself, so luab sees only the last value."""
    twice = tmp_path / "twice.yaml"
    twice.write_text("label: a\nseeds: [0]\nlabel: b\n", encoding="utf-8")
    done = clean.snakemake("-n", "--configfile", str(twice))
    assert done.returncode != 0
    assert "twice.yaml, line 3: the key `label` is already set in line 1" in done.stdout + done.stderr
