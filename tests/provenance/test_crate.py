"""The RO-Crate: its entities and references, read by the rocrate library too."""

import json
from pathlib import Path
from typing import Any

import pytest
from rocrate.rocrate import ROCrate

from luab.errors import DataError
from luab.files import file_sha256, write_json
from luab.provenance.crate import Byproducts, Contents, Step, write_crate
from luab.study.paths import Run

RUN = Run("imagenet", "resnet50", "click", 1.0, 0)
MODEL, PREDICTIONS = "a" * 64, "b" * 64
FOLDER = f"runs/{RUN.folder}"


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    results = tmp_path / "results"
    run = results / FOLDER
    card = {
        "inputs": {"imagenet_train": "c" * 64, "targets_click": "d" * 64},
        "model_sha256": MODEL,
        "recipe": {"epochs": 2},
        "versions": {"torch": "2.6"},
        "seconds": 3600,
        "hardware": {"gpu": "H100", "processor": "x"},
        "commit": "abc",
        "code": {"train": "123"},
    }
    write_json(run / "run.json", card)
    (run / "model.safetensors").write_bytes(b"weights")
    (run / "log.csv").write_text("epoch\n0\n", encoding="utf-8")
    write_json(
        run / "predictions" / "core.json",
        {"code": "456", "files": {"imagenet_val": {"sha256": PREDICTIONS, "rows": 5}}},
    )
    write_json(run / "scores" / "imagenet_val.json", {})
    (results / "scores.csv").write_text("x\n", encoding="utf-8")
    (results / "tables").mkdir()
    (results / "tables" / "t.csv").write_text("y\n", encoding="utf-8")
    write_json(tmp_path / "data" / "imagenet_ab.json", {"sha256": "e" * 64})
    write_json(tmp_path / "data" / "wsol_test.json", {"ids_sha256": "f" * 64})
    steps = [
        Step("collect", [run / "scores" / "imagenet_val.json"], [results / "scores.csv"]),
        Step(
            "table_t",
            [results / "scores.csv", tmp_path / "data" / "imagenet_ab.json", tmp_path / "data" / "wsol_test.json"],
            [results / "tables" / "t.csv"],
        ),
    ]
    byproducts = [Byproducts("imagenet_ab", "e" * 64, "https://example.org/ab.tar.gz", "apache-2.0")]
    return Contents(results, "demo world", byproducts, {RUN: run}, {RUN: ["core"]}, steps, "2026-01-02")


def written(contents: Contents) -> dict[str, dict[str, Any]]:
    output = contents.folder / "ro-crate-metadata.json"
    write_crate(contents, output)
    return {entity["@id"]: entity for entity in json.loads(output.read_text(encoding="utf-8"))["@graph"]}


def ids(value: Any) -> list[str]:
    return [one["@id"] for one in (value if isinstance(value, list) else [value])]


def test_a_table_refers_to_archive_recipe_and_code(contents: Contents) -> None:
    crate = written(contents)
    table = crate["#render/table_t"]
    assert ids(table["result"]) == ["tables/t.csv"]
    assert ids(table["object"]) == ["scores.csv", "https://example.org/ab.tar.gz", "#data/wsol_test/ffffffffffff"]
    assert ids(crate["#render/collect"]["object"]) == [f"{FOLDER}/scores/imagenet_val.json"]
    assert ids(crate[f"#score/{RUN.folder}"]["object"]) == [f"{FOLDER}/predictions/imagenet_val.parquet"]
    assert ids(crate[f"#predict/{RUN.folder}/core"]["object"]) == [f"{FOLDER}/model.safetensors"]
    training = crate[f"#train/{RUN.folder}"]
    assert ids(training["result"]) == [f"{FOLDER}/{name}" for name in ("model.safetensors", "run.json", "log.csv")]
    assert training["description"] == "lambda 1, seed 0; 3,600 s on H100"
    listed, points, recipe = (crate[name] for name in ids(training["object"]))
    assert (listed["sha256"], points["sha256"]) == ("c" * 64, "d" * 64) and "isBasedOn" not in listed
    assert points["isBasedOn"]["@id"] == "https://example.org/ab.tar.gz" and json.loads(recipe["text"]) == {"epochs": 2}
    code = crate[training["instrument"]["@id"]]
    predictor = crate[crate[f"#predict/{RUN.folder}/core"]["instrument"]["@id"]]
    assert predictor["version"] == "code digest 456"
    assert all(
        "version" not in crate[crate[name]["instrument"]["@id"]] for name in ("#render/table_t", "#render/collect")
    )
    assert code["version"] == "commit abc" and ids(code["softwareRequirements"]) == ["#package/torch/2.6"]


def test_files_have_size_and_digest(contents: Contents) -> None:
    crate = written(contents)
    model = crate[f"{FOLDER}/model.safetensors"]
    assert (model["sha256"], model["contentSize"]) == (MODEL, "7")  # from its card, not hashed again
    predictions = crate[f"{FOLDER}/predictions/imagenet_val.parquet"]
    assert predictions["sha256"] == PREDICTIONS and "contentSize" not in predictions  # the file is missing
    assert crate["scores.csv"]["sha256"] == file_sha256(contents.folder / "scores.csv")
    assert crate["scores.csv"]["encodingFormat"] == "text/csv"


def test_it_describes_the_study_and_contains_no_local_path(contents: Contents, tmp_path: Path) -> None:
    crate = written(contents)
    root = crate["./"]
    assert "demo world" in root["name"] and "no result on ImageNet" in root["description"]
    assert root["datePublished"] == "2026-01-02" and root["citation"]["@id"].endswith("2303.17595")
    assert root["conformsTo"]["@id"] == "https://w3id.org/ro/wfrun/process/0.5"
    assert crate["https://example.org/ab.tar.gz"]["license"]["@id"] == "https://spdx.org/licenses/Apache-2.0"
    assert str(tmp_path) not in (contents.folder / "ro-crate-metadata.json").read_text(encoding="utf-8")


def test_every_reference_has_an_entity_and_rocrate_reads_it(contents: Contents) -> None:
    crate = written(contents)
    loose: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            loose.update({value["@id"]} - crate.keys() if set(value) == {"@id"} else ())
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            for inner in value:
                look(inner)

    for entity in crate.values():
        look({key: value for key, value in entity.items() if key != "@id"})
    assert loose == {"https://w3id.org/ro/crate/1.1"}  # the specification itself
    read = ROCrate(contents.folder)
    steps = ("#render/collect", "#render/table_t", f"#predict/{RUN.folder}/core")
    actions = {entity.id for entity in read.root_dataset["mentions"]}
    assert actions == {f"#train/{RUN.folder}", f"#score/{RUN.folder}", *steps}
    assert {entity.id for entity in read.root_dataset["hasPart"]} == {
        path for path, entity in crate.items() if entity["@type"] == "File"
    }


def test_equal_results_give_equal_bytes(contents: Contents) -> None:
    output = contents.folder / "ro-crate-metadata.json"
    write_crate(contents, output)
    before = output.read_bytes()
    write_crate(contents, output)
    assert output.read_bytes() == before


def test_a_card_without_required_keys_raises(contents: Contents) -> None:
    write_json(contents.folder / FOLDER / "run.json", {"inputs": {}})
    with pytest.raises(DataError, match=r"run.json: expected a card with inputs, model_sha256"):
        written(contents)
    assert not (contents.folder / "ro-crate-metadata.json").exists()
