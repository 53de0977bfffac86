"""A training recipe as a typed, closed, frozen object: every line of config/recipes/*.yaml has its field here."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]

_OF_WEIGHTS = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "features_only",
)  # fmt: skip
_LATER = ("sync_batchnorm", "initial", "initial_sha256")


class Closed(BaseModel):
    """A part of the configuration: unknown keys are refused, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Recipe(Closed):
    """How one backbone family is trained; everything here changes the result."""

    epochs: int = Field(ge=1, description="Passes over the training set.")
    batch_size: int = Field(ge=1, description="Total over all GPUs and accumulation steps.")
    input_px: int = Field(224, ge=16, description="Side of the crop that the network sees.")
    crop_pct: Annotated[float, Field(gt=0, le=1)] = Field(
        0.875, description="Evaluation: side of the crop over the resized shorter side."
    )
    crop_scale: tuple[Fraction, Fraction] = Field((0.08, 1.0), description="Training crop's share of the area.")
    interpolation: Literal["bilinear", "bicubic"] = Field("bicubic", description="Of the training crop.")
    optimizer: str = Field(description="timm optimiser name, e.g. sgd, adamw.")
    lr: Positive = Field(description="Peak learning rate, for the batch size above.")
    weight_decay: float = Field(ge=0, description="As timm applies it: not on biases and norms.")
    momentum: Fraction = Field(0.9, description="Of SGD; ignored by others.")
    warmup_epochs: float = Field(5, ge=0, description="Linear warm-up.")
    min_lr: float = Field(0.0, ge=0, description="End of the cosine.")
    label_smoothing: Fraction = Field(0.0, description="Of the cross-entropy.")
    mixup: float = Field(0.0, ge=0, description="Alpha; 0 is off.")
    cutmix: float = Field(0.0, ge=0, description="Alpha; 0 is off.")
    auto_augment: str | None = Field(
        None,
        description="timm policy that keeps geometry, e.g. 3a; others would move the object off its click.",
    )
    color_jitter: float | None = Field(None, ge=0, description="Brightness, contrast, saturation.")
    drop_path: Fraction = Field(0.0, description="Stochastic depth.")
    ema_decay: Fraction | None = Field(None, description="Average of the weights; null is off.")
    clip_grad: Positive | None = Field(None, description="Gradient norm; null is off.")
    amp: Literal["none", "bfloat16", "float16"] = Field("none", description="Mixed precision on a GPU.")
    channels_last: bool = Field(False, description="Memory format; faster convolutions, on CPUs too.")
    sync_batchnorm: bool = Field(
        False, description="BatchNorm over the forward passes of all processes; on GPUs only, alike for one process."
    )
    model_kwargs: dict[str, Any] = Field({}, description="Passed to timm.create_model.")
    initial: Literal["random", "imagenet", "timm"] = Field(
        "random",
        description="Weights to begin with: imagenet = the study's own ImageNet baseline of the same backbone and "
        "seed; timm = the pretrained weights of the backbone's timm tag. The heads are new in either case.",
    )
    initial_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="Of timm's model.safetensors; other weights are refused."
    )

    @model_validator(mode="after")
    def _keeps_geometry(self) -> "Recipe":
        if self.auto_augment and not re.fullmatch(r"3a(-mstd[0-9.]+)?", self.auto_augment):
            raise ValueError(
                f"auto_augment {self.auto_augment!r} shears, shifts or turns the image, and the click would "
                "stay behind; use '3a' (colour only) or null"
            )
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ValueError("mixup and cutmix pair images: batch_size must be even")
        return self

    @model_validator(mode="after")
    def _loads_nothing(self) -> "Recipe":
        if found := sorted(set(self.model_kwargs) & set(_OF_WEIGHTS)):
            raise ValueError(
                f"model_kwargs: {', '.join(found)} would make timm load other files or build another kind of model; "
                "weights to begin with are named by `initial`"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A key that came later is not written at its default: results of a recipe that lacks it stay its results.
        content: dict[str, Any] = whole(self)
        defaults = type(self).model_fields
        return {k: v for k, v in content.items() if k not in _LATER or v != defaults[k].default}

    @model_validator(mode="after")
    def _ranges_agree(self) -> "Recipe":
        smallest, largest = self.crop_scale
        if not 0 < smallest <= largest:
            raise ValueError(f"crop_scale {list(self.crop_scale)} is not [smallest, largest], both above 0")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} leaves nothing of {self.epochs} epochs; the peak "
                "learning rate would never be reached"
            )
        return self
