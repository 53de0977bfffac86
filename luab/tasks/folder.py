"""Your own images: any classes, one label per image, points from any source."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from luab.errors import ConfigError
from luab.files import read_fields
from luab.study.config import Folder, Study
from luab.study.paths import Run, card
from luab.tasks import Task

if TYPE_CHECKING:
    import pandas as pd

    from luab.data.images.imagenet import ImageNetAB


class OwnImages(Task):
    """The user's own images."""

    name, title, byproducts = "folder", "your own images", "folder_ab"
    targets_read, in_the_paper = ("folder_train", "folder_val"), False

    def names(self, study: Study) -> dict[str, Any]:
        """The names of the class folders, from the card of the manifest."""
        return {"label_names": read_fields(card(study.layout.manifest(self.train)), ("names",))["names"]}

    def classes(self, study: Study) -> int:
        """Number of classes, from the card of the manifest."""
        return len(self.names(study)["label_names"])

    def own_byproducts(self, study: Study) -> Path | None:
        """The file that the config names."""
        return section(study).byproducts

    def index_options(self, study: Study) -> dict[str, Any]:
        """Folder of the images, unit of the points and, if there are any, kinds of points."""
        folder = section(study)
        return {"root": folder.images, "unit": folder.points} | ({"kinds": folder.kinds} if folder.kinds else {})

    def test_inputs(self, study: Study) -> list[Path]:
        """The card of the points that people recorded, which test sets are compared with."""
        return [card(study.layout.target("click", self.name))]

    def training_set(
        self, study: Study, run: Run, root: Path, rows: "pd.DataFrame", targets: Path | None, inputs: dict[str, str]
    ) -> "ImageNetAB":
        """See `Task.training_set`."""
        from luab.data.images.image_files import check_images
        from luab.data.images.imagenet import ImageNetAB

        check_images(root, rows["path"].to_numpy())
        recipe, column = study.recipe(run.backbone, self.name), study.supervision(run).column
        return ImageNetAB(root, rows, targets, recipe, run.seed, column=column)

    def recorded_points(self, study: Study, rows: "pd.DataFrame") -> Any:
        """The points of the supervision click."""
        from luab.data.images.imagenet import points_of

        return points_of(rows["image_id"].to_numpy(), study.layout.target("click", self.name))


def section(study: Study) -> Folder:
    """The section of the config; ConfigError if there is none."""
    if study.folder is None:
        raise ConfigError("The configuration has no section `folder`. `luab init` writes one for your own images.")
    return study.folder


TASK = OwnImages()
