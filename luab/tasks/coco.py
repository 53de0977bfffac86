"""COCO 2014 and COCO-AB: several labels per image, each with at most one point."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from luab.byproducts.coco_classes import COCO_CLASSES
from luab.files import read_json
from luab.study.config import LABELLING, Coco, Study
from luab.study.paths import Run, card
from luab.tasks import Outputs, Task

if TYPE_CHECKING:
    import pandas as pd

    from luab.data.images.coco import CocoAB


class CocoTask(Task):
    """COCO 2014, multi-label classification."""

    name, title, short, byproducts = "coco", "COCO 2014", "COCO", "coco_ab"
    multi_label, view, targets_read = True, "squash", ("coco_train",)

    def classes(self, study: Study) -> int:
        """80."""
        return len(COCO_CLASSES)

    def names(self, study: Study) -> dict[str, Any]:
        """The names of the classes in the order of their category ids."""
        return {"label_names": [item.name for item in COCO_CLASSES]}

    def outputs(self, study: Study, run: Run) -> Outputs:
        """One point per class; one for all classes if the head is shared."""
        supervision = study.supervision(run)
        points = 0 if not supervision.has_head else 1 if supervision.head == "shared" else len(COCO_CLASSES)
        return Outputs(len(COCO_CLASSES), 2 * points, self.multi_label, supervision.model_use)

    def labelling(self, study: Study) -> str | None:
        """The clicks, unless the study keeps all labels.

        ASSUME: on COCO the clicks decide for every run which labels a crop keeps, so that baseline, control and LUAB
        see the same labels and differ in the regressed points only; the official loader knows only one kind of points.
        """
        return None if _keeps_labels(study) else LABELLING

    def settings(self, study: Study) -> dict[str, str]:
        """Which labels a crop keeps."""
        return {"labels": "as annotated" if _keeps_labels(study) else "of the crop"}

    def changes(self, study: Study) -> str:
        """`keep_labels` if it is set."""
        return "keep_labels" if _keeps_labels(study) else ""

    def training_set(
        self, study: Study, run: Run, root: Path, rows: "pd.DataFrame", targets: Path | None, inputs: dict[str, str]
    ) -> "CocoAB":
        """See `Task.training_set`."""
        from luab.data.images.coco import CocoAB
        from luab.data.images.image_files import check_images

        check_images(root, rows["path"].to_numpy())
        labelling, name = None, self.labelling(study)
        if name is not None:
            labelling = study.layout.target(name, self.name)
            inputs[f"labels_{name}"] = read_json(card(labelling))["sha256"]
        recipe = study.recipe(run.backbone, self.name)
        return CocoAB(root, rows, targets, recipe, run.seed, keep_labels=labelling is None, labelling=labelling)


def _keeps_labels(study: Study) -> bool:
    part = study.part("coco")
    return isinstance(part, Coco) and part.keep_labels


TASK = CocoTask()
