"""The training recipe: one typed, immutable field for every key of config/recipes/*.yaml."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]

_NUMBER = r"\d+(?:\.\d+)?"
_POLICIES = (
    rf"(?:original|originalr|v0|v0r|3a)(?:-mstd{_NUMBER})?",
    rf"rand(?:-(?:m\d+|n[1-9]|p{_NUMBER}|mstd{_NUMBER}|mmax\d+|inc[01]|t(?:weights|3a|3aw)))*",
)
_OF_WEIGHTS = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "features_only",
)  # fmt: skip


class Closed(BaseModel):
    """A section of the configuration; unknown keys are an error, and values cannot change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_1(cls, given: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, bool) and kind is not bool:
                raise PydanticCustomError("number_type", "Input should be a number, text or section", {"value": value})
        return given


class Preprocessing(Closed):
    """How a model's images are resized and normalised; part of run.json and of the card in model.safetensors.

    Attributes:
        mean: Per colour, of values from 0 to 1; ImageNet's by default.
        std: Standard deviation, likewise.
        interpolation: Resizing in evaluation; of training crops too if `weights` is set.
        weights: timm's name of the weights that need these values; None for luab's own.
        input_px: Side of the images that `weights` was trained on; a run uses its recipe's.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    weights: str | None = None
    input_px: int | None = None


class Recipe(Closed):
    """How to train one backbone family; every field changes the result."""

    epochs: int = Field(ge=1, description="Passes over the training set.")
    batch_size: int = Field(ge=1, description="Total over all GPUs and accumulation steps.")
    input_px: int = Field(224, ge=16, description="Side of the network's input.")
    train_px: int | None = Field(
        None, ge=16, description="Side of the network's input in training; null for input_px, as in evaluation."
    )
    crop_pct: Annotated[float, Field(gt=0, le=1)] = Field(
        0.875, description="Evaluation: side of the centre crop divided by the resized shorter side."
    )
    crop_scale: tuple[Fraction, Fraction] = Field(
        (0.08, 1.0), description="Training: area of the random crop as a fraction of the image, [smallest, largest]."
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        "bicubic", description="Resizing of the training crop; timm's weights have one of their own, see `initial`."
    )
    eval_interpolation: Literal["bilinear", "bicubic"] = Field(
        "bilinear",
        description="Resizing in evaluation of a model that began with random weights; other weights have their own.",
    )
    optimizer: str = Field(description="Name of a timm optimiser, for example sgd or adamw.")
    lr: Positive = Field(description="Peak learning rate at this batch_size.")
    weight_decay: float = Field(ge=0, description="Weight decay; timm does not apply it to biases and norm layers.")
    momentum: Fraction = Field(0.9, description="Momentum of SGD; other optimisers ignore it.")
    warmup_epochs: float = Field(5, ge=0, description="Length of the linear warm-up, in epochs.")
    warmup_lr: Positive | None = Field(None, description="Learning rate at the start; null for lr / 100.")
    min_lr: float = Field(0.0, ge=0, description="Learning rate at the end of the cosine schedule.")
    classification: Literal["cross_entropy", "bce"] = Field(
        "cross_entropy",
        description="Loss of the class logits; bce is the mean binary cross-entropy over images and classes, which "
        "multi-label data always have.",
    )
    bce_threshold: Fraction | None = Field(
        None,
        description="With bce, mixed labels above this value count as 1 and others as 0; null keeps them as they are.",
    )
    label_smoothing: Fraction = Field(0.0, description="Label smoothing, of one label per image.")
    mixup: float = Field(0.0, ge=0, description="Mixup alpha; 0 turns mixup off.")
    cutmix: float = Field(0.0, ge=0, description="CutMix alpha; 0 turns CutMix off.")
    auto_augment: str | None = Field(
        None,
        description="timm's augmentation policy, such as rand-m9-mstd0.5-inc1, original or 3a; null turns it off. "
        "Points move with the pixels; a point that leaves the image counts as absent.",
    )
    color_jitter: float | None = Field(
        None,
        ge=0,
        description="Strength of the jitter of brightness, contrast and saturation; null turns it off. timm combines "
        "it with the policy 3a only.",
    )
    random_erasing: Fraction = Field(
        0.0, description="Probability that boxes of an image are erased; a point in such a box counts as absent."
    )
    erasing_mode: Literal["const", "rand", "pixel"] = Field(
        "pixel", description="Fill of erased boxes: the mean colour, one random colour per box, or one per pixel."
    )
    erasing_count: int = Field(1, ge=1, description="Largest number of erased boxes per image; they share the area.")
    repeated_augmentation: int = Field(
        1,
        ge=1,
        description="Views of each image in a batch. The number of steps stays the same, so that with n views an "
        "epoch has one n-th of the images.",
    )
    drop_path: Fraction = Field(0.0, description="Stochastic depth rate.")
    ema_decay: Fraction | None = Field(
        None, description="Decay of the exponential moving average of the weights; null turns it off."
    )
    clip_grad: Positive | None = Field(None, description="Maximum gradient norm; null turns clipping off.")
    amp: Literal["none", "bfloat16", "float16"] = Field("none", description="Mixed precision on a GPU.")
    channels_last: bool = Field(False, description="Channels-last memory format: faster convolutions on GPUs and CPUs.")
    sync_batchnorm: bool = Field(
        False, description="BatchNorm statistics over all processes; several GPUs only, no effect with one process."
    )
    model_kwargs: dict[str, Any] = Field({}, description="Further arguments of timm.create_model.")
    initial: Literal["random", "imagenet", "timm"] = Field(
        "random",
        description="Initial weights of the backbone: random; imagenet = this study's ImageNet baseline with the same "
        "backbone and seed; timm = the pretrained weights of the backbone's timm tag. The heads always start random. "
        "With timm, images have the mean, standard deviation and interpolation of its weights, in training and after.",
    )
    initial_sha256: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="Expected SHA-256 of timm's model.safetensors; other weights are refused.",
    )

    @property
    def training_px(self) -> int:
        """Side of training crops in pixels."""
        return self.train_px or self.input_px

    @field_validator("model_kwargs")
    @classmethod
    def _exponents_are_numbers(cls, given: dict[str, Any]) -> dict[str, Any]:
        plain = re.compile(r"[-+]?\d+[eE][-+]?\d+")  # 1e-3, which YAML takes for text
        return {k: float(v) if isinstance(v, str) and plain.fullmatch(v) else v for k, v in given.items()}

    @model_validator(mode="after")
    def _augments(self) -> "Recipe":
        policy = self.auto_augment
        if policy is not None and not any(re.fullmatch(form, policy) for form in _POLICIES):
            blends = " (AugMix blends several copies of an image, so that the object has no single place)"
            raise ValueError(
                f"auto_augment {policy!r}{blends if policy.startswith('augmix') else ''} is not one of timm's policies "
                "that luab can use: 'rand-...' with m, n, p, mstd, mmax, inc and t (for example "
                "'rand-m9-mstd0.5-inc1'), or 'original', 'originalr', 'v0', 'v0r' or '3a', with or without '-mstd0.5'"
            )
        if policy is not None and "3a" not in policy and self.color_jitter is not None:
            raise ValueError(
                f"color_jitter {self.color_jitter:g} has no effect: timm turns it off with auto_augment {policy!r}; "
                "set color_jitter to null"
            )
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ValueError("mixup and cutmix mix pairs of images: batch_size must be even")
        return self

    @model_validator(mode="after")
    def _loads_nothing(self) -> "Recipe":
        if forbidden := sorted(set(self.model_kwargs) & set(_OF_WEIGHTS)):
            raise ValueError(
                f"model_kwargs: {', '.join(forbidden)} would make timm load other weights or build another kind of "
                "model; set `initial` to choose the initial weights"
            )
        return self

    @model_validator(mode="after")
    def _ranges_agree(self) -> "Recipe":
        smallest, largest = self.crop_scale
        if not 0 < smallest <= largest:
            raise ValueError(f"crop_scale {list(self.crop_scale)} is not [smallest, largest] with both above 0")
        if self.bce_threshold is not None and self.classification != "bce":
            raise ValueError(
                f"bce_threshold {self.bce_threshold:g} has no effect with classification {self.classification!r}; set "
                "it to null, or classification to bce"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} is not less than epochs {self.epochs}; the learning rate would "
                "never reach its peak"
            )
        return self
