"""The section `demo`: the drawn world that replaces the real data."""

from pydantic import Field

from luab.study.recipes import Closed, Fraction


class WorldSizes(Closed):
    """Number of pictures in each part of the drawn world, per class unless the description says otherwise."""

    train: int = Field(34, ge=1, description="Training images per class.")
    val: int = Field(8, ge=1, description="Validation images per class.")
    v2: int = Field(4, ge=1, description="Images of ImageNet-V2 per class.")
    adversarial: int = Field(4, ge=1, description="Images of ImageNet-A per class of its list.")
    renditions: int = Field(4, ge=1, description="Images of ImageNet-R per class of its list.")
    strange: int = Field(5, ge=1, description="Images of ImageNet-O per class of its list.")
    sketches: int = Field(3, ge=1, description="Images of ImageNet-Sketch per class.")
    corrupted: int = Field(1, ge=1, description="Validation images per class that ImageNet-C is made of.")
    objectnet: int = Field(8, ge=1, description="Images of ObjectNet per folder.")
    siscore: int = Field(2, ge=1, description="Images of SI-Score per class and value of a factor.")
    in9: int = Field(6, ge=1, description="Foregrounds of the Backgrounds Challenge per ImageNet-9 class.")
    wsol_val: int = Field(3, ge=1, description="Images of ImageNet-V2 threshold-0.7 per class.")
    coco_train: int = Field(160, ge=1, description="Training images of COCO, in all.")
    coco_val: int = Field(80, ge=1, description="Validation images of COCO, in all.")


class Demo(Closed):
    """The drawn world that replaces the real data; absent in the full study."""

    seed: int = Field(0, ge=0, description="Seed of the drawing.")
    size_px: int = Field(64, ge=32, description="Side of a typical image.")
    # SOURCE: 544,546 of ILSVRC's 1,281,167 training images have a box.
    boxed: Fraction = Field(0.425, description="Share of training images with boxes.")
    sizes: WorldSizes = Field(WorldSizes.model_validate({}), description="Number of pictures in each part.")
