"""The recipe of a fine-tuning: one typed, immutable field for every key of config/recipes/transfer/*.yaml."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from luab.study.recipes import Closed, Fraction, Positive


class TransferRecipe(Closed):
    """How to fine-tune one backbone family on detection or segmentation; every field changes the result."""

    epochs: int = Field(ge=1, description="Passes over the training images.")
    batch_size: int = Field(ge=1, description="Images per step, total over all GPUs.")
    shorter_px: int = Field(ge=16, description="Shorter side of an image after resizing, aspect ratio kept.")
    longest_px: int = Field(
        ge=16, description="Upper limit of the longer side; an image that exceeds it is resized to this longer side."
    )
    scale_jitter: tuple[Positive, Positive] = Field(
        (1.0, 1.0), description="Training: random factor on the resized image's sides, [smallest, largest]."
    )
    crop_px: int | None = Field(
        None,
        ge=16,
        description="Training: side of a random square crop; smaller images are padded. Segmentation needs it, because "
        "its batches have one size; null for no crop.",
    )
    flip: Fraction = Field(0.5, description="Training: probability of a horizontal flip.")
    optimizer: str = Field(description="Name of a timm optimiser, for example sgd or adamw.")
    lr: Positive = Field(description="Peak learning rate at this batch_size.")
    weight_decay: float = Field(ge=0, description="Weight decay; timm does not apply it to biases and norm layers.")
    momentum: Fraction = Field(0.9, description="Momentum of SGD; other optimisers ignore it.")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Factor on the learning rate from each layer of the backbone to the layer before it."
    )
    schedule: Literal["cosine", "steps", "poly"] = Field(
        "cosine", description="Learning rate after the warm-up: cosine to 0, steps of a factor 0.1, or polynomial to 0."
    )
    decay_epochs: tuple[float, ...] = Field((), description="With `steps`: the epochs at which the rate falls.")
    power: Positive = Field(0.9, description="With `poly`: exponent of the remaining fraction of steps.")
    warmup_steps: int = Field(0, ge=0, description="Steps of the linear warm-up.")
    warmup_factor: Annotated[float, Field(gt=0, le=1)] = Field(
        0.001, description="Learning rate of the first warm-up step, as a fraction of lr."
    )
    clip_grad: Positive | None = Field(None, description="Maximum gradient norm; null turns clipping off.")
    amp: Literal["none", "bfloat16", "float16"] = Field("none", description="Mixed precision on a GPU.")
    drop_path: Fraction = Field(0.0, description="Stochastic depth rate of the backbone.")
    frozen_norm: bool = Field(
        False, description="Keeps BatchNorm of the backbone as it is: statistics, weights and biases."
    )
    frozen_stages: int = Field(
        0, ge=0, description="Number of timm's feature levels of the backbone, from the first one, that do not train."
    )
    output_stride: Literal[8, 16, 32] = Field(
        32, description="Segmentation with a CNN: image side divided by the side of its last feature map (dilation)."
    )
    head_channels: int = Field(256, ge=8, description="Width of the feature pyramid or of the segmentation head.")
    box_head_channels: int = Field(1024, ge=8, description="Detection: width of the two layers of the box head.")
    anchors_px: tuple[int, ...] = Field(
        (32, 64, 128, 256, 512),
        description="Detection: side of the anchors of each pyramid level, finest first; the last level is a "
        "subsampled copy of the level before it.",
    )
    aspect_ratios: tuple[Positive, ...] = Field((0.5, 1.0, 2.0), description="Detection: height / width of anchors.")
    rpn_proposals: int = Field(
        1000, ge=1, description="Detection: proposals kept per image in evaluation; twice as many in training."
    )
    rpn_samples: int = Field(256, ge=1, description="Detection: anchors per image that the loss of the RPN samples.")
    box_samples: int = Field(512, ge=1, description="Detection: proposals per image that the box head trains on.")
    auxiliary: float = Field(
        0.0,
        ge=0,
        description="Segmentation: weight of the loss of a second head on an earlier feature map; 0 for none.",
    )

    @model_validator(mode="after")
    def _agrees(self) -> "TransferRecipe":
        smallest, largest = self.scale_jitter
        if smallest > largest:
            raise ValueError(f"scale_jitter {[smallest, largest]} is not [smallest, largest]")
        if self.shorter_px > self.longest_px:
            raise ValueError(f"shorter_px {self.shorter_px} is larger than longest_px {self.longest_px}")
        if (self.schedule == "steps") != bool(self.decay_epochs):
            raise ValueError("`decay_epochs` lists the epochs of `schedule: steps`, and of no other schedule")
        if list(self.decay_epochs) != sorted(set(self.decay_epochs)) or not all(
            0 < epoch < self.epochs for epoch in self.decay_epochs
        ):
            raise ValueError(f"decay_epochs {list(self.decay_epochs)} are not in order, above 0 and below epochs")
        if self.frozen_stages and not self.frozen_norm:
            raise ValueError("`frozen_stages` needs `frozen_norm: true`, or their BatchNorm statistics would change")
        if len(self.anchors_px) < 2:
            raise ValueError(
                "anchors_px needs at least two levels, of which the last one has no feature map of its own"
            )
        return self

    @property
    def pyramid_levels(self) -> int:
        """Number of levels of the feature pyramid that have a feature map of their own."""
        return len(self.anchors_px) - 1
