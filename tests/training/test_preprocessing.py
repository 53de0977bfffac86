"""Images as pretrained weights need them: mean, standard deviation and interpolation of timm's tag."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config

from luab.commands.export import write_config
from luab.data.images import training_images
from luab.errors import ConfigError, DataError
from luab.files import file_sha256, read_json, write_json
from luab.model import Normalise, build_model
from luab.predict import predict
from luab.study.paths import Run
from luab.study.recipes import BeginsWith, Preprocessing
from luab.tasks import task_of
from luab.training import pretrained
from luab.training import train as training
from luab.training.checkpoint import preprocessing_in, read_card, save_model
from luab.training.pretrained import preprocessing_of

NONE = Run("imagenet", "test_vit", "none", 0.0, 0)
HALF = (0.5, 0.5, 0.5)
NEEDED = Preprocessing(
    mean=HALF, std=HALF, interpolation="bicubic", weights="test_vit.r160_in1k", input_px=160, crop_pct=0.95
)


@pytest.fixture
def study(toy_study, tmp_path, monkeypatch):
    """A study that begins with "timm's" weights of test_vit, which need mean 0.5 and bicubic interpolation."""
    torch.manual_seed(7)
    file = tmp_path / "timm.safetensors"
    save_file(timm.create_model("test_vit", img_size=32).state_dict(), file)
    monkeypatch.setattr(pretrained, "download", lambda backbone: file)

    def build(**recipe):
        recipe = {"begins_with": "timm", "epochs": 1, "warmup_epochs": 0, "interpolation": "bilinear"} | recipe
        return toy_study("test_vit", recipe=recipe)

    return build


def test_timms_tag_decides(toy_study):
    assert preprocessing_of("test_vit") == NEEDED
    for size in ("tiny", "small", "base"):
        assert preprocessing_of(f"vit_{size}_patch16_224").mean == HALF
    assert preprocessing_of("resnet50.tv_in1k") == Preprocessing(
        weights="resnet50.tv_in1k", input_px=224, crop_pct=0.875
    )
    with pytest.raises(ConfigError, match=r"'resnet50\.nonsense': timm .* has no such weights"):
        preprocessing_of("resnet50.nonsense")


def test_training_uses_and_records_it(study, monkeypatch):
    made, crops, means = study(), [], []
    cut, forward = training_images.CropFlip.cut, Normalise.forward
    monkeypatch.setattr(
        training_images.CropFlip, "cut", lambda self, *a: crops.append(self.interpolation) or cut(self, *a)
    )
    monkeypatch.setattr(Normalise, "forward", lambda self, x: means.append(self.mean.flatten()[0]) or forward(self, x))
    result = training.train(made, NONE)
    assert set(crops) == {"bicubic"} and {round(float(mean), 1) for mean in means} == {127.5}
    stored = read_card(made.layout.model(NONE))
    assert result["preprocessing"] == stored["preprocessing"] == NEEDED.model_dump(mode="json")
    assert read_json(made.layout.run_json(NONE))["preprocessing"]["weights"] == "test_vit.r160_in1k"


def test_random_weights_keep_imagenets_values(study):
    made = study(begins_with="random")
    result = training.train(made, NONE)
    assert Preprocessing.model_validate(result["preprocessing"]) == Preprocessing()
    assert result["recipe"]["interpolation"] == "bilinear"


def test_predictions_see_what_timms_own_transform_returns(study, toy_world, tmp_path):
    made = study(lr=1e-12, weight_decay=0.0)
    training.train(made, NONE)
    manifests = tmp_path / "data" / "manifests"
    manifests.mkdir(parents=True)
    rows = pq.read_table(toy_world / "data/manifests/imagenet_train.parquet")
    pq.write_table(rows, manifests / "imagenet_val.parquet")
    paths = made.paths.model_copy(update={"data": tmp_path / "data"})
    made = made.model_copy(update={"paths": paths})
    predict(made, NONE, "all", ("imagenet_val",))
    card = read_json(made.layout.prediction_card(NONE, "all"))
    assert card["preprocessing"]["interpolation"] == "bicubic"
    table = (
        pq.read_table(made.layout.prediction_folder(NONE) / "imagenet_val.parquet").to_pandas().set_index("image_id")
    )
    tensors = load_file(made.layout.model(NONE))
    model = timm.create_model("test_vit", img_size=32)
    model.load_state_dict({name.removeprefix("backbone."): tensor for name, tensor in tensors.items()})
    config = resolve_data_config({"input_size": (3, 32, 32)}, model=model)  # with its crop, 0.95, too
    transform = create_transform(**config)
    for row in rows.to_pylist():
        with Image.open(toy_world / "imagenet" / row["path"]) as image, torch.no_grad():
            chances = model.eval()(transform(image.convert("RGB"))[None]).softmax(dim=1)[0]
        assert table["confidence"][row["image_id"]] == pytest.approx(float(chances.max()), rel=1e-5)
        assert table["top5"][row["image_id"]][0] == int(chances.argmax())


def test_a_run_that_begins_with_the_baseline_inherits_its_values(study):
    made = study()
    model = build_model("test_vit", made.recipe("test_vit"), 0)
    card = {"run": NONE.identity(), "preprocessing": NEEDED.model_dump(mode="json")}
    save_model(made.layout.model(NONE), model, card)
    recipe = made.recipe("test_vit").model_copy(update={"begins_with": BeginsWith(run="imagenet/none-0")})
    begun, click = made.model_copy(update={"recipes": {"toy": recipe}}), dataclasses.replace(NONE, supervision="click")
    assert training._beginning(begun, click)[1] == NEEDED
    save_model(made.layout.model(NONE), model, {"run": NONE.identity()})  # of an older luab
    assert training._beginning(begun, click)[1] == Preprocessing()
    with pytest.raises(DataError, match="expected mean, std, interpolation and weights in `preprocessing`, found 3"):
        preprocessing_in({"preprocessing": 3}, made.layout.model(NONE))


def test_an_export_records_it(study, tmp_path):
    made = study()
    model = build_model("test_vit", made.recipe("test_vit"), 0)
    write_config(
        tmp_path / "config.json", model.backbone, task_of("imagenet").names(made), NONE, made.recipe("test_vit"), NEEDED
    )
    config = read_json(tmp_path / "config.json")["pretrained_cfg"]
    assert (config["mean"], config["std"], config["interpolation"]) == (list(HALF), list(HALF), "bicubic")


def test_normalise_maps_black_and_white_to_minus_one_and_one():
    pixels = torch.tensor(np.array([0, 255], dtype=np.uint8)).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert torch.allclose(Normalise(NEEDED)(pixels)[0, 0, 0], torch.tensor([-1.0, 1.0]))


def test_a_training_begins_with_a_file_and_its_preprocessing_is_found(study, tmp_path, capsys):
    torch.manual_seed(7)
    file = tmp_path / "own" / "model.safetensors"
    file.parent.mkdir()
    save_file(timm.create_model("test_vit", img_size=32).state_dict(), file)
    begins = BeginsWith(file=file)
    default = Preprocessing(interpolation="bicubic")
    assert pretrained.first_weights(begins, "test_vit", default)[2] == default  # nothing describes the file
    assert "nothing says which images these weights were trained on" in capsys.readouterr().err
    described = {"pretrained_cfg": {"mean": HALF, "std": HALF, "interpolation": "bilinear", "input_size": (3, 96, 96)}}
    write_json(file.with_name("config.json"), described)
    found = pretrained.first_weights(begins, "test_vit", default)[2]
    assert (found.mean, found.interpolation, found.input_px) == (HALF, "bilinear", 96)
    named = BeginsWith(file=file, timm="r160_in1k")
    assert pretrained.first_weights(named, "test_vit", default)[2] == NEEDED
    made = study(begins_with={"file": str(file)})
    result = training.train(made, NONE)
    assert result["inputs"]["begins_with"] == file_sha256(file) and result["recipe"]["begins_with"]["file"] == str(file)
    assert result["preprocessing"]["mean"] == list(HALF) and result["recipe"]["crop_pct"] == 0.875
    own = made.layout.model(NONE)  # luab's own file has a card
    assert pretrained.first_weights(BeginsWith(file=own), "test_vit", default)[2].weights == "model.safetensors"
    with pytest.raises(DataError, match=r"nowhere.safetensors: expected the weights of test_vit, as `begins_with`"):
        pretrained.first_weights(BeginsWith(file="nowhere.safetensors"), "test_vit", default)


@pytest.mark.parametrize(
    ("text", "name"),
    [("backbone", "test_vit"), ("r160_in1k", "test_vit.r160_in1k"), ("test_vit2.r160_in1k", "test_vit2.r160_in1k")],
)
def test_names_of_timms_weights(text, name):
    assert pretrained.name_of(text, "test_vit") == name


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "levit_128s", "repvit_m1", "volo_d1_224"])
def test_weights_of_1000_classes_begin_a_model_of_80(name):
    torch.manual_seed(0)
    theirs, ours = timm.create_model(name), timm.create_model(name, num_classes=80)
    pretrained.put_into(ours, theirs.state_dict(), "file: expected theirs", new_classifier=True)
    different = [n for n, t in ours.state_dict().items() if not torch.equal(t, theirs.state_dict()[n])]
    assert different and all("head" in name for name in different)
