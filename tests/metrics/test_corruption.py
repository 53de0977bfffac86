"""mCE against AlexNet itself and published values."""

import pytest

from luab.data.manifests.labels import CORRUPTIONS, EXTRA_CORRUPTIONS
from luab.errors import DataError
from luab.metrics.accuracy import Count
from luab.metrics.corruption import (
    ALEXNET_ERROR,
    corruption_error,
    errors_by_severity,
    mean_accuracy,
    mean_corruption_error,
    split_group,
)

ALEXNET = {name: dict.fromkeys(range(1, 6), error) for name, error in ALEXNET_ERROR.items()}


def test_alexnets_own_errors_give_exactly_one():
    assert mean_corruption_error(ALEXNET) == 1.0


def test_fifteen_normalisers_with_the_published_mean():
    assert tuple(ALEXNET_ERROR) == CORRUPTIONS and len(CORRUPTIONS) == 15
    assert sum(ALEXNET_ERROR.values()) / 15 == pytest.approx(0.788993, abs=5e-7)


def test_resnet50_at_resize_256_gives_78_20():
    # Mean errors in per cent of torchvision's ResNet-50 V1; SOURCE: modestyachts/imagenet-testbed.
    measured = [68.883, 71.404, 73.410, 64.484, 74.520, 63.648, 63.685, 69.465, 64.829, 56.592, 34.809]
    measured += [64.050, 56.663, 54.446, 47.560]
    errors = {
        name: dict.fromkeys(range(1, 6), error / 100) for name, error in zip(ALEXNET_ERROR, measured, strict=True)
    }
    assert 100 * mean_corruption_error(errors) == pytest.approx(78.20, abs=0.005)
    assert 100 * (1 - mean_accuracy(errors)) == pytest.approx(61.897, abs=0.001)


def test_groups_become_errors_of_each_severity():
    # ResNet-50's accuracies on Gaussian noise, in per cent of 50,000; their mean error is 68.883. SOURCE as above.
    right = {1: 29_714, 2: 23_661, 3: 14_917, 4: 7_268, 5: 2_233}
    counts = {f"gaussian_noise/{severity}": Count(n, 50_000) for severity, n in right.items()}
    errors = errors_by_severity(counts)
    assert [100 * (1 - error) for error in errors["gaussian_noise"].values()] == pytest.approx(
        [59.428, 47.322, 29.834, 14.536, 4.466]
    )
    assert corruption_error("gaussian_noise", errors["gaussian_noise"]) == pytest.approx(0.68883 / 0.886428, abs=1e-5)


def test_it_is_the_ratio_of_the_means():
    # AlexNet's mean for snow is .866816; the errors have the mean (0 + 0 + 0 + 0 + 1) / 5 = .2.
    errors = {1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0, 5: 1.0}
    assert corruption_error("snow", errors) == 0.2 / 0.866816


def test_accuracies_have_equal_weight():
    errors = {name: dict.fromkeys(range(1, 6), 0.0) for name in ALEXNET_ERROR}
    errors["fog"][3] = 1.0
    assert mean_accuracy(errors) == pytest.approx(74 / 75, abs=1e-15)


def test_the_extra_corruptions_never_count():
    extra = {name: dict.fromkeys(range(1, 6), 1.0) for name in EXTRA_CORRUPTIONS}
    assert mean_corruption_error(ALEXNET | extra) == 1.0
    assert mean_accuracy(ALEXNET | extra) == mean_accuracy(ALEXNET)
    with pytest.raises(DataError, match="spatter"):
        corruption_error("spatter", extra["spatter"])


def test_errors_are_not_clipped():
    assert corruption_error("brightness", dict.fromkeys(range(1, 6), 1.0)) > 1.7


@pytest.mark.parametrize("metric", [mean_corruption_error, mean_accuracy])
def test_a_missing_corruption_is_named(metric):
    with pytest.raises(DataError, match="missing: fog"):
        metric({name: errors for name, errors in ALEXNET.items() if name != "fog"})


@pytest.mark.parametrize("metric", [mean_corruption_error, mean_accuracy])
def test_a_missing_severity_is_named(metric):
    with pytest.raises(DataError, match=r"fog: expected the severities 1 to 5, found \[1, 2, 4, 5\]"):
        metric(ALEXNET | {"fog": {1: 0.5, 2: 0.5, 4: 0.5, 5: 0.5}})


def test_an_unknown_corruption_is_named():
    with pytest.raises(DataError, match="unknown: rain"):
        mean_corruption_error(ALEXNET | {"rain": ALEXNET["fog"]})


def test_groups_split_into_name_and_severity():
    assert split_group("gaussian_noise/3") == ("gaussian_noise", 3)


@pytest.mark.parametrize("group", ["", "fog", "fog/", "fog/0", "fog/6", "fog/x"])
def test_other_groups_are_refused(group):
    with pytest.raises(DataError, match="gaussian_noise/3"):
        split_group(group)
