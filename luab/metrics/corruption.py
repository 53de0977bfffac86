"""ImageNet-C: errors under corruption, taken relative to AlexNet's."""

import statistics
from collections.abc import Iterable, Mapping

from luab.data.manifests.labels import CORRUPTIONS, EXTRA_CORRUPTIONS
from luab.errors import DataError
from luab.metrics.accuracy import Count

SEVERITIES = (1, 2, 3, 4, 5)

ALEXNET_ERROR = dict(
    zip(
        CORRUPTIONS,
        (
            0.886428, 0.894468, 0.922640,  # noise
            0.819880, 0.826268, 0.785948, 0.798360,  # blur
            0.866816, 0.826572, 0.819324, 0.564592,  # weather
            0.853204, 0.646056, 0.717840, 0.606500,  # digital
        ),
        strict=True,
    )
)  # fmt: skip
"""AlexNet's mean error over the five severities. SOURCE: google-research/augmix, imagenet.py."""

ErrorBySeverity = Mapping[str, Mapping[int, float]]


def corruption_error(corruption: str, error_by_severity: Mapping[int, float]) -> float:
    """Mean error over the severities divided by AlexNet's mean error: a ratio, 1 for AlexNet.

    It is the ratio of the means, not the mean of ratios, and may exceed 1.

    Raises:
        DataError: The corruption has no AlexNet error, or a severity is missing or unknown.

    Source:
        hendrycks/robustness, ImageNet-C/test.py.
    """
    if corruption not in ALEXNET_ERROR:
        raise DataError(
            f"ImageNet-C: expected one of {', '.join(ALEXNET_ERROR)}; found {corruption!r}, "
            "for which AlexNet's error is not published. Leave it out of mCE."
        )
    _check_severities(corruption, error_by_severity)
    return _mean(error_by_severity.values()) / ALEXNET_ERROR[corruption]


def mean_corruption_error(errors: ErrorBySeverity) -> float:
    """mCE: the mean of the 15 corruption errors, lower is better, 1 for AlexNet.

    Args:
        errors: corruption -> severity -> error, as a fraction of 1. The four extra corruptions may be
            there and are left out.

    Raises:
        DataError: Names the corruptions or severities that are missing or unknown.

    Source:
        hendrycks/robustness, ImageNet-C/test.py. The normalisers are constants: AlexNet is not run again.
    """
    _check_corruptions(errors, list(ALEXNET_ERROR))
    return _mean(corruption_error(name, errors[name]) for name in ALEXNET_ERROR)


def mean_accuracy(errors: ErrorBySeverity, corruptions: Iterable[str] = tuple(ALEXNET_ERROR)) -> float:
    """Mean accuracy over all pairs of corruption and severity, higher is better; a fraction.

    Args:
        errors: As in `mean_corruption_error`.
        corruptions: Which count: by default the 15 of mCE, that is 75 pairs.

    Raises:
        DataError: As `mean_corruption_error`.
    """
    names = list(corruptions)
    _check_corruptions(errors, names)
    for name in names:
        _check_severities(name, errors[name])
    return 1 - _mean(error for name in names for error in errors[name].values())


def errors_by_severity(counts: Mapping[str, Count]) -> dict[str, dict[int, float]]:
    """Corruption -> severity -> error, from the right images of each group "gaussian_noise/3".

    Raises:
        DataError: A group is named otherwise.
    """
    errors: dict[str, dict[int, float]] = {}
    for group, count in counts.items():
        name, severity = split_group(group)
        errors.setdefault(name, {})[severity] = (count.n - count.correct) / count.n
    return errors


def split_group(group: str) -> tuple[str, int]:
    """("gaussian_noise", 3) for "gaussian_noise/3".

    Raises:
        DataError: It is not a name, a slash and a severity.
    """
    name, slash, severity = group.rpartition("/")
    if not slash or not severity.isdecimal() or int(severity) not in SEVERITIES:
        raise DataError(
            f"ImageNet-C: expected a group such as 'gaussian_noise/3', found {group!r}. "
            "Index the dataset again: its folders are <corruption>/<severity 1 to 5>/<wnid>."
        )
    return name, int(severity)


def _check_corruptions(errors: ErrorBySeverity, wanted: list[str]) -> None:
    missing = [name for name in wanted if name not in errors]
    unknown = sorted(set(errors) - set(ALEXNET_ERROR) - set(EXTRA_CORRUPTIONS))
    if missing or unknown:
        raise DataError(
            f"ImageNet-C: expected {len(wanted)} corruptions; "
            + "; ".join(
                f"{what}: {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names
            )
            + ". Fetch or unpack what is missing and predict again."
        )


def _check_severities(corruption: str, error_by_severity: Mapping[int, float]) -> None:
    if sorted(error_by_severity) != list(SEVERITIES):
        raise DataError(
            f"ImageNet-C, {corruption}: expected the severities 1 to 5, found "
            f"{sorted(error_by_severity) or 'none'}. Fetch or unpack what is missing and predict again."
        )


def _mean(values: Iterable[float]) -> float:
    # statistics.mean adds exactly and rounds once, so five equal errors have exactly that mean.
    return float(statistics.mean(list(values)))
