"""ImageNet-C: errors under corruption, relative to the errors of AlexNet."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

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
    """Mean error over the severities divided by AlexNet's mean error; 1 for AlexNet, and it may exceed 1.

    It is a ratio of means, not a mean of ratios.

    Raises:
        DataError: No AlexNet error is known for the corruption, or a severity is missing or unknown.

    Source:
        hendrycks/robustness, ImageNet-C/test.py.
    """
    if corruption not in ALEXNET_ERROR:
        raise DataError(
            f"ImageNet-C: no AlexNet error is published for {corruption!r}, so it cannot count towards mCE. "
            f"Corruptions of mCE: {', '.join(ALEXNET_ERROR)}."
        )
    _check_severities(corruption, error_by_severity)
    return _mean(error_by_severity.values()) / ALEXNET_ERROR[corruption]


def mean_corruption_error(errors: ErrorBySeverity) -> float:
    """mCE: the mean of the 15 corruption errors, lower is better, 1 for AlexNet.

    Args:
        errors: Corruption -> severity -> error, a fraction. The four extra corruptions are ignored.

    Raises:
        DataError: Corruptions or severities are missing or unknown; the message names them.

    Source:
        hendrycks/robustness, ImageNet-C/test.py. The errors of AlexNet are constants.
    """
    _check_corruptions(errors, CORRUPTIONS)
    return _mean(corruption_error(name, errors[name]) for name in CORRUPTIONS)


def mean_accuracy(errors: ErrorBySeverity, corruptions: Sequence[str] = CORRUPTIONS) -> float:
    """Mean accuracy over all pairs of corruption and severity, a fraction; higher is better.

    Args:
        errors: As for `mean_corruption_error`.
        corruptions: Corruptions to average; by default the 15 of mCE, that is 75 pairs.

    Raises:
        DataError: As `mean_corruption_error`.
    """
    _check_corruptions(errors, corruptions)
    for name in corruptions:
        _check_severities(name, errors[name])
    return 1 - _mean(error for name in corruptions for error in errors[name].values())


def errors_by_severity(counts: Mapping[str, Count]) -> dict[str, dict[int, float]]:
    """Corruption -> severity -> error, from the counts of groups such as "gaussian_noise/3".

    Raises:
        DataError: A group has another kind of name.
    """
    errors: dict[str, dict[int, float]] = {}
    for group, count in counts.items():
        name, severity = split_group(group)
        errors.setdefault(name, {})[severity] = (count.n - count.correct) / count.n
    return errors


def split_group(group: str) -> tuple[str, int]:
    """("gaussian_noise", 3) for "gaussian_noise/3".

    Raises:
        DataError: The group is not a name, a slash and a severity from 1 to 5.
    """
    name, slash, severity = group.rpartition("/")
    if not slash or not severity.isdecimal() or int(severity) not in SEVERITIES:
        raise DataError(
            f"ImageNet-C: expected a group such as 'gaussian_noise/3', found {group!r}. "
            "Build the manifest again; the folders must be <corruption>/<severity 1 to 5>/<wnid>."
        )
    return name, int(severity)


def _check_corruptions(errors: ErrorBySeverity, corruptions: Sequence[str]) -> None:
    missing = [name for name in corruptions if name not in errors]
    unknown = sorted(set(errors) - {*CORRUPTIONS, *EXTRA_CORRUPTIONS})
    problems = [f"{kind}: {', '.join(names)}" for kind, names in (("missing", missing), ("unknown", unknown)) if names]
    if problems:
        raise DataError(
            f"ImageNet-C: expected {len(corruptions)} corruptions; {'; '.join(problems)}. Fetch and unpack the missing "
            "archives, then predict again."
        )


def _check_severities(corruption: str, error_by_severity: Mapping[int, float]) -> None:
    if sorted(error_by_severity) != list(SEVERITIES):
        raise DataError(
            f"ImageNet-C, {corruption}: expected the severities 1 to 5, found "
            f"{sorted(error_by_severity) or 'none'}. Fetch and unpack the missing files, then predict again."
        )


def _mean(values: Iterable[float]) -> float:
    # statistics.mean adds exactly and rounds once, so the mean of five equal errors equals each of them.
    return float(statistics.mean(list(values)))
