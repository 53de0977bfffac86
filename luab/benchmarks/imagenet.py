"""Every benchmark: which predictions it needs, its protocol, and the numbers it makes of them."""

import functools
import math
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luab.benchmarks.benchmark import Benchmark, Detail, Inputs, Scores
from luab.benchmarks.coco import COCO_BENCHMARKS
from luab.benchmarks.outcomes import grouped, ranking, share
from luab.data.manifests.labels import EXTRA_CORRUPTIONS, IN9_VARIANTS, in9_of_class
from luab.data.manifests.testsets import TEST_SETS, TestSet
from luab.errors import ConfigError, DataError, did_you_mean
from luab.metrics import background, corruption, ood
from luab.metrics.accuracy import Bools, Count, Ints, count_by_group, has_label, is_correct, labelled_count
from luab.metrics.localization import IOU_PCT, box_accuracy, point_distances, points_in_box
from luab.metrics.synthetic import mean_over_values
from luab.predictions import boxes_of, ids_of, labels_of, numbers_of, points_of, score_maps_of, texts_of, top5_of

_TOP5 = ("image_id", "labels", "top5")
_GROUPED = (*_TOP5, "group")
_SUBSET = ("image_id", "labels", "restricted_top1")
_CHALLENGE = ("image_id", "vulnerable", "backgrounds_tried")
_CAM = ("image_id", "cam", "cam_h", "cam_w", "width", "height", "boxes", "point_x", "point_y")
_CROP = "shorter side to {resized_px}, centre crop {input_px}"


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ConfigError: There is none; the message names the nearest.
    """
    if name not in BENCHMARKS:
        raise ConfigError(f"suites: expected the name of a benchmark, found {name!r}. {did_you_mean(name, BENCHMARKS)}")
    return BENCHMARKS[name]


def test_sets_of(benchmark_names: Iterable[str]) -> tuple[str, ...]:
    """The test sets that these benchmarks need, each once, in order of first need.

    Raises:
        ConfigError: A benchmark is unknown.
    """
    return tuple(dict.fromkeys(t for name in benchmark_names for t in find_benchmark(name).test_sets))


# pytest would take the name for a test wherever it is imported.
test_sets_of.__test__ = False  # type: ignore[attr-defined]


# ---- numbers of each benchmark ---------------------------------------------------------------------------------


def _top1_top5(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    top5, labels = top5_of(table), labels_of(table)
    right = {k: is_correct(top5[:, :k], labels) for k in (1, 5)}
    metrics = {f"top{k}": labelled_count(right[k], labels).fraction for k in right}
    return _over_labelled(metrics, table, labels, right[1])


def _top1(inputs: Inputs) -> Scores:
    both = _top1_top5(inputs)
    return Scores({"top1": both.metrics["top1"]}, both.n, both.ids, images=both.images)


def _real(inputs: Inputs) -> Scores:
    """Top-1 and top-5 against the re-assessed label sets; images without any are left out."""
    table, manifest = inputs.tables["imagenet_val"], inputs.manifests["imagenet_real"]
    table, manifest = table.sort_by("image_id"), manifest.sort_by("image_id")
    if not table["image_id"].equals(manifest["image_id"]):
        raise DataError(
            f"imagenet_real: expected the same images in the predictions of imagenet_val "
            f"({table.num_rows}) and in the manifest imagenet_real ({manifest.num_rows}); they differ. "
            "Index both again, then predict."
        )
    labels, top5 = labels_of(manifest), top5_of(table)
    correct = is_correct(top5[:, 0], labels)
    metrics = {
        "accuracy": labelled_count(correct, labels).fraction,
        "top5": labelled_count(is_correct(top5, labels), labels).fraction,
    }
    return _over_labelled(metrics, table, labels, correct)


def _restricted(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    labels = labels_of(table)
    correct = is_correct(numbers_of(table, "restricted_top1"), labels)
    return _over_labelled({"accuracy": labelled_count(correct, labels).fraction}, table, labels, correct)


def _over_1000(inputs: Inputs) -> Scores:
    """Where the releasing paper restricts the arg-max: over all classes."""
    (table,) = inputs.tables.values()
    labels = labels_of(table)
    correct = is_correct(top5_of(table)[:, 0], labels)
    return _over_labelled({"accuracy": labelled_count(correct, labels).fraction}, table, labels, correct)


def _objectnet(inputs: Inputs) -> Scores:
    table = inputs.tables["objectnet"]
    labels = labels_of(table)
    all_classes = is_correct(top5_of(table)[:, 0], labels)
    sublist = is_correct(numbers_of(table, "restricted_top1"), labels)
    metrics = {
        "accuracy": labelled_count(all_classes, labels).fraction,
        "accuracy_sublist": labelled_count(sublist, labels).fraction,
    }
    return _over_labelled(metrics, table, labels, all_classes)


def _imagenet_o(inputs: Inputs) -> Scores:
    table = inputs.tables["imagenet_o"]
    groups = texts_of(table, "group")
    if unknown := sorted(set(groups) - {"in", "out"}):
        raise DataError(f"imagenet_o: expected the groups 'in' and 'out', found {', '.join(unknown)}. Predict again.")
    confidence, is_out = numbers_of(table, "restricted_confidence"), groups == "out"
    metrics = {
        "aupr": ood.aupr(confidence, is_out),
        "auroc": ood.auroc(confidence, is_out),
        "fpr95": ood.fpr95(confidence, is_out),
    }
    extra = {"chance_aupr": int(is_out.sum()) / len(is_out)}
    images = functools.partial(ranking, table["image_id"], is_out, confidence)
    return Scores(metrics, len(groups), ids_of(table), extra=extra, images=images)


def _imagenet_c(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    right = _correct(table)
    counts = count_by_group(right, texts_of(table, "group"))
    errors = corruption.errors_by_severity(counts)
    metrics = {
        "mce": corruption.mean_corruption_error(errors),
        "mean_accuracy": corruption.mean_accuracy(errors),
    }
    used = [f"{name}/{severity}" for name in corruption.ALEXNET_ERROR for severity in corruption.SEVERITIES]
    n_of = {name: sum(counts[f"{name}/{s}"].n for s in errors[name]) for name in corruption.ALEXNET_ERROR}
    ratios = [
        Detail(name, "corruption_error", corruption.corruption_error(name, errors[name]), n) for name, n in n_of.items()
    ]
    # mCE = sum over the 75 sets of weight x (1 - accuracy).
    weights = {group: 1 / (len(used) * corruption.ALEXNET_ERROR[group.rpartition("/")[0]]) for group in used}
    images = functools.partial(grouped, table, right, {g: -w for g, w in weights.items()}, math.fsum(weights.values()))
    ids = ids_of(table.filter(pc.is_in(table["group"], pa.array(used))))
    return Scores(metrics, sum(n_of.values()), ids, _accuracies(counts) + ratios, images=images)


def _corruption_accuracy(inputs: Inputs) -> Scores:
    """Mean accuracy over all sets of corrupted images that are there, each with the same weight."""
    tables = [inputs.tables[name].combine_chunks() for name in inputs.tables]
    table = pa.concat_tables(tables)
    right = _correct(table)
    counts = count_by_group(right, texts_of(table, "group"))
    extra = "imagenet_c_extra" in inputs.tables
    wanted = [
        *(corruption.ALEXNET_ERROR if len(tables) > 1 or not extra else ()),
        *(EXTRA_CORRUPTIONS if extra else ()),
    ]
    mean = corruption.mean_accuracy(corruption.errors_by_severity(counts), wanted)
    used = [f"{name}/{severity}" for name in wanted for severity in corruption.SEVERITIES]
    images = functools.partial(grouped, table, right, dict.fromkeys(used, 1 / len(used)))
    ids = ids_of(table.filter(pc.is_in(table["group"], pa.array(used))))
    return Scores({"mean_accuracy": mean}, len(ids), ids, _accuracies({g: counts[g] for g in used}), images=images)


def _siscore(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    right = _correct(table)
    counts = count_by_group(right, texts_of(table, "group"))
    images = functools.partial(grouped, table, right, dict.fromkeys(counts, 1 / len(counts)))
    metrics = {"accuracy": mean_over_values(counts)}
    return Scores(metrics, table.num_rows, ids_of(table), _accuracies(counts), images=images)


def _in9(inputs: Inputs) -> Scores:
    table = inputs.tables["in9"]
    return _in9_scores(table, background.in9_answers(top5_of(table)[:, 0], in9_of_class()))


def _in9_nine(inputs: Inputs) -> Scores:
    """A model with nine outputs: its arg-max is the answer."""
    table = inputs.tables["in9_nine_class"]
    return _in9_scores(table, background.nine_class_answers(top5_of(table)[:, 0]))


def _in9_scores(table: pa.Table, answers: Ints) -> Scores:
    right = is_correct(answers, labels_of(table))
    counts = count_by_group(right, texts_of(table, "group"))
    if missing := [name for name in IN9_VARIANTS if name not in counts]:
        raise DataError(
            f"in9: expected the variants {', '.join(IN9_VARIANTS)}; {', '.join(missing)} missing. "
            "Unpack the Backgrounds Challenge archive again, index it and predict."
        )
    metrics = {name: counts[name].fraction for name in IN9_VARIANTS}
    metrics |= {"bg_gap": background.bg_gap(metrics)}
    images = functools.partial(grouped, table, right, {"mixed_same": 1.0, "mixed_rand": -1.0})
    return Scores(metrics, table.num_rows, ids_of(table), _accuracies(counts), images=images)


def _in9_challenge(inputs: Inputs) -> Scores:
    (table,) = inputs.tables.values()
    vulnerable = numbers_of(table, "vulnerable").astype(bool)
    metrics = {"challenge_accuracy": background.challenge_accuracy(vulnerable)}
    tried = int(numbers_of(table, "backgrounds_tried").sum())
    images = functools.partial(share, table["image_id"], ~vulnerable)
    return Scores(metrics, table.num_rows, ids_of(table), extra={"backgrounds_tried": tried}, images=images)


def _wsol(inputs: Inputs) -> Scores:
    ((name, table),) = inputs.tables.items()
    boxes, size_wh = boxes_of(table), np.stack([numbers_of(table, "width"), numbers_of(table, "height")], axis=1)
    maps = score_maps_of(name, table, boxes, size_wh)
    found = box_accuracy(maps, inputs.input_px, processes=inputs.processes)
    metrics = {"max_box_acc": found.max_box_acc(), "max_box_acc_v2": found.max_box_acc_v2()}
    details = [
        Detail(f"iou_{pct}", "max_box_acc_v2", Count(found.found_at(pct), found.n).fraction, found.n) for pct in IOU_PCT
    ]
    best = {f"iou_{pct}": found.best_threshold(pct) for pct in IOU_PCT}
    points = points_of(name, table)
    if points is not None:
        metrics["point_in_box"] = points_in_box(points, boxes, size_wh) / found.n
        metrics["point_distance"] = math.fsum(point_distances(points, boxes, size_wh)) / found.n
    # At the thresholds that are best for all images: drawing anew must not choose them anew for each draw.
    images = functools.partial(share, table["image_id"], found.hits_at_best().mean(axis=1))
    return Scores(metrics, found.n, ids_of(table), details, {"best_threshold": best}, images)


def _correct(table: pa.Table) -> Bools:
    return is_correct(top5_of(table)[:, 0], labels_of(table))


def _accuracies(counts: Mapping[str, Count]) -> list[Detail]:
    return [Detail(group, "accuracy", count.fraction, count.n) for group, count in counts.items()]


def _over_labelled(metrics: dict[str, float], table: pa.Table, labels: Ints, right: Bools) -> Scores:
    """Scores over the images that have a label, whose headline is the share of `right` ones."""
    scored = has_label(labels)
    kept = table.filter(pa.array(scored))
    images = functools.partial(share, kept["image_id"], right[scored])
    return Scores(metrics, int(np.count_nonzero(scored)), ids_of(kept), images=images)


_WSOL = (
    "image squeezed to {input_px} x {input_px} without a crop; MaxBoxAccV2 over "
    "all contours at IoU .3 .5 .7, MaxBoxAcc with the largest contour at IoU .5; thresholds in steps of "
    ".001, best on "
)
_WSOL_SETS = {"wsol_val": "this set (ImageNet-V2 threshold-0.7)", "wsol_test": "this set (ImageNet validation set)"}

_RELEASED = (
    Benchmark(
        "imagenet_val", "ImageNet", ("imagenet_val",), _TOP5,
        f"ImageNet validation set, arg-max over 1000 classes, {_CROP}", "top1", "higher", _top1_top5,
    ),
    Benchmark(
        "imagenet_v2", "ImageNet-V2", ("imagenet_v2",), _TOP5,
        f"ImageNet-V2 matched-frequency, arg-max over 1000 classes, {_CROP}",
        "top1", "higher", _top1_top5,
    ),
    Benchmark(
        "imagenet_real", "ImageNet-ReaL", ("imagenet_val",), _TOP5,
        "arg-max over 1000 classes in the re-assessed label set (top5: any of the five best), images without a label "
        "left out, "
        f"{_CROP}",
        "accuracy", "higher", _real, manifests=("imagenet_real",),
    ),
    Benchmark(
        "imagenet_a", "ImageNet-A", ("imagenet_a",), _SUBSET,
        f"arg-max over the 200 ImageNet-A classes, {_CROP}", "accuracy", "higher", _restricted,
    ),
    Benchmark(
        "imagenet_r", "ImageNet-R", ("imagenet_r",), _SUBSET,
        f"arg-max over the 200 ImageNet-R classes, {_CROP}", "accuracy", "higher", _restricted,
    ),
    Benchmark(
        "imagenet_o", "ImageNet-O", ("imagenet_o",), ("image_id", "group", "restricted_confidence"),
        "average precision of ImageNet-O images against ImageNet validation images of the same 200 "
        f"classes, score = minus the largest softmax over these 200 logits, {_CROP}",
        "aupr", "higher", _imagenet_o,
    ),
    Benchmark(
        "imagenet_sketch", "ImageNet-Sketch", ("imagenet_sketch",), _TOP5,
        f"ImageNet-Sketch, arg-max over 1000 classes, {_CROP}", "top1", "higher", _top1_top5,
    ),
    Benchmark(
        "imagenet_c", "ImageNet-C", ("imagenet_c",), _GROUPED,
        "mCE over 15 corruptions and 5 severities relative to AlexNet's published errors, arg-max over "
        "1000 classes, stored images seen whole at {input_px}", "mce", "lower", _imagenet_c,
    ),
    Benchmark(
        "imagenet_cocc", "Centre occlusion", ("imagenet_cocc",), _TOP5,
        "ImageNet validation set with a centred square of half the crop's side set to the mean colour, "
        f"arg-max over 1000 classes, {_CROP}", "top1", "higher", _top1,
    ),
    Benchmark(
        "objectnet", "ObjectNet", ("objectnet",), (*_TOP5, "restricted_top1"),
        "113 ObjectNet classes that overlap ImageNet, red border cut off, arg-max over 1000 classes in "
        "the object's set of ImageNet classes (accuracy_sublist: arg-max over the 125 mapped classes), "
        f"{_CROP}",
        "accuracy", "higher", _objectnet,
    ),
    *(
        Benchmark(
            f"siscore_{factor}", f"SI-Score {factor}", (f"siscore_{factor}",), _GROUPED,
            f"SI-Score {factor}, mean over the values of the factor, arg-max over 1000 classes, {_CROP}",
            "accuracy", "higher", _siscore,
        )
        for factor in ("size", "location", "rotation")
    ),
    Benchmark(
        "in9", "Backgrounds Challenge", ("in9",), _GROUPED,
        "ImageNet-9, arg-max over 1000 classes mapped to 9, unmapped is wrong, stored images seen whole "
        "at {input_px}; BG-Gap = mixed_same - mixed_rand", "bg_gap", "lower", _in9,
    ),
    Benchmark(
        "in9_challenge", "Adversarial backgrounds", ("in9_challenge",), _CHALLENGE,
        "share of ImageNet-9 foregrounds that no only_bg_t background turns into another class, arg-max "
        "over 1000 classes mapped to 9, stored images seen whole at {input_px}",
        "challenge_accuracy", "higher", _in9_challenge,
    ),
    Benchmark(
        "wsol_val", "Localisation (train-fullsup)", ("wsol_val",), _CAM,
        f"score map of the true class, {_WSOL}{_WSOL_SETS['wsol_val']}", "max_box_acc_v2", "higher", _wsol,
    ),
    Benchmark(
        "wsol_test", "Localisation", ("wsol_test",), _CAM,
        f"score map of the true class, {_WSOL}{_WSOL_SETS['wsol_test']}", "max_box_acc_v2", "higher", _wsol,
    ),
)  # fmt: skip


def _other_choice(name: str, over: str) -> Benchmark:
    """ImageNet-A or -R by the arg-max over all classes instead of its own 200."""
    title = BENCHMARKS[name].title
    return Benchmark(
        f"{name}_1000way", f"{title} (1000-way)", (name,), _TOP5,
        f"{over}, arg-max over all 1000 classes (the releasing paper restricts it to the set's 200), {_CROP}",
        "accuracy", "higher", _over_1000, instead_of=name,
    )  # fmt: skip


def _objectnet_over(name: str, how: str) -> Benchmark:
    return Benchmark(
        f"objectnet_{name}", f"ObjectNet ({name.replace('_', ' ')})", ("objectnet",), _SUBSET,
        f"113 ObjectNet classes that overlap ImageNet, red border cut off, {how}, {_CROP}",
        "accuracy", "higher", _restricted, instead_of="objectnet",
    )  # fmt: skip


def _corrupted(name: str, title: str, test_sets: tuple[str, ...], which: str, view: str) -> Benchmark:
    return Benchmark(
        name, title, test_sets, _GROUPED,
        f"mean accuracy over {which} and 5 severities, arg-max over 1000 classes, {view}",
        "mean_accuracy", "higher", _corruption_accuracy, instead_of="imagenet_c",
    )  # fmt: skip


def _occluded(test_set: TestSet) -> Benchmark:
    colour = "the mean colour (zero after normalisation)" if test_set.fill == "mean" else "black (zero before it)"
    return Benchmark(
        test_set.name, f"Centre occlusion ({test_set.hole:g}, {test_set.fill})", (test_set.name,), _TOP5,
        f"ImageNet validation set with a centred square of {test_set.hole:g} of the crop's side set to {colour}, "
        f"arg-max over 1000 classes, {_CROP}", "top1", "higher", _top1, instead_of="imagenet_cocc",
    )  # fmt: skip


def _localised(test_set: TestSet) -> Benchmark:
    (split,) = test_set.manifests
    maps = {
        "stride1": "score map of the true class, of a CNN with its last stage at stride 1 (dilated, weights trained at "
        f"stride 2), of a ViT the map of {split}",
        "attention": "of a ViT the gradient-weighted attention of all blocks towards the true class, of others the map "
        f"of {split}",
    }
    return Benchmark(
        test_set.name, f"{BENCHMARKS[split].title} ({test_set.cam_method})", (test_set.name,), _CAM,
        f"{maps[test_set.cam_method]}; {_WSOL}{_WSOL_SETS[split]}",
        "max_box_acc_v2", "higher", _wsol, instead_of=split,
    )  # fmt: skip


_WHOLE = "stored images seen whole at {input_px}"
_AGAIN = f"stored images once more resized and cropped: {_CROP}"

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (*_RELEASED, *COCO_BENCHMARKS)}
_ALTERNATIVES = (
    _other_choice("imagenet_a", "natural adversarial examples"),
    _other_choice("imagenet_r", "renditions"),
    _objectnet_over("sublist", "arg-max over the 125 mapped classes, right when it is one of the object's"),
    _objectnet_over(
        "max_projection",
        "an object's score is the largest of its classes', arg-max over the 113 objects; since no class belongs to two "
        "objects, this is right for exactly the images that objectnet_sublist is right for",
    ),
    _corrupted("imagenet_c_mean", "ImageNet-C (accuracy)", ("imagenet_c",), "15 corruptions", _WHOLE),
    Benchmark(
        "imagenet_c_resize256", "ImageNet-C (resized)", ("imagenet_c_resize256",), _GROUPED,
        "mCE over 15 corruptions and 5 severities relative to AlexNet's published errors (of crops seen whole), "
        f"arg-max over 1000 classes, {_AGAIN}", "mce", "lower", _imagenet_c, instead_of="imagenet_c",
    ),
    _corrupted("imagenet_c_extra", "ImageNet-C extra", ("imagenet_c_extra",), "the 4 extra corruptions", _WHOLE),
    _corrupted(
        "imagenet_c_all", "ImageNet-C with extra", ("imagenet_c", "imagenet_c_extra"),
        "15 corruptions and the 4 extra ones", _WHOLE,
    ),
    *(_occluded(t) for t in TEST_SETS.values() if t.name.startswith("imagenet_cocc_")),
    Benchmark(
        "in9_nine_class", "Backgrounds Challenge (9-class)", ("in9_nine_class",), _GROUPED,
        "ImageNet-9, a model with nine outputs whose arg-max is the answer, stored images seen whole at "
        "{input_px}; BG-Gap = mixed_same - mixed_rand", "bg_gap", "lower", _in9_nine, instead_of="in9",
    ),
    Benchmark(
        "in9_challenge_nine_class", "Adversarial backgrounds (9-class)", ("in9_challenge_nine_class",), _CHALLENGE,
        "share of ImageNet-9 foregrounds that no only_bg_t background turns into another class, a model with nine "
        "outputs whose arg-max is the answer, stored images seen whole at {input_px}",
        "challenge_accuracy", "higher", _in9_challenge, instead_of="in9_challenge",
    ),
    *(_localised(t) for t in TEST_SETS.values() if t.cam_method != "plain"),
)  # fmt: skip
BENCHMARKS |= {benchmark.name: benchmark for benchmark in _ALTERNATIVES}
