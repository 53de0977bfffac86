"""The training recipe: one typed, immutable field for every key of config/recipes/*.yaml."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from luab.study.paths import Run

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

    # Built when first read: each of a hundred short processes of a study imports all sections and reads one file.
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_1(cls, given: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[str(info.field_name)].annotation
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, bool) and kind is not bool:
                raise PydanticCustomError("number_type", "Input should be a number, text or section", {"value": value})
        return given


class BeginsWith(Closed):
    """The weights that a training's backbone begins with; random if nothing is given."""

    run: str | None = Field(
        None,
        description="A run of this study, as <dataset>/<backbone>/<supervision>-<lambda>/seed<k>, for example "
        "imagenet/none-0. Backbone and seed may be left out; they are then those of the run that begins.",
    )
    timm: str | None = Field(
        None,
        description="timm's pretrained weights: a name such as resnet50.a1_in1k, a tag of the run's backbone such as "
        "a1_in1k, or `backbone` for the tag in `backbones`.",
    )
    file: Path | None = Field(
        None,
        description="A safetensors file, of timm's names or written by luab. With `timm`, the file has those weights, "
        "and nothing is downloaded.",
    )
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="Expected SHA-256 of the file; other weights are refused."
    )

    @model_validator(mode="after")
    def _is_one(self) -> "BeginsWith":
        if self.run and (self.timm or self.file):
            raise ValueError("`run` cannot be combined with `timm` or `file`; keep one of them")
        if self.sha256 and self.is_random:
            raise ValueError("`sha256` needs `run`, `timm` or `file`, whose weights it describes")
        if self.run:
            try:
                self.first_run(Run("imagenet", "resnet50", "none", 0.0, 0))
            except ValueError as error:
                raise ValueError(
                    f"run {self.run!r} is not <dataset>/[<backbone>/]<supervision>-<lambda>[/seed<k>], for example "
                    f"imagenet/none-0 ({error})"
                ) from error
        return self

    @field_validator("file")
    @classmethod
    def _expanded(cls, file: Path | None) -> Path | None:
        if file is None:
            return None
        if set(str(file)) & set("{}\n\0"):
            raise ValueError(f"{str(file)!r} contains braces, which mark wildcards in Snakemake, or a line break")
        return Path(os.path.expanduser(os.path.expandvars(file)))

    @property
    def is_random(self) -> bool:
        """Whether nothing is loaded."""
        return not (self.run or self.timm or self.file)

    def first_run(self, run: Run) -> Run | None:
        """The run whose weights `run` begins with; None if it begins with other weights."""
        if self.run is None:
            return None
        parts = self.run.split("/")
        seed = parts.pop() if parts[-1].startswith("seed") else f"seed{run.seed}"
        backbone = [] if len(parts) == 3 else [run.backbone]
        return Run.parse("/".join([*parts[:1], *backbone, *parts[1:], seed]))

    def __str__(self) -> str:
        parts = {name: value for name, value in self if value is not None and name != "sha256"}
        return ", ".join(f"{name} {value}" for name, value in parts.items()) or "random weights"


def _named(given: Any) -> Any:
    return {"random": {}, "timm": {"timm": "backbone"}}.get(given, given) if isinstance(given, str) else given


class Preprocessing(Closed):
    """How a model's images are resized and normalised; part of run.json and of the card in model.safetensors.

    Attributes:
        mean: Per colour, of values from 0 to 1; ImageNet's by default.
        std: Standard deviation, likewise.
        interpolation: Resizing in evaluation; of training crops too if `weights` is set.
        weights: timm's name of the weights that need these values; None for luab's own.
        input_px: Side of the images that `weights` was trained on; of a run's images unless its recipe has another.
        crop_pct: Side of the evaluation's centre crop divided by the resized shorter side, likewise.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    weights: str | None = None
    input_px: int | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None


class Recipe(Closed):
    """How to train one backbone family; every field changes the result."""

    epochs: int = Field(ge=1, description="Passes over the training set.")
    batch_size: int = Field(ge=1, description="Total over all GPUs and accumulation steps.")
    input_px: int = Field(
        224, ge=16, description="Side of the network's input; if left out, that of timm's weights in `begins_with`."
    )
    train_px: int | None = Field(
        None, ge=16, description="Side of the network's input in training; null for input_px, as in evaluation."
    )
    crop_pct: Annotated[float, Field(gt=0, le=1)] = Field(
        0.875,
        description="Evaluation: side of the centre crop divided by the resized shorter side; if left out, that of "
        "timm's weights in `begins_with`.",
    )
    crop_scale: tuple[Fraction, Fraction] = Field(
        (0.08, 1.0), description="Training: area of the random crop as a fraction of the image, [smallest, largest]."
    )
    interpolation: Literal["bilinear", "bicubic"] = Field(
        "bicubic", description="Resizing of the training crop; timm's weights have one of their own, see `begins_with`."
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
    compile: bool = Field(
        False,
        description="Compiles the backbone with torch.compile: minutes at the start, faster steps on a GPU. A backbone "
        "that does not compile trains without it; the log and run.json say why.",
    )
    model_kwargs: dict[str, Any] = Field({}, description="Further arguments of timm.create_model.")
    begins_with: Annotated[
        BeginsWith, BeforeValidator(_named, json_schema_input_type=Literal["random", "timm"] | BeginsWith)
    ] = Field(
        BeginsWith.model_validate({}),
        description="Weights that the backbone begins with: `random`; `timm`, those of the backbone's timm tag; or a "
        "section with `run`, `timm` or `file`. The heads always start random. With weights of timm, images have "
        "their mean, standard deviation and interpolation, in training and after, and `input_px` and `crop_pct` "
        "default to theirs.",
    )

    @model_serializer(mode="wrap")
    def _without_compile(self, rest: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out `compile: false`, so that recipes from before this key stay the same, and so do their results."""
        content: dict[str, Any] = rest(self)
        return content if self.compile else {name: value for name, value in content.items() if name != "compile"}

    @property
    def training_px(self) -> int:
        """Side of training crops in pixels."""
        return self.train_px or self.input_px

    @property
    def left_to_weights(self) -> tuple[str, ...]:
        """Keys that the recipe leaves out and weights of timm may decide."""
        return tuple(key for key in ("input_px", "crop_pct") if key not in self.model_fields_set)

    def seen_with(self, preprocessing: Preprocessing) -> "Recipe":
        """The recipe with `input_px` and `crop_pct` of the weights that it begins with, where it leaves them out."""
        given = {key: getattr(preprocessing, key) for key in self.left_to_weights}
        return self.model_copy(update={key: value for key, value in given.items() if value is not None})

    @model_validator(mode="before")
    @classmethod
    def _has_no_old_key(cls, given: Any) -> Any:
        if isinstance(given, dict) and "initial" in given:
            old, digest = given["initial"], given.get("initial_sha256")
            new: dict[Any, Any] = {"imagenet": {"run": "imagenet/none-0"}, "timm": {"timm": "backbone"}}
            section = new.get(old, {}) | ({"sha256": digest} if digest else {})
            text = ", ".join(f"{key}: {value}" for key, value in section.items())
            begins = old if old in ("random", "timm") and not digest else f"{{{text}}}"
            raise ValueError(f"the key `initial` is now `begins_with`; replace it by `begins_with: {begins}`")
        return given

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
                "model; set `begins_with` to choose the weights"
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
