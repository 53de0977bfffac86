"""Every benchmark of the study by name; imports no numerical library."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from luab.benchmarks.benchmark import Benchmark
from luab.data.manifests.testsets import TEST_SETS, TestSet
from luab.errors import ConfigError, did_you_mean

POINTING_TOLERANCE_PX = 15
"""Distance from an object, in source pixels, at which the pointing game still counts a hit."""

TRACES = "held_out_traces"
"""File of targets with the mouse traces of images that no training sees, which trace_alignment reads."""

_TOP5 = ("image_id", "labels", "top5")
_GROUPED = (*_TOP5, "group")
_SUBSET = ("image_id", "labels", "restricted_top1")
_CHALLENGE = ("image_id", "vulnerable", "backgrounds_tried")
_CAM = ("image_id", "cam", "cam_h", "cam_w", "width", "height", "boxes", "point_x", "point_y")
_COCO = ("image_id", "labels", "scores")

_CROP = "shorter side to {resized_px}, centre crop {input_px}"
_WHOLE = "stored images seen whole at {input_px}"
_OVER_1000 = f"arg-max over 1000 classes, {_CROP}"
_NINE_OUTPUTS = "a model with nine outputs whose arg-max is the answer"
_CHALLENGE_SHARE = "share of ImageNet-9 foregrounds that no only_bg_t background turns into another class"
_GAP = "BG-Gap = mixed_same - mixed_rand"
_MCE = "mCE over 15 corruptions and 5 severities relative to AlexNet's published errors"
_SQUEEZED = "image squeezed to {input_px} x {input_px} without a crop"
_WSOL = (
    f"{_SQUEEZED}; MaxBoxAccV2 over all contours at IoU .3 .5 .7, MaxBoxAcc with the largest contour at IoU .5; "
    "thresholds in steps of .001, best on this set "
)
_FOCUS = (
    "; energy_in_box: share of the map's positive values in the boxes; pointing_game: maximum closer than "
    f"{POINTING_TOLERANCE_PX} px to a box in the source image"
)
_WSOL_SETS = {"wsol_val": "(ImageNet-V2 threshold-0.7)", "wsol_test": "(ImageNet validation set)"}
_COCO_SET = "COCO 2014 validation set, 80 classes, crowds count as present"


def _wsol(name: str, title: str) -> Benchmark:
    protocol = f"score map of the true class, {_WSOL}{_WSOL_SETS[name]}{_FOCUS}"
    return Benchmark(name, title, (name,), _CAM, protocol, "max_box_acc_v2", "wsol")


def _top1(name: str, title: str, images: str) -> Benchmark:
    return Benchmark(name, title, (name,), _TOP5, f"{images}, {_OVER_1000}", "top1", "top1_top5")


def _restricted(name: str, title: str) -> Benchmark:
    protocol = f"arg-max over the 200 {title} classes, {_CROP}"
    return Benchmark(name, title, (name,), _SUBSET, protocol, "accuracy", "restricted")


_RELEASED = (
    _top1("imagenet_val", "ImageNet", "ImageNet validation set"),
    _top1("imagenet_v2", "ImageNet-V2", "ImageNet-V2 matched-frequency"),
    Benchmark(
        "imagenet_real", "ImageNet-ReaL", ("imagenet_val",), _TOP5,
        "arg-max over 1000 classes in the re-assessed label set (top5: any of the five best), images without a label "
        f"left out, {_CROP}", "accuracy", "real", manifests=("imagenet_real",),
    ),
    _restricted("imagenet_a", "ImageNet-A"),
    _restricted("imagenet_r", "ImageNet-R"),
    Benchmark(
        "imagenet_o", "ImageNet-O", ("imagenet_o",), ("image_id", "group", "restricted_confidence"),
        "average precision of ImageNet-O images against ImageNet validation images of the same 200 classes, "
        f"score = minus the largest softmax over these 200 logits, {_CROP}", "aupr", "imagenet_o",
    ),
    _top1("imagenet_sketch", "ImageNet-Sketch", "ImageNet-Sketch"),
    Benchmark(
        "imagenet_c", "ImageNet-C", ("imagenet_c",), _GROUPED,
        f"{_MCE}, arg-max over 1000 classes, {_WHOLE}", "mce", "imagenet_c", "lower",
    ),
    Benchmark(
        "imagenet_cocc", "Centre occlusion", ("imagenet_cocc",), _TOP5,
        f"ImageNet validation set with a centred square of half the crop's side set to the mean colour, {_OVER_1000}",
        "top1", "top1",
    ),
    Benchmark(
        "objectnet", "ObjectNet", ("objectnet",), (*_TOP5, "restricted_top1"),
        "113 ObjectNet classes that overlap ImageNet, red border cut off, arg-max over 1000 classes in the object's "
        f"set of ImageNet classes (accuracy_sublist: arg-max over the 125 mapped classes), {_CROP}",
        "accuracy", "objectnet",
    ),
    *(
        Benchmark(
            f"siscore_{factor}", f"SI-Score {factor}", (f"siscore_{factor}",), _GROUPED,
            f"SI-Score {factor}, mean over the values of the factor, {_OVER_1000}", "accuracy", "siscore",
        )
        for factor in ("size", "location", "rotation")
    ),
    Benchmark(
        "in9", "Backgrounds Challenge", ("in9",), _GROUPED,
        f"ImageNet-9, arg-max over 1000 classes mapped to 9, unmapped is wrong, {_WHOLE}; {_GAP}",
        "bg_gap", "in9", "lower",
    ),
    Benchmark(
        "in9_challenge", "Adversarial backgrounds", ("in9_challenge",), _CHALLENGE,
        f"{_CHALLENGE_SHARE}, arg-max over 1000 classes mapped to 9, {_WHOLE}", "challenge_accuracy", "in9_challenge",
    ),
    _wsol("wsol_val", "Localisation (train-fullsup)"),
    _wsol("wsol_test", "Localisation"),
    Benchmark(
        "trace_alignment", "Trace alignment", ("imagenet_held_out",), ("image_id", "cam", "cam_h", "cam_w"),
        "training images that no training saw (held_out_byproducts): Spearman's correlation of the score map of the "
        "true class with the time-weighted density of a person's mouse trace (Gaussians of .1 of the side), at 14 x 14 "
        f"positions, mean over people, then over images with a trace, {_SQUEEZED}; another person: the correlation "
        "of two people's densities, on all images that several people traced", "alignment", "trace_alignment",
        targets=(TRACES,),
    ),
    Benchmark(
        "coco_val", "COCO", ("coco_val",), _COCO,
        f"{_COCO_SET}, mean over classes of the average precision without interpolation (ap), CF1 and OF1 at "
        f"probability one half, {_SQUEEZED}", "map", "coco_val",
    ),
    Benchmark(
        "coco_size", "COCO, small objects", ("coco_val",), _COCO,
        f"{_COCO_SET}; mAP with the positives whose largest object of the class is small (mask below 32 x 32 px), "
        "medium (96 x 96) or large, against all negatives, over the classes that have all sizes, "
        f"{_SQUEEZED}", "map_small", "coco_size", manifests=("coco_val",),
        manifest_columns=("image_id", "box_labels", "box_areas", "box_crowd"),
    ),
    Benchmark(
        "coco_context", "COCO, out of context", ("coco_val",), _COCO,
        f"{_COCO_SET}; mAP with the positives that show none (out_of_context) or some (in_context) of the class's "
        "usual companions, against all negatives, over the classes that have both; companions: in at least a tenth of "
        f"the class's training images and 1.5 times as often as in all, {_SQUEEZED}",
        "map_out_of_context", "coco_context", manifests=("coco_train",),
    ),
    Benchmark(
        "coco_localization", "COCO, localisation", ("coco_val",),
        ("image_id", "labels", "points", "cam", "cam_h", "cam_w", "width", "height"),
        "score map of each class that an image shows, by all masks of single objects of the class, crowds ignored, "
        f"means over classes: pointing game (closer than {POINTING_TOLERANCE_PX} px in the source image), PxAP at "
        f"{{input_px}} x {{input_px}} in steps of .001, share of regressed points on a mask, {_SQUEEZED}",
        "pointing_game", "coco_localization", roots=("coco_val",),
    ),
    Benchmark(
        "folder_val", "Own images", ("folder_val",), _GROUPED,
        f"held-out images, mean accuracy over classes (balanced_accuracy), {_CROP}", "balanced_accuracy", "folder_val",
    ),
    Benchmark(
        "folder_tests", "Own test sets", ("folder_tests",), _GROUPED,
        "test sets of your own (folder.tests): mean over the test sets of the mean accuracy over classes "
        f"(balanced_accuracy) and of the share of right images (top1), and both for each test set, {_CROP}",
        "balanced_accuracy", "folder_tests",
    ),
    Benchmark(
        "folder_points", "Own images, localisation", ("folder_points",), (*_CAM, "recorded_x", "recorded_y"),
        "held-out images with a recorded point: share of the score map of the true class that is below its value at "
        f"the point (map_rank, .5 by chance), distance of the predicted point in diagonals, {_SQUEEZED}", "map_rank",
        "folder_points",
    ),
)  # fmt: skip

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _RELEASED}
"""Every benchmark by name."""


def _alternative(of: str, name: str, title: str, protocol: str, **changes: Any) -> Benchmark:
    """Another protocol for the images of a benchmark; fields that are not given are those of the benchmark."""
    return replace(BENCHMARKS[of], name=name, title=title, protocol=protocol, instead_of=of, **changes)


def _over_1000(of: str, images: str) -> Benchmark:
    return _alternative(
        of, f"{of}_1000way", f"{BENCHMARKS[of].title} (1000-way)",
        f"{images}, arg-max over all 1000 classes (the releasing paper restricts it to the set's 200), {_CROP}",
        columns=_TOP5, formula="over_1000",
    )  # fmt: skip


def _objectnet(name: str, rule: str) -> Benchmark:
    return _alternative(
        "objectnet", f"objectnet_{name}", f"ObjectNet ({name.replace('_', ' ')})",
        f"113 ObjectNet classes that overlap ImageNet, red border cut off, {rule}, {_CROP}",
        columns=_SUBSET, formula="restricted",
    )  # fmt: skip


def _corrupted(name: str, title: str, test_sets: tuple[str, ...], corruptions: str) -> Benchmark:
    return _alternative(
        "imagenet_c", name, title,
        f"mean accuracy over {corruptions} and 5 severities, arg-max over 1000 classes, {_WHOLE}",
        test_sets=test_sets, headline="mean_accuracy", better="higher", formula="corruption_accuracy",
    )  # fmt: skip


def _occluded(test_set: TestSet) -> Benchmark:
    colour = "the mean colour (zero after normalisation)" if test_set.fill == "mean" else "black (zero before it)"
    return _alternative(
        "imagenet_cocc", test_set.name, f"Centre occlusion ({test_set.hole:g}, {test_set.fill})",
        f"ImageNet validation set with a centred square of {test_set.hole:g} of the crop's side set to {colour}, "
        f"{_OVER_1000}", test_sets=(test_set.name,),
    )  # fmt: skip


def _other_maps(test_set: TestSet) -> Benchmark:
    (split,) = test_set.manifests
    maps = {
        "stride1": "score map of the true class, of a CNN with its last stage at stride 1 (dilated, weights trained at "
        f"stride 2), of a ViT the map of {split}",
        "attention": "of a ViT the gradient-weighted attention of all blocks towards the true class, of others the map "
        f"of {split}",
    }
    return _alternative(
        split, test_set.name, f"{BENCHMARKS[split].title} ({test_set.cam_method})",
        f"{maps[test_set.cam_method]}; {_WSOL}{_WSOL_SETS[split]}{_FOCUS}", test_sets=(test_set.name,),
    )  # fmt: skip


_ALTERNATIVES = (
    _over_1000("imagenet_a", "natural adversarial examples"),
    _over_1000("imagenet_r", "renditions"),
    _objectnet("sublist", "arg-max over the 125 mapped classes, right when it is one of the object's"),
    _objectnet(
        "max_projection",
        "an object's score is the largest of its classes', arg-max over the 113 objects; since no class belongs to two "
        "objects, this is right for exactly the images that objectnet_sublist is right for",
    ),
    _corrupted("imagenet_c_mean", "ImageNet-C (accuracy)", ("imagenet_c",), "15 corruptions"),
    _alternative(
        "imagenet_c", "imagenet_c_resize256", "ImageNet-C (resized)",
        f"{_MCE} (of crops seen whole), arg-max over 1000 classes, stored images once more resized and cropped: "
        f"{_CROP}", test_sets=("imagenet_c_resize256",),
    ),
    _corrupted("imagenet_c_extra", "ImageNet-C extra", ("imagenet_c_extra",), "the 4 extra corruptions"),
    _corrupted(
        "imagenet_c_all", "ImageNet-C with extra", ("imagenet_c", "imagenet_c_extra"),
        "15 corruptions and the 4 extra ones",
    ),
    *(_occluded(t) for t in TEST_SETS.values() if t.name.startswith("imagenet_cocc_")),
    _alternative(
        "in9", "in9_nine_class", "Backgrounds Challenge (9-class)", f"ImageNet-9, {_NINE_OUTPUTS}, {_WHOLE}; {_GAP}",
        test_sets=("in9_nine_class",),
    ),
    _alternative(
        "in9_challenge", "in9_challenge_nine_class", "Adversarial backgrounds (9-class)",
        f"{_CHALLENGE_SHARE}, {_NINE_OUTPUTS}, {_WHOLE}", test_sets=("in9_challenge_nine_class",),
    ),
    *(_other_maps(t) for t in TEST_SETS.values() if t.cam_method != "plain"),
)  # fmt: skip
BENCHMARKS |= {benchmark.name: benchmark for benchmark in _ALTERNATIVES}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name; an unknown name is a ConfigError that suggests similar ones."""
    if name not in BENCHMARKS:
        raise ConfigError(f"suites: no benchmark is called {name!r}. {did_you_mean(name, BENCHMARKS)}")
    return BENCHMARKS[name]


def test_sets_of(benchmark_names: Iterable[str]) -> tuple[str, ...]:
    """The test sets that these benchmarks need, each once, in order of first use."""
    return tuple(dict.fromkeys(t for name in benchmark_names for t in find_benchmark(name).test_sets))


test_sets_of.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it as a test
