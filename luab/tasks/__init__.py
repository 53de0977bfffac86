"""Tasks: what differs between the data sets that a model can be trained on, one module for each.

No other room asks for a data set by its name. To add one, write a module with a subclass of `Task` and its instance
`TASK`, and a section in `luab.study.config`. Loaded by name, so that the code digest of a training covers its own task
only; heavy imports are inside the functions, because the plan reads tasks too.
"""

import importlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from luab.errors import ConfigError, did_you_mean
from luab.study.config import Study
from luab.study.paths import Run, card

if TYPE_CHECKING:
    import pandas as pd

    from luab.data.images.training_images import TrainingImages

NAMES = ("imagenet", "coco", "folder")
"""Every data set that can be trained on; the name is the module's, the config section's and the run's."""


class Outputs(NamedTuple):
    """Outputs of a run's model.

    Attributes:
        classes: Number of class logits.
        points: Outputs of the byproduct head: two per predicted point, 0 for no head.
        multi_label: Whether an image can have several labels.
        use: What the model does with byproducts, see `LuabModel`.
    """

    classes: int
    points: int
    multi_label: bool
    use: str = "regress"


class Task(ABC):
    """A data set that can be trained on.

    Attributes:
        name: Name in the config, in runs and in folders.
        title: Name for people.
        short: Name in headings next to ImageNet's, which has none.
        byproducts: Name of the index of its byproducts.
        multi_label: Whether an image can have several labels, each with a point.
        view: How its validation images become squares: "center" (centre crop) or "squash" (resized without a crop).
        packable: Whether `packing` applies to its training images.
        hub_name: Its name on the Hugging Face Hub; None if it has none.
        in_the_paper: Whether the paper trains on it.
        targets_read: Manifests that its supervisions read in addition to the index.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    short: ClassVar[str] = ""
    byproducts: ClassVar[str]
    multi_label: ClassVar[bool] = False
    view: ClassVar[Literal["center", "squash"]] = "center"
    packable: ClassVar[bool] = False
    hub_name: ClassVar[str | None] = None
    in_the_paper: ClassVar[bool] = True
    targets_read: ClassVar[tuple[str, ...]] = ()

    @property
    def train(self) -> str:
        """Manifest of the training images."""
        return f"{self.name}_train"

    @abstractmethod
    def classes(self, study: Study) -> int:
        """Number of classes."""

    @abstractmethod
    def names(self, study: Study) -> dict[str, Any]:
        """Names of the classes as a model's config.json on the hub has them: `label_names` in order, and more."""

    def outputs(self, study: Study, run: Run) -> Outputs:
        """Outputs of a run's model: by default one point per image."""
        supervision = study.supervision(run)
        return Outputs(self.classes(study), 2 if supervision.has_head else 0, self.multi_label, supervision.model_use)

    def labelling(self, study: Study) -> str | None:
        """Target (`Supervision.target`) whose points decide, in every run, which labels a crop keeps; None: all."""
        return None

    def settings(self, study: Study) -> dict[str, str]:
        """Settings that change the training data without being files, by name, for run.json."""
        return {}

    def changes(self, study: Study) -> str:
        """`settings` other than the defaults, as text: trainings are repeated if it changes."""
        return ""

    @abstractmethod
    def training_set(
        self, study: Study, run: Run, root: Path, rows: "pd.DataFrame", targets: Path | None, inputs: dict[str, str]
    ) -> "TrainingImages":
        """Builds the training set of a run; checks that its images exist.

        Args:
            study: The configuration.
            run: The run.
            root: Folder of the images.
            rows: The manifest.
            targets: Points to regress; None for a baseline.
            inputs: Digests of the inputs by name, to which those of further files are added.

        Raises:
            DataError: A file is missing or damaged.
        """

    def test_inputs(self, study: Study) -> list[Path]:
        """Files that predictions of the task's test sets read in addition to their manifests."""
        return []

    def recorded_points(self, study: Study, rows: "pd.DataFrame") -> Any:
        """Points that annotators recorded on a test set's images, float32 [n, 2] in fractions of the image.

        NaN for images without a point; None if the task's test sets have none.
        """
        return None

    def own_byproducts(self, study: Study) -> Path | None:
        """The user's own file of byproducts; None if they are downloaded."""
        return None

    def index_options(self, study: Study) -> dict[str, Any]:
        """Further arguments of the function that indexes its byproducts."""
        return {}

    def index_card(self, study: Study) -> Path:
        """Card of the index of its byproducts."""
        return card(study.layout.index(self.byproducts))


def task_of(dataset: str) -> Task:
    """The task of a data set; ConfigError, which lists the closest names, if there is none."""
    if dataset not in NAMES:
        raise ConfigError(f"There is no data set {dataset!r} to train on. {did_you_mean(dataset, NAMES)}")
    task: Task = importlib.import_module(f"luab.tasks.{dataset}").TASK
    return task


def task_with(byproducts: str) -> Task:
    """The task whose byproducts have this name; ConfigError, which lists the closest names, if there is none."""
    tasks = {task.byproducts: task for task in map(task_of, NAMES)}
    if byproducts not in tasks:
        raise ConfigError(f"There are no byproducts {byproducts!r}. {did_you_mean(byproducts, tasks)}")
    return tasks[byproducts]
