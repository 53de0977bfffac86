"""What hangs on which file: archives, manifests, suites, own copies, and the environment of jobs."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from luab.errors import ConfigError, DataError
from luab.planning.plan import Plan, keep_config, lock_hint, prepare_jobs
from luab.render.products import PRODUCTS, compared_runs, find_product
from luab.study.config import Study, load_study, parse_study
from luab.study.paths import Run


@pytest.fixture(scope="module")
def full(repository: Path) -> Study:
    return load_study(["config/config.yaml"], repository)


@pytest.fixture
def planned(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds the plan of the full study, or of one with other keys."""
    monkeypatch.chdir(repository)

    def build(*overlays: str, **keys: Any) -> Plan:
        study = load_study(["config/config.yaml", *overlays])
        return Plan.of(parse_study(study.model_dump(mode="json") | keys) if keys else study)

    return build


def test_every_archive_belongs_to_a_manifest_that_reads_it(planned: Any) -> None:
    plan = planned()
    manifests = {name for suite in plan.study.suites for name in plan.suite_manifests(suite.name)}
    datasets = {Path(name).stem for name in manifests} | {"imagenet_train", "imagenet_ab"}
    assert {entry["dataset"] for entry in plan.archives.values()} >= datasets - {
        "wsol_test",
        "imagenet_train",
        "imagenet_val",
    }
    for dataset in datasets - {"imagenet_ab"}:
        both = set(plan.trees(dataset)) & set(plan.lists(dataset))
        assert both == set()


@pytest.mark.parametrize(
    ("manifest", "inputs"),
    [
        ("imagenet_train", []),
        ("imagenet_val", []),
        ("imagenet_real", ["data/archives/imagenet_real.json", "data/manifests/imagenet_val.json"]),
        ("imagenet_v2", ["data/raw/imagenet_v2.json"]),
        ("imagenet_c", ["data/raw/imagenet_c.json"]),
    ],
)
def test_a_manifest_waits_for_its_tree_and_lists(planned: Any, manifest: str, inputs: list[str]) -> None:
    assert planned().manifest_inputs(manifest) == inputs


def test_an_own_copy_is_neither_fetched_nor_unpacked(planned: Any, full: Study) -> None:
    paths = full.paths.model_dump(mode="json") | {"copies": {"imagenet_sketch": "/copies/sketch"}, "imagenet": "/in"}
    plan = planned(paths=paths)
    assert plan.manifest_inputs("imagenet_sketch") == []
    assert plan.own_copy("imagenet_sketch") == "/copies/sketch"
    assert {plan.own_copy(name) for name in ("imagenet_train", "imagenet_val", "wsol_test")} == {"/in"}
    assert plan.own_copy("imagenet_v2") is None


def test_the_demo_waits_for_its_world(planned: Any) -> None:
    plan = planned("config/demo.yaml")
    assert plan.manifest_inputs("imagenet_train") == ["data/demo/world/world.json"]
    assert plan.archive_list("imagenet_v2") == ["data/demo/world/server/archives.yaml"]
    assert plan.archive_digest("imagenet_ab") is None
    assert planned().archive_list("imagenet_v2") == []


def test_the_digest_of_an_archive_follows_its_entry(planned: Any) -> None:
    plan = planned()
    assert len({plan.archive_digest(name) for name in plan.archives}) == len(plan.archives)
    assert plan.archive_digest("imagenet_ab") == planned().archive_digest("imagenet_ab")


def test_held_out_images_change_the_plan_only_where_they_are_set(planned: Any) -> None:
    plan = planned()
    assert plan.manifest_options("imagenet_train") is plan.study.paths.partial
    suites = [{"name": "maps", "benchmarks": ["wsol_test", "trace_alignment"]}]
    with pytest.raises(ConfigError, match=r"suites: maps needs training images .* `held_out_byproducts` is 0"):
        planned(suites=suites)
    plan = planned(suites=suites, held_out_byproducts=0.02)
    assert plan.manifest_options("imagenet_train") == plan.manifest_options("imagenet_held_out") != "False"
    assert plan.manifest_options("imagenet_val") is False
    assert "data/manifests/imagenet_held_out.json" in plan.suite_manifests("maps")
    assert plan.score_manifests("maps") == ["data/targets/imagenet/held_out_traces.json"]
    assert "data/manifests/imagenet_held_out.json" in plan.target_inputs("imagenet", "held_out_traces")
    assert plan.target_inputs("imagenet", "click") == planned().target_inputs("imagenet", "click")


def test_a_scale_of_lambda_trains_again(planned: Any) -> None:
    run = Run("imagenet", "resnet18", "click", 1.0, 0)
    scaled = planned(supervisions={"none": {}, "click": {"scale": 10}}, sweep=None)
    assert scaled.trained_with(run) == planned().trained_with(run) + " scale 10"


def test_two_suites_may_not_share_a_test_set(planned: Any) -> None:
    with pytest.raises(ConfigError, match=r"one and two both need the test set imagenet_val") as caught:
        planned(
            suites=[{"name": "one", "benchmarks": ["imagenet_val"]}, {"name": "two", "benchmarks": ["imagenet_real"]}]
        )
    assert "Put their benchmarks into one suite" in str(caught.value)


def test_an_unknown_benchmark_is_refused(planned: Any) -> None:
    with pytest.raises(ConfigError, match="imagenet_v3"):
        planned(suites=[{"name": "one", "benchmarks": ["imagenet_v3"]}])


def test_figures_and_tables_know_their_inputs(planned: Any) -> None:
    plan = planned()
    assert [*plan.tables, *plan.figures] == [
        product.name
        for product in PRODUCTS
        if product.kind != "section" and product.dataset in plan.study.parts and not product.optional
    ]
    for name in plan.figures:
        if find_product("figure", name).from_scores:
            assert plan.product_inputs("figure", name) == ["results/scores.csv"]
    for name in ("click_density", "hover_time", "worker_spread"):
        assert plan.product_inputs("figure", name) == ["data/byproducts/imagenet_ab.json"]
    statistics = ["results/tables/byproduct_statistics.csv", "results/tables/coco_statistics.csv"]
    indexes = ["data/byproducts/imagenet_ab.json", "data/byproducts/coco_ab.json"]
    tagged = ["data/byproducts/coco_ab.json", "data/manifests/coco_train.json"]
    assert plan.product_inputs("table", "coco_statistics") == plan.product_inputs("figure", "coco_samples") == tagged
    assert plan.product_inputs("table", "interfaces") == statistics
    assert plan.product_inputs("figure", "interfaces") == [*statistics, *indexes]
    assert plan.product_inputs("figure", "coco_gain_by_size") == ["results/scores.csv"]
    cams = plan.product_inputs("figure", "cam_examples")
    assert cams == [
        "results/runs/imagenet/resnet18/none-0/seed0/predictions/localization.json",
        "results/runs/imagenet/resnet18/click-1/seed0/predictions/localization.json",
        "data/manifests/wsol_test.json",
    ]


def test_without_coco_nothing_of_it_is_shown(planned: Any) -> None:
    plan = planned(coco=None)
    shown = {*plan.tables, *plan.figures}
    assert not {"coco_statistics", "coco_samples", "coco_gain_by_size", "interfaces", "coco_main"} & shown
    assert {"byproduct_statistics", "byproduct_samples", "robustness_gain"} <= shown


def test_score_maps_compare_the_baseline_with_luab_or_the_last_supervision(planned: Any) -> None:
    baseline, luab = Run("imagenet", "resnet18", "none", 0.0, 0), Run("imagenet", "resnet18", "click", 1.0, 0)
    assert compared_runs(planned().study) == (baseline, luab)
    plan = planned(supervisions=["none", "random"], sweep=None)
    assert compared_runs(plan.study) == (baseline, Run("imagenet", "resnet18", "random", 1.0, 0))
    assert compared_runs(planned(supervisions=["none"], sweep=None).study) is None


def test_a_training_may_take_half_again_as_long(planned: Any) -> None:
    run = Run("imagenet", "resnet18", "none", 0.0, 0)
    assert planned().train_minutes(run) == round(1_281_167 * 100 / 3482 / 60 * 1.5)
    assert planned("config/demo.yaml").train_minutes(Run("imagenet", "test_vit", "none", 0.0, 0)) >= 60
    hours = planned().predict_minutes("corruption") / 60
    assert hours == pytest.approx(75 * 50_000 / 3 / 393 / 3600 * 6, rel=0.01)
    assert planned("config/demo.yaml").predict_minutes("all") == 60


def test_no_training_asks_for_more_than_the_longest_job(planned: Any, full: Study) -> None:
    run = Run("imagenet", "vit_base_patch16_224", "none", 0.0, 0)
    assert planned().train_minutes(run) == 24 * 60
    short = full.compute.model_dump() | {"longest_job_hours": 0.5}
    assert planned(compute=short).train_minutes(run) == 30


def test_jobs_get_gpus_unless_the_study_is_for_the_cpu(planned: Any) -> None:
    assert (planned().gpus, planned("config/demo.yaml").gpus) == (1, 0)
    assert planned().job_mem_mb > planned("config/demo.yaml").job_mem_mb


def test_a_training_gets_what_its_processes_need_per_node(planned: Any, full: Study) -> None:
    compute = full.compute.model_dump(mode="json")
    alone, many = planned(), planned(compute=compute | {"gpus": 4, "nodes": 2, "workers": 16})
    assert (alone.train_gpus, alone.train_mem_mb) == (1, alone.job_mem_mb)
    assert (many.gpus, many.train_gpus) == (1, 4)
    assert many.train_mem_mb == 4 * (6000 + 2500 * 4)
    run = Run("imagenet", "resnet50", "none", 0.0, 0)
    long = compute | {"longest_job_hours": 1000}
    hours = planned(compute=long).train_minutes(run) / 60
    assert planned(compute=long | {"gpus": 4, "nodes": 2}).train_minutes(run) / 60 == pytest.approx(hours / 8, abs=0.02)
    assert planned("config/demo.yaml").train_gpus == 0


def test_the_kept_configuration_is_named_by_content(full: Study, tmp_path: Path) -> None:
    kept = keep_config(full, tmp_path)
    assert keep_config(full, tmp_path) == kept and load_study([kept]) == full
    other = full.model_copy(update={"label": "other"})
    assert keep_config(other, tmp_path) != kept
    assert len(list(tmp_path.iterdir())) == 2


def test_jobs_inherit_configuration_python_and_package(
    full: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LUAB_CONFIG", "PYTHONPATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    for _ in range(2):
        prepare_jobs(full, checkout=tmp_path / "checkout")
    assert load_study([os.environ["LUAB_CONFIG"]]) == full
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(tmp_path / "checkout")]
    assert os.environ["PATH"].split(os.pathsep).count(str(Path(sys.executable).parent)) >= 1


def test_a_left_lock_is_answered_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["/venv/bin/snakemake", "--profile", "slurm", "--config", "label=two words"]
    assert lock_hint(command) == ""
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").touch()
    assert "    snakemake --profile slurm --config 'label=two words' --unlock\n" in lock_hint(command)
    assert lock_hint([*command, "-n"]) == lock_hint([*command, "--unlock"]) == ""


def test_a_data_set_that_does_not_exist_is_refused_where_it_would_have_no_effect(
    full: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    monkeypatch.chdir(repository)
    copies = full.paths.model_copy(update={"copies": {"imagenet_scetch": tmp_path}})
    with pytest.raises(ConfigError, match=r"paths\.copies: .* 'imagenet_scetch'\. Did you mean imagenet_sketch"):
        Plan.of(full.model_copy(update={"paths": copies}))
    listing = tmp_path / "archives.yaml"
    text = (repository / "config" / "archives.yaml").read_text(encoding="utf-8")
    listing.write_text(text.replace("dataset: imagenet_v2", "dataset: imagenet_v3"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"`dataset`: there is no data set 'imagenet_v3'\. Did you mean imagenet_v2"):
        Plan.of(full.model_copy(update={"paths": full.paths.model_copy(update={"archives": listing})}))


def test_an_own_copy_of_the_training_images_takes_precedence_over_imagenet(full: Study) -> None:
    paths = full.paths.model_copy(update={"imagenet": Path("/one"), "copies": {"imagenet_train": Path("/two")}})
    assert Plan(full.model_copy(update={"paths": paths}), {}).own_copy("imagenet_train") == "/two"


def test_preflight_names_all_that_people_must_provide_before_anything_is_fetched(planned: Any, tmp_path: Path) -> None:
    plan = planned()
    plan.preflight(["imagenet_v2", "imagenet_c"], ["imagenet_v2_matched"])
    with pytest.raises(DataError, match=r"(?s)Nothing was fetched.*paths\.imagenet is not set.*objectnet-1\.0\.zip"):
        plan.preflight(["imagenet_train", "imagenet_val", "imagenet_v2"], ["objectnet"])
    try:
        plan.preflight(["imagenet_train", "imagenet_val"], [])
    except DataError as error:
        assert str(error).count("paths.imagenet is not set") == 1
    paths = {"imagenet": str(tmp_path / "gone"), "data": str(tmp_path / "data")}
    with pytest.raises(DataError, match="gone: expected the images of imagenet_val, found no such folder"):
        planned(paths=paths).preflight(["imagenet_val"], [])
    (tmp_path / "gone").mkdir()
    (tmp_path / "data/archives").mkdir(parents=True)
    (tmp_path / "data/archives/objectnet-1.0.zip").touch()
    planned(paths=paths).preflight(["imagenet_val"], ["objectnet"])
    planned("config/demo.yaml").preflight(["imagenet_val"], ["objectnet"])  # the demo world is drawn first
