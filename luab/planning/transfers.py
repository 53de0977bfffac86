"""The files of a study's fine-tunings and the files that each depends on, as the workflow's rules need them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from luab.planning.estimate import fine_tuning_hours, fine_tuning_prediction_hours, published_dense_speeds
from luab.study.config import Study
from luab.study.paths import card
from luab.study.roots import FROM_COCO, own_copy, tree_of
from luab.study.transfers import POINTS, POINTS_OF, VOC, DenseData, FineTuning, Transfer

_SLACK = 1.5
_PREDICTION_SLACK = 6
_SHORTEST_MINUTES = 60
_SCORING_MB = {("coco", "detection"): 16_000}
_IMAGES: dict[DenseData, tuple[str, ...]] = {
    "coco": FROM_COCO,
    "voc": (VOC,),
    "imagenet_points": ("imagenet_train",),
}
"""Names by which people give their own copies of the images (`paths.copies`), by the data of an entry."""


def fine_tuned_with(study: Study, one: FineTuning) -> str:
    """Settings that a fine-tuning's result depends on besides its inputs, as text."""
    entry = study.transfer[one.transfer]
    recipe = study.transfer_recipe(one).model_dump_json()
    return f"{entry.task} {entry.data} {entry.network} {entry.supervised_by} {recipe}"


@dataclass(frozen=True)
class TransferPlan:
    """Dependencies of the fine-tunings of a study, as paths in text."""

    study: Study

    @property
    def pattern(self) -> str:
        """Regular expression of the folders of fine-tunings that have a job of their own."""
        shared = "|".join(re.escape(one.folder) for ones in self.cohorts().values() for one in ones)
        outside = f"(?!(?:{shared})(?:/|$))" if shared else ""
        below = r"[A-Za-z0-9_][A-Za-z0-9_.]*/[a-z0-9_]+-[0-9][0-9.e+-]*/seed[0-9]+"
        return f"{outside}(?:{'|'.join(self.study.transfer)})/{below}"

    def cohorts(self) -> dict[str, list[FineTuning]]:
        """The fine-tunings that share a job with others (`compute.cohort`), by the name of the job.

        They belong to one entry of `transfer`, one backbone and one seed, and run one after another in one process,
        because starting a process takes longer than fine-tuning a small network.
        """
        alike: dict[tuple[str, str, int], list[FineTuning]] = {}
        for one in self.study.fine_tunings():
            alike.setdefault((one.transfer, one.run.backbone, one.run.seed), []).append(one)
        cohorts: dict[str, list[FineTuning]] = {}
        for (transfer, backbone, seed), ones in alike.items():
            size = 1 if self.study.shares else self.study.compute.cohort or len(ones)
            name = re.sub(r"\W", "_", f"{transfer}_{backbone}_seed{seed}")
            for i in range(0, len(ones), size):
                if len(ones[i : i + size]) > 1:
                    cohorts[f"{name}_{i // size}" if i else name] = ones[i : i + size]
        return cohorts

    def named(self, folder: str) -> list[FineTuning]:
        """The fine-tuning of a folder, as the only one of its job."""
        return [self.study.fine_tuning(folder)]

    def is_scored(self, ones: Sequence[FineTuning]) -> bool:
        """Whether the predictions of a job's fine-tunings can be scored."""
        return self._entry(ones).scored

    def training_inputs(self, ones: Sequence[FineTuning]) -> list[str]:
        """Inputs of a job's fine-tunings: the cards of the runs that their backbones are from, and of their images."""
        cards = [str(self.study.layout.run_json(one.run)) for one in ones]
        return [*cards, *self.training_data(self._entry(ones))]

    def training_data(self, entry: Transfer) -> list[str]:
        """Cards of the images and annotations that a fine-tuning reads."""
        layout = self.study.layout
        points = layout.target(POINTS, POINTS_OF[entry.data]) if entry.supervised_by == "points" else None
        images = self._tree(entry) if entry.scored else [str(card(layout.manifest("imagenet_train")))]
        return [*images, *([str(card(points))] if points else [])]

    def scoring_data(self, entry: Transfer) -> list[str]:
        """Cards of the images that are predicted, and of their annotations."""
        return self._tree(entry)

    def _tree(self, entry: Transfer) -> list[str]:
        if self.own_copies(entry):
            return []
        return [str(self.study.layout.raw_card(tree_of(_IMAGES[entry.data][0])))]

    def own_copies(self, entry: Transfer) -> list[str]:
        """The user's own folders of the images, if they are not downloaded."""
        folders = [own_copy(self.study, name) for name in _IMAGES[entry.data]]
        return [str(folder) for folder in folders if folder is not None]

    def fine_tuned_with(self, ones: Sequence[FineTuning]) -> list[str]:
        """Settings of each fine-tuning of a job, see the function `fine_tuned_with`."""
        return [fine_tuned_with(self.study, one) for one in ones]

    def images_of(self, ones: Sequence[FineTuning]) -> list[str]:
        """The user's own folders of the images of a job's fine-tunings."""
        return self.own_copies(self._entry(ones))

    def predicted_inputs(self, ones: Sequence[FineTuning]) -> list[str]:
        """Inputs of the predictions of a job's fine-tunings."""
        cards = [str(self.study.layout.fine_tuning_json(one)) for one in ones]
        return [*cards, *self.scoring_data(self._entry(ones))]

    def scored_inputs(self, ones: Sequence[FineTuning]) -> list[str]:
        """Inputs of the scores of a job's fine-tunings."""
        cards = [str(card(self.study.layout.fine_tuning_predictions(one))) for one in ones]
        return [*cards, *self.scoring_data(self._entry(ones))]

    def training_minutes(self, ones: Sequence[FineTuning]) -> int:
        """Time limit of a job's fine-tunings: 1.5 times the estimate, divided by its GPUs.

        At least one hour and at most `compute.longest_job_hours`; a longer job continues after each limit.
        """
        speeds = published_dense_speeds(self.study)
        hours = sum(fine_tuning_hours(self.study, one.transfer, speeds) for one in ones)
        return self._minutes(hours / self.study.compute.processes * _SLACK)

    def prediction_minutes(self, ones: Sequence[FineTuning]) -> int:
        """Time limit of the predictions of a job's fine-tunings: six times the estimate, as disks may be slow."""
        speeds = published_dense_speeds(self.study)
        hours = sum(fine_tuning_prediction_hours(self.study, one.transfer, speeds) for one in ones)
        return self._minutes(hours * _PREDICTION_SLACK)

    def scoring_mem_mb(self, ones: Sequence[FineTuning]) -> int:
        """Memory of a job that scores, in MB: pycocotools needs 6 to 7 GB for the boxes of COCO."""
        entry = self._entry(ones)
        return _SCORING_MB.get((entry.data, entry.task), 8_000)

    def scored(self) -> list[FineTuning]:
        """The fine-tunings whose predictions are scored."""
        return [one for one in self.study.fine_tunings() if self.study.transfer[one.transfer].scored]

    def scores(self) -> list[str]:
        """Scores of all fine-tunings."""
        return [str(self.study.layout.fine_tuning_scores(one)) for one in self.scored()]

    def finished(self) -> list[str]:
        """Files that a complete study has of its fine-tunings."""
        layout = self.study.layout
        cards = [layout.fine_tuning_json(one) for one in self.study.fine_tunings()]
        scores = [layout.transfer_scores_csv()] if self.scored() else []
        return [str(path) for path in [*cards, *scores]]

    def prepared(self) -> list[str]:
        """Cards of all data that fine-tunings and their scores read."""
        return list(dict.fromkeys(path for entry in self.study.transfer.values() for path in self._data(entry)))

    def _data(self, entry: Transfer) -> Iterable[str]:
        yield from self.training_data(entry)
        if entry.scored:
            yield from self.scoring_data(entry)

    def _entry(self, ones: Sequence[FineTuning]) -> Transfer:
        return self.study.transfer[ones[0].transfer]

    def _minutes(self, hours: float) -> int:
        longest = round(self.study.compute.longest_job_hours * 60)
        return min(max(_SHORTEST_MINUTES, round(hours * 60)), longest)
