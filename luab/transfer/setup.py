"""What a fine-tuning begins with and leads to, from the configuration and a finished run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from luab.data.dense.dense_sets import classes_of
from luab.errors import DataError
from luab.files import read_fields
from luab.study.config import Study
from luab.study.recipes import Preprocessing
from luab.study.transfer_recipes import TransferRecipe
from luab.study.transfers import FineTuning, Network
from luab.training.checkpoint import check_weights, load_model, preprocessing_in, read_card
from luab.training.pretrained import read_backbone
from luab.transfer.losses import DenseTask
from luab.transfer.networks import build, load_backbone


@dataclass(frozen=True)
class Setup:
    """One fine-tuning, without its data.

    Attributes:
        name: For messages: its folder below results/transfer.
        folder: Where its files are.
        identity: As recorded in run.json.
        task: What the loss reads.
        network: Head.
        backbone: timm model name.
        arguments: `model_kwargs` of the recipe that the backbone was trained with.
        preprocessing: Mean and standard deviation of the backbone's images.
        classes: Number of classes without background.
        recipe: Of the fine-tuning.
        seed: Of the heads' first weights, the order of images and their augmentation.
        weights: model.safetensors of a run; None for random weights.
        weights_sha256: Of this file.
    """

    name: str
    folder: Path
    identity: dict[str, Any]
    task: DenseTask
    network: Network
    backbone: str
    arguments: dict[str, Any]
    preprocessing: Preprocessing
    classes: int
    recipe: TransferRecipe
    seed: int
    weights: Path | None = None
    weights_sha256: str | None = None

    def card(self) -> dict[str, Any]:
        """The part of run.json that the configuration and the backbone determine; the card of the weights too."""
        return {
            "fine_tuning": self.identity,
            "task": self.task,
            "network": self.network,
            "model_kwargs": self.arguments,
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            "classes": self.classes,
            "recipe": self.recipe.model_dump(mode="json"),
            "backbone_sha256": self.weights_sha256,
        }

    def new_network(self) -> nn.Module:
        """Builds the network with the run's backbone and random heads.

        Raises:
            ConfigError: timm has no such backbone or no feature maps of it.
            DataError: The run's weights are damaged or belong to another model.
        """
        network = self._built()
        if self.weights is not None:
            what = f"{self.weights}: expected the weights of {self.backbone}"
            load_backbone(network, self.backbone, self.arguments, read_backbone(self.weights), what)
        return network

    def trained_network(self) -> nn.Module:
        """Builds the network with the weights of the finished fine-tuning, for evaluation.

        Raises:
            ConfigError: As in `new_network`.
            DataError: The fine-tuning is not finished, or its weights are damaged or of another fine-tuning.
        """
        path = self.folder / "model.safetensors"
        check_weights(path, read_fields(self.folder / "run.json", ["model_sha256"])["model_sha256"])
        network = self._built()
        load_model(path, network, self.identity, "fine_tuning")
        return network.eval()

    def _built(self) -> nn.Module:
        return build(
            "detection" if self.task == "detection" else "segmentation",
            self.network,
            self.backbone,
            self.classes,
            self.recipe,
            self.arguments,
            self.preprocessing,
        )


def setup_of(study: Study, fine_tuning: FineTuning) -> Setup:
    """Reads what a fine-tuning begins with.

    Raises:
        DataError: The run that it begins with is not finished, or its files do not belong together.
    """
    run, transfer = fine_tuning.run, study.transfer[fine_tuning.transfer]
    weights = study.layout.model(run)
    card = read_card(weights)
    if card.get("run") != run.identity():
        raise DataError(f"{weights}: expected the weights of {run.folder}, found another run's. Train that run again.")
    finished = read_fields(study.layout.run_json(run), ["model_sha256"])
    return Setup(
        name=fine_tuning.folder,
        folder=study.layout.fine_tuning(fine_tuning),
        identity=fine_tuning.identity(),
        task=transfer.mode,
        network=transfer.network,
        backbone=run.backbone,
        arguments=card["recipe"]["model_kwargs"],
        preprocessing=preprocessing_in(card, weights),
        classes=len(classes_of(transfer.data)),
        recipe=study.transfer_recipe(fine_tuning),
        seed=run.seed,
        weights=weights,
        weights_sha256=check_weights(weights, finished["model_sha256"]),
    )
