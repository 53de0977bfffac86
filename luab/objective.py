"""The objective: a sum of named, weighted terms; and mixup and CutMix with points.

The paper's objective is classification plus lambda times the regression of points, see `LuabLoss`.
"""

import copy
import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from timm.data import Mixup
from timm.data.mixup import cutmix_bbox_and_lam, mixup_target
from timm.loss import BinaryCrossEntropy
from torch import nn
from torch.nn import functional

from luab.errors import ConfigError, DataError
from luab.model import IMAGENET_CLASSES
from luab.shapes import Batch, Outputs, Points
from luab.study.config import Recipe


class Term(ABC):
    """One named, weighted term of an objective.

    Args:
        weight: Factor in the objective, for a byproduct term lambda.

    A subclass may have further arguments, which are keys of its supervision (`Supervision.settings`).

    Attributes:
        name: Name of its column in log.csv.
        counted: Column of log.csv for the mean of `count` per image; None if the term is a plain mean over images.
        shared: The model's output at which its gradient is compared with the one of classification.
        classification: The first term of the objective; set by `Objective`.
    """

    name: ClassVar[str]
    counted: ClassVar[str | None] = None
    shared: ClassVar[str] = "pooled"
    classification: "Classification"

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def count(self, batch: Batch) -> torch.Tensor:
        """Returns what the term's sum over a batch is divided by, for example its number of points; a scalar.

        Called if `counted` is set: before mixup for the log, and after mixup for the denominator.
        """
        raise NotImplementedError(f"{type(self).__name__}: `counted` is set, so define `count`.")

    @abstractmethod
    def __call__(self, outputs: Outputs, batch: Batch, denominator: torch.Tensor | None) -> torch.Tensor:
        """Computes the term for a batch or for one part of it; a scalar, without the weight.

        A term with `counted` returns a sum over the batch divided by the denominator, and any other term a mean over
        images. Parts have equal numbers of images, so the mean over parts is in both cases the term of the batch.

        Args:
            outputs: What the model returns for the images of the part.
            batch: The part.
            denominator: `count` of the whole batch divided by the number of parts; None for the `count` of `batch`.
        """


class Classification(Term):
    """Cross-entropy, or the binary cross-entropy of each class, as always for multi-label data; its weight is 1.

    Args:
        label_smoothing: Applied to hard labels only; soft targets must already be smoothed.
        multilabel: Whether an image can have several labels.
        bce: timm's binary cross-entropy of one-hot or mixed labels; None for cross-entropy.

    ASSUME: for multi-label data, classification is the mean of the binary cross-entropy over images and classes, and
    the points of all classes have equal weight.
    """

    name = "classification"

    def __init__(
        self, label_smoothing: float = 0.0, multilabel: bool = False, bce: BinaryCrossEntropy | None = None
    ) -> None:
        super().__init__(1.0)
        self.label_smoothing = label_smoothing
        self.multilabel = multilabel
        self.bce = bce

    def __call__(self, outputs: Outputs, batch: Batch, denominator: torch.Tensor | None) -> torch.Tensor:
        logits, labels = outputs["logits"].float(), batch["labels"]
        if self.multilabel:
            return functional.binary_cross_entropy_with_logits(logits, labels)
        if self.bce is not None:
            loss: torch.Tensor = self.bce(logits, labels)
            return loss
        smoothing = self.label_smoothing if labels.ndim == 1 else 0.0
        return functional.cross_entropy(logits, labels, label_smoothing=smoothing)

    def of_each(self, outputs: Outputs, batch: Batch) -> torch.Tensor:
        """Computes the loss of each image, [batch], for data with one label per image; their mean is the term."""
        logits, labels = outputs["logits"].float(), batch["labels"]
        if self.bce is not None:
            each: Any = copy.copy(self.bce)
            each.reduction = "none"
            per_class: torch.Tensor = each(logits, labels)
            return per_class.mean(dim=1)
        smoothing = self.label_smoothing if labels.ndim == 1 else 0.0
        return functional.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")


class PointRegression(Term):
    """The paper's use of byproducts: smooth-L1 of the points that survived the crop, see `point_loss`."""

    name, counted = "byproduct", "points"

    def count(self, batch: Batch) -> torch.Tensor:
        """Returns the sum of the points' weights."""
        return batch["weights"].sum()

    def __call__(self, outputs: Outputs, batch: Batch, denominator: torch.Tensor | None) -> torch.Tensor:
        if "points" not in outputs and not self.weight:  # a baseline
            return outputs["logits"].new_zeros(())
        return point_loss(outputs["points"], batch["points"], batch["weights"], denominator)


class Objective(nn.Module):
    """A sum of named, weighted terms.

    Args:
        terms: Classification first.

    Attributes:
        parts: Names of the values that `forward` returns: "loss" and the terms.
        counted: Names of the counts that `counts` returns.
        ratios: Names of the gradient ratios, one for each term with a weight above 0, except classification.

    Raises:
        ConfigError: Two terms have the same name.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        self.terms = tuple(terms)
        for term in terms:
            if isinstance(terms[0], Classification):
                term.classification = terms[0]
        self.parts = ("loss", *(term.name for term in terms))
        self.counted = tuple(term.counted for term in terms if term.counted is not None)
        self.compared = tuple(term for term in terms[1:] if term.weight > 0)
        self.ratios = tuple(f"{term.name}_gradient_ratio" for term in self.compared)
        if len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"objective: the terms need different names, found {', '.join(self.columns)}.")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all values that log.csv has per epoch."""
        return (*self.parts, *self.counted, *self.ratios)

    def counts(self, batch: Batch) -> torch.Tensor:
        """Returns `count` of each term that has one: float [counted]."""
        counts = [term.count(batch) for term in self.terms if term.counted is not None]
        return torch.stack(counts) if counts else batch["images"].new_zeros(0, dtype=torch.float32)

    def forward(
        self, outputs: Outputs, batch: Batch, denominators: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Computes the named parts of the loss; optimise "loss".

        Args:
            outputs: What the model returns, see `LuabModel`.
            batch: As the loader returns it: labels int64 [batch], class distributions [batch, classes], or multi-label
                0 and 1 [batch, classes]; points [batch, 2] or [batch, k, 2], ignored where their weight is 0; weights
                [batch] or [batch, k], 0 where no point survived, otherwise 1 or the mixing weight.
            denominators: [counted]. For one part of a larger batch, pass `counts` of the larger batch divided by the
                number of parts: the mean over the parts then equals the larger batch's loss, however its points are
                distributed over the parts. None means `counts(batch)`.

        Returns:
            "loss" and each term by its name; a term is 0 if it has nothing to average, for example no point survived.

        Raises:
            ConfigError: A term needs an output of the model or a part of the batch that is missing.
        """
        parts, place = {}, 0
        for term in self.terms:
            denominator = None
            if term.counted is not None and denominators is not None:
                denominator, place = denominators[place], place + 1
            try:
                parts[term.name] = term(outputs, batch, denominator)
            except KeyError as error:
                raise ConfigError(
                    f"objective: the term {term.name} needs {error}, found the model's outputs {', '.join(outputs)} "
                    f"and in the batch {', '.join(batch)}. Add a head to the model (luab.with_byproduct_head), or let "
                    "the data set return this item."
                ) from error
        loss = parts[self.terms[0].name] * self.terms[0].weight
        for term in self.terms[1:]:
            loss = loss + term.weight * parts[term.name]
        return {"loss": loss, **parts}

    def squared_gradients(
        self,
        parts: Mapping[str, torch.Tensor],
        outputs: Outputs,
        scale: Callable[[torch.Tensor], torch.Tensor] = lambda loss: loss,
    ) -> torch.Tensor:
        """Computes squared norms of gradients with respect to the shared feature, before the graph is freed.

        They add up over the parts of a batch, because each image has a feature of its own; so the roots of their sums
        are the norms for the whole batch, and `gradient_ratios` does not depend on how a batch is divided.

        Args:
            parts: From `forward`.
            outputs: The model's outputs that `parts` were computed from.
            scale: Multiplies a loss by the gradient scale of float16; cancels in the ratio.

        Returns:
            float32 [2, ratios]: of weight x term, and of classification.
        """
        rows = []
        for term in self.compared:
            values = term.weight * parts[term.name], parts[self.terms[0].name]
            rows.append([_squared_gradient(scale(value), outputs[term.shared]) for value in values])
        if not rows:
            return outputs["logits"].new_zeros((2, 0), dtype=torch.float32)
        return torch.stack([torch.stack(row) for row in rows], dim=1)


def _squared_gradient(value: torch.Tensor, feature: torch.Tensor) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(value, feature, retain_graph=True, allow_unused=True)
    return value.new_zeros(()).float() if gradient is None else gradient.float().square().sum()


def gradient_ratios(squared: torch.Tensor) -> list[float]:
    """Returns each term's norm over classification's, from sums of `Objective.squared_gradients`; NaN if not finite."""
    term, classification = squared.double().sqrt()
    ratios: list[float] = (term / classification).tolist()
    return [ratio if abs(ratio) < float("inf") else float("nan") for ratio in ratios]


class LuabLoss(Objective):
    """loss = classification + weight x smooth-L1 of the points that survived the crop.

    Call it with what the model and the loader return: `LuabLoss(1.0)(model(images), batch)["loss"]`; see `forward`.

    Args:
        weight: lambda; 0 gives plain classification.
        label_smoothing: See `Classification`.
        multilabel: Whether an image can have several labels.
    """

    def __init__(self, weight: float, label_smoothing: float = 0.0, multilabel: bool = False) -> None:
        super().__init__([Classification(label_smoothing, multilabel), PointRegression(weight)])


def objective_of(
    weight: float | None,
    recipe: Recipe,
    multilabel: bool,
    use: str = "regress",
    settings: Mapping[str, Any] | None = None,
) -> Objective:
    """Returns the objective of a run: classification, and the term of its use of byproducts.

    Args:
        weight: lambda; None for a baseline, which has no such term.
        recipe: Loss of the class logits, label smoothing.
        multilabel: See `Classification`.
        use: See `term_named`.
        settings: Further arguments of the term, see `Supervision.settings`.

    Raises:
        ConfigError: There is no such use.
    """
    bce = None
    if recipe.classification == "bce":
        bce = BinaryCrossEntropy(recipe.label_smoothing, recipe.bce_threshold)
    terms: list[Term] = [Classification(recipe.label_smoothing, multilabel, bce)]
    if weight is not None:
        terms.append(term_named(use)(weight, **(settings or {})))
    return Objective(terms)


def term_named(use: str) -> type[Term]:
    """Returns the term of a use of byproducts: "regress", or the one in `luab/terms/<use>.py`.

    Raises:
        ConfigError: There is no such use.
    """
    if use == "regress":
        return PointRegression
    if importlib.util.find_spec(f"luab.terms.{use}") is None:
        raise ConfigError(f"use: expected regress or the name of a file in luab/terms, found {use!r}.")
    term: type[Term] = importlib.import_module(f"luab.terms.{use}").TERM
    return term


def point_loss(
    predicted: Points, points: torch.Tensor, weights: torch.Tensor, denominator: torch.Tensor | None = None
) -> torch.Tensor:
    """Computes the weighted mean of the smooth-L1 distance over surviving points; 0 if there are none.

    ASSUME: the byproduct loss is smooth-L1 with beta 1, averaged over x and y and then over the batch's surviving
    points.

    Args:
        predicted: [batch, 2 k], one prediction per point, or [batch, 2], compared with all k points of an image.
        points: [batch, 2] or [batch, k, 2] in the same frame.
        weights: [batch] or [batch, k].
        denominator: [], used instead of the sum of the weights.
    """
    if points.ndim == 2:
        points, weights = points.unsqueeze(1), weights.unsqueeze(1)
    distance = functional.smooth_l1_loss(
        predicted.float().view(len(points), -1, 2).expand_as(points), points, reduction="none"
    ).mean(dim=-1)  # [batch, k, 2] -> [batch, k]
    # Absent points are (-1, -1); where() keeps them out of the gradient too.
    total = torch.where(weights > 0, weights * distance, 0).sum()
    count = weights.sum() if denominator is None else denominator
    return total / count.clamp(min=torch.finfo(torch.float32).tiny)


class PointMixup:
    """timm's batch mixup and CutMix, extended to the points of both images.

    ASSUME: in mixup, each image's point counts with the image's mixing weight; in CutMix, a point counts as absent if
    the pasted patch covers it or does not contain it.
    """

    def __init__(self, recipe: Recipe, classes: int = IMAGENET_CLASSES) -> None:
        self.classes = classes
        self.mixup: Any = Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            label_smoothing=recipe.label_smoothing,
            num_classes=classes,
        )

    def __call__(self, batch: Batch) -> Batch:
        """Mixes image i with image n-1-i.

        Args:
            batch: images, normalised [batch, 3, h, w]; labels int64 [batch]; points [batch, 2]; weights [batch].

        Returns:
            images; labels as class distributions [batch, classes]; points of both images [batch, 2, 2], their classes
            as point_labels int64 [batch, 2], and their weights [batch, 2]. If the batch has moments [batch, n, 2],
            those of both images [batch, 2, n, 2], absent like points. If it has ranks [batch], those of both images
            [batch, 2], and how much each image counts as shares [batch, 2].

        Raises:
            DataError: The batch has other parts, for which no mixing rule is known.
        """
        if others := batch.keys() - {"images", "labels", "points", "weights", "ranks", "moments"}:
            raise DataError(
                f"mixup and CutMix: no rule for mixing {', '.join(sorted(others))}. Set mixup and cutmix to 0 in the "
                "recipe, or add a rule to PointMixup."
            )
        images, points, weights = batch["images"], batch["points"], batch["weights"]
        own, other = weights.clone(), weights.flip(0).clone()
        moments = batch.get("moments", points[:, None])
        pasted = moments.flip(0)
        share, use_cutmix = self.mixup._params_per_batch()
        if share < 1 and use_cutmix:
            (top, bottom, left, right), share = cutmix_bbox_and_lam(images.shape, share)
            images[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
            box = (left, top, right, bottom)
            moments = torch.where(_inside(moments, box, images.shape)[..., None], -1, moments)
            pasted = torch.where(_inside(pasted, box, images.shape)[..., None], pasted, -1)
            own, other = own * (moments[..., 0] >= 0).any(dim=1), other * (pasted[..., 0] >= 0).any(dim=1)
        elif share < 1:
            images = images * share + images.flip(0) * (1 - share)
        further = {"moments": torch.stack([moments, pasted], dim=1)} if "moments" in batch else {}
        if "ranks" in batch:
            further["ranks"] = torch.stack([batch["ranks"], batch["ranks"].flip(0)], dim=1)
            further["shares"] = torch.stack([torch.full_like(weights, part) for part in (share, 1 - share)], dim=1)
        return further | {
            "images": images,
            "labels": mixup_target(batch["labels"], self.classes, share, self.mixup.label_smoothing),
            "points": torch.stack([points, points.flip(0)], dim=1),
            "point_labels": torch.stack([batch["labels"], batch["labels"].flip(0)], dim=1),
            "weights": torch.stack([own * share, other * (1 - share)], dim=1),
        }


def _inside(points: Points, box: tuple[int, int, int, int], shape: torch.Size) -> torch.Tensor:
    left, top, right, bottom = box
    # In pixels; a point on the right or lower border belongs to the last pixel.
    x = (points[..., 0] * shape[3]).floor().clamp(max=shape[3] - 1)
    y = (points[..., 1] * shape[2]).floor().clamp(max=shape[2] - 1)
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)
