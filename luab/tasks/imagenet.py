"""ImageNet-1k and ImageNet-AB: one label and at most one point per image."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from luab.study.config import Study
from luab.study.paths import Run
from luab.tasks import Task

if TYPE_CHECKING:
    import pandas as pd

    from luab.data.images.imagenet import ImageNetAB

CLASSES = 1000


class ImageNet(Task):
    """ImageNet-1k."""

    name, title, byproducts = "imagenet", "ImageNet-1k", "imagenet_ab"
    packable, hub_name = True, "imagenet-1k"

    def classes(self, study: Study) -> int:
        """1000."""
        return CLASSES

    def names(self, study: Study) -> dict[str, Any]:
        """The wnids, and the name of each."""
        from luab.data.manifests.labels import class_names, wnids

        return {"label_names": list(wnids()), "label_descriptions": dict(zip(wnids(), class_names(), strict=True))}

    def settings(self, study: Study) -> dict[str, str]:
        """How images are decoded."""
        return {"decoding": study.decoding}

    def changes(self, study: Study) -> str:
        """The decoding unless it is exact, and the share of images that no training sees."""
        decoding = "" if study.decoding == "exact" else study.decoding
        held_out = f"held out {study.held_out_byproducts:g}" if study.held_out_byproducts else ""
        return " ".join(filter(None, [decoding, held_out]))

    def training_set(
        self, study: Study, run: Run, root: Path, rows: "pd.DataFrame", targets: Path | None, inputs: dict[str, str]
    ) -> "ImageNetAB":
        """Reads packed images if the study packs them; see `Task.training_set`."""
        import pyarrow as pa

        from luab.data.images.image_files import check_images
        from luab.data.images.imagenet import ImageNetAB
        from luab.data.images.pack import Pack

        pack = None
        if study.packing is not None:
            pack = Pack(study.layout.pack(self.train), study.packing, pa.array(rows["image_id"]))
            inputs["pack"] = pack.card["sha256"]
        else:
            check_images(root, rows["path"].to_numpy())
        recipe, column = study.recipe(run.backbone), study.supervision(run).column
        return ImageNetAB(root, rows, targets, recipe, run.seed, study.decoding, pack, column)


TASK = ImageNet()
