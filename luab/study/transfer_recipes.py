"""The recipe of a fine-tuning for detection or segmentation, config/recipes/transfer/*.yaml."""

from pydantic import Field

from luab.study.recipes import Closed


class TransferRecipe(Closed):
    """How to fine-tune one network on one dense data set; every field changes the result."""

    epochs: int = Field(ge=1, description="Passes over the training set.")
    batch_size: int = Field(ge=1, description="Total over all GPUs and accumulation steps.")
