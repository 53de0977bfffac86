"""Test sets: their images, the preprocessing of these images, and the classes of the restricted arg-max."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from luab.data.manifests.labels import subset
from luab.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TestSet:
    """A set of images and their preprocessing.

    Attributes:
        name: Also the stem of the predictions file.
        manifests: Manifests that list the images.
        subset: Classes of the restricted arg-max, a name for `luab.data.manifests.labels.subset`; None for all 1000.
        resize: "resize_crop" (resize the shorter side, then centre crop), "identity" (the file already is the crop)
            or "squash" (resize both sides to the input size without a crop).
        border_px: Pixels cut from every side of the file before resizing.
        hole: Side of a blank square in the centre, as a fraction of the crop's side.
        fill: Colour of the square: the mean colour, which is zero after normalisation, or black.
        cam: Whether the score map of the true class is stored.
        cam_method: Kind of score map, see luab.cam: "plain", "stride1" (CNNs with the last stage at stride 1) or
            "attention" (ViTs by their attention).
        challenge: Whether each foreground is predicted on all backgrounds instead of once.
        outputs: Number of classes of the models that the set applies to; None for the user's own classes.
        dataset: Training set of the models that the set applies to.
        multi_label: Whether an image can have several labels.
    """

    name: str
    manifests: tuple[str, ...]
    subset: str | None = None
    resize: Literal["resize_crop", "identity", "squash"] = "resize_crop"
    border_px: int = 0
    hole: float = 0.0
    fill: Literal["mean", "black"] = "mean"
    cam: bool = False
    cam_method: Literal["plain", "stride1", "attention"] = "plain"
    challenge: bool = False
    outputs: int | None = 1000
    dataset: str = "imagenet"
    multi_label: bool = False

    __test__ = False  # pytest would collect a class of this name


_ALL = (
    # SOURCE: pytorch/vision:references/classification (resize 256, crop 224).
    TestSet("imagenet_val", ("imagenet_val",)),
    # SOURCE: modestyachts/ImageNetV2_pytorch; matched-frequency is its default variant.
    TestSet("imagenet_v2", ("imagenet_v2",)),
    # SOURCE: hendrycks/natural-adv-examples:eval.py (200-way arg-max).
    TestSet("imagenet_a", ("imagenet_a",), "imagenet_a"),
    # SOURCE: hendrycks/imagenet-r:eval.py (200-way arg-max).
    TestSet("imagenet_r", ("imagenet_r",), "imagenet_r"),
    # SOURCE: hendrycks/natural-adv-examples:eval_many_models.py (softmax over the 200 logits; negatives are
    # the validation images of the same classes).
    TestSet("imagenet_o", ("imagenet_o", "imagenet_val"), "imagenet_o"),
    # SOURCE: HaohanWang/ImageNet-Sketch:README.md.
    TestSet("imagenet_sketch", ("imagenet_sketch",)),
    # SOURCE: hendrycks/robustness:ImageNet-C/test.py (files have the crop's size and are not resized).
    TestSet("imagenet_c", ("imagenet_c",), resize="identity"),
    # ASSUME: the centre hole of Cocc has half of the crop's side (112 of 224), as in most single-number results;
    # neither a data set nor code was released.
    TestSet("imagenet_cocc", ("imagenet_val",), hole=0.5),
    # SOURCE: mlfoundations/wise-ft:src/datasets/objectnet.py and modestyachts/imagenet-testbed cut 2 px.
    # ASSUME: ObjectNet images lose 2 px on each side; the documentation of the set, as we remember it, mentions a
    # border of 1 px.
    TestSet("objectnet", ("objectnet",), "objectnet", border_px=2),
    # SOURCE: google-research/si-score:README.md and google-research/robustness_metrics (1000-way arg-max).
    TestSet("siscore_size", ("siscore_size",)),
    TestSet("siscore_location", ("siscore_location",)),
    TestSet("siscore_rotation", ("siscore_rotation",)),
    # SOURCE: MadryLab/backgrounds_challenge:tools/datasets.py (224 x 224 files, not resized).
    TestSet("in9", ("in9",), resize="identity"),
    # SOURCE: MadryLab/backgrounds_challenge:challenge_eval.py.
    TestSet("in9_challenge", ("in9",), resize="identity", challenge=True),
    # SOURCE: clovaai/wsolevaluation:data_loaders.py (direct resize to 224 x 224, no crop).
    TestSet("wsol_val", ("wsol_val",), resize="squash", cam=True),
    TestSet("wsol_test", ("wsol_test",), resize="squash", cam=True),
    # ASSUME: COCO's validation images are resized to a square without a crop, as is usual for multi-label models; the
    # official loader has no evaluation.
    TestSet("coco_val", ("coco_val",), resize="squash", cam=True, outputs=80, dataset="coco", multi_label=True),
    # Whole images, so that no part of a trace is cut off.
    TestSet("imagenet_held_out", ("imagenet_held_out",), resize="squash", cam=True),
    TestSet("folder_val", ("folder_val",), outputs=None, dataset="folder"),
    TestSet("folder_tests", ("folder_tests",), outputs=None, dataset="folder"),
    # Whole images, so that no recorded point is cut off; scores of points and maps.
    TestSet("folder_points", ("folder_val",), resize="squash", cam=True, outputs=None, dataset="folder"),
)


def occluded(hole_px: int, fill: Literal["mean", "black"]) -> TestSet:
    """Validation images with a centre hole of `hole_px` pixels in a crop of 224 pixels; it scales with the crop."""
    name = f"imagenet_cocc_{hole_px}_{fill}"
    return TestSet(name, ("imagenet_val",), hole=hole_px / 224, fill=fill)


def _localised(split: str, method: Literal["stride1", "attention"]) -> TestSet:
    return TestSet(f"{split}_{method}", (split,), resize="squash", cam=True, cam_method=method)


# Test sets of alternative protocols; they are predicted only if a suite names one of their benchmarks.
_ALTERNATIVES = (
    # SOURCE: google-research/augmix:imagenet.py and modestyachts/imagenet-testbed resize the stored crops again.
    TestSet("imagenet_c_resize256", ("imagenet_c",)),
    # SOURCE: hendrycks/robustness:README.md (held out; never part of mCE).
    TestSet("imagenet_c_extra", ("imagenet_c_extra",), resize="identity"),
    *(occluded(px, "mean") for px in (0, 56, 168, 224)),
    *(occluded(px, "black") for px in (56, 112, 168, 224)),
    # SOURCE: MadryLab/backgrounds_challenge:in9_eval.py, challenge_eval.py (models trained on ImageNet-9 itself).
    # DEVIATES: for models with nine outputs, images are normalised by ImageNet's mean and standard deviation, as in
    # luab's training; the released models used those of ImageNet-9 (tools/datasets.py) and cannot be scored here.
    TestSet("in9_nine_class", ("in9",), resize="identity", outputs=9),
    TestSet("in9_challenge_nine_class", ("in9",), resize="identity", challenge=True, outputs=9),
    *(_localised(split, method) for split in ("wsol_val", "wsol_test") for method in ("stride1", "attention")),
)

TEST_SETS: dict[str, TestSet] = {test_set.name: test_set for test_set in (*_ALL, *_ALTERNATIVES)}
"""Every test set by name."""


def test_set_rows(test_set: TestSet, manifests: "dict[str, pd.DataFrame]") -> "pd.DataFrame":
    """The rows of a test set, sorted by image_id as text, with the manifest each comes from.

    Returns:
        The manifests' columns and `manifest`. imagenet_o has the groups "out" and "in" (validation images of its 200
        classes); in9_challenge has the groups `original` and `only_bg_t` (the backgrounds) of in9.

    Raises:
        DataError: A manifest is missing in `manifests`, or none of its rows belongs to the test set.
    """
    import pandas as pd

    parts = [_rows_of(test_set, name, manifests) for name in test_set.manifests]
    rows = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    return rows.sort_values("image_id", ignore_index=True)


test_set_rows.__test__ = False  # type: ignore[attr-defined]


def _rows_of(test_set: TestSet, name: str, manifests: "dict[str, pd.DataFrame]") -> "pd.DataFrame":
    if name not in manifests:
        raise DataError(f"{test_set.name}: expected the manifest {name}, found {', '.join(manifests) or 'none'}.")
    rows = manifests[name].assign(manifest=name)
    if test_set.name == "imagenet_o":
        chosen = set(subset("imagenet_o"))
        if name == "imagenet_val":
            rows = rows[[labels[0] in chosen for labels in rows["labels"]]]
        rows = rows.assign(group="out" if name == "imagenet_o" else "in")
    if test_set.challenge:
        rows = rows[rows["group"].isin(("original", "only_bg_t"))]
    if rows.empty:
        raise DataError(f"{test_set.name}: the manifest {name} has no images that belong to it.")
    return rows
