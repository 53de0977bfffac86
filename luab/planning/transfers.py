"""The files of a study's fine-tunings and the files that each depends on, as the workflow's rules need them."""

from collections.abc import Iterable
from dataclasses import dataclass

from luab.planning.estimate import fine_tuning_hours, fine_tuning_prediction_hours, published_dense_speeds
from luab.study.config import Study
from luab.study.paths import card
from luab.study.roots import FROM_COCO, VOC, own_copy, tree_of
from luab.study.transfers import FineTuning, Transfer

_SLACK = 1.5
_PREDICTION_SLACK = 6
_SHORTEST_MINUTES = 60
_POINTS = "click"


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
        """Regular expression of the folders of fine-tunings."""
        return f"(?:{'|'.join(self.study.transfer)})/[A-Za-z0-9_.]+/[a-z0-9_]+-[0-9][0-9.e+-]*/seed[0-9]+"

    def fine_tuning(self, folder: str) -> FineTuning:
        """The fine-tuning of a folder."""
        return self.study.fine_tuning(folder)

    def training_inputs(self, folder: str) -> list[str]:
        """Inputs of a fine-tuning: the card of the run whose backbone it begins with, and those of its images."""
        one = self.study.fine_tuning(folder)
        return [str(self.study.layout.run_json(one.run)), *self.training_data(self.study.transfer[one.transfer])]

    def training_data(self, entry: Transfer) -> list[str]:
        """Cards of the images and annotations that a fine-tuning reads."""
        layout = self.study.layout
        if entry.data == "imagenet_points":
            return [str(card(layout.manifest("imagenet_train"))), str(card(layout.target(_POINTS)))]
        points = [str(card(layout.target(_POINTS, "coco")))] if entry.supervised_by == "points" else []
        return [*self._tree(entry), *points]

    def scoring_data(self, entry: Transfer) -> list[str]:
        """Cards of the images that are predicted, and of their annotations."""
        return self._tree(entry)

    def _tree(self, entry: Transfer) -> list[str]:
        if self.own_copies(entry):
            return []
        return [str(self.study.layout.raw_card(VOC if entry.data == "voc" else tree_of(FROM_COCO[0])))]

    def own_copies(self, entry: Transfer) -> list[str]:
        """The user's own folders of the images, if they are not downloaded."""
        names = {"voc": (VOC,), "coco": FROM_COCO, "imagenet_points": ("imagenet_train",)}[entry.data]
        return [str(folder) for name in names if (folder := own_copy(self.study, name)) is not None]

    def fine_tuned_with(self, folder: str) -> str:
        """See the function `fine_tuned_with`."""
        return fine_tuned_with(self.study, self.study.fine_tuning(folder))

    def images_of(self, folder: str) -> list[str]:
        """The user's own folders of the images of a fine-tuning."""
        return self.own_copies(self._entry(folder))

    def predicted_inputs(self, folder: str) -> list[str]:
        """Inputs of the predictions of a fine-tuning."""
        one = self.study.fine_tuning(folder)
        return [str(self.study.layout.fine_tuning_json(one)), *self.scoring_data(self._entry(folder))]

    def scored_inputs(self, folder: str) -> list[str]:
        """Inputs of the scores of a fine-tuning."""
        one = self.study.fine_tuning(folder)
        predictions = card(self.study.layout.fine_tuning_predictions(one))
        return [str(predictions), *self.scoring_data(self._entry(folder))]

    def training_minutes(self, folder: str) -> int:
        """Time limit of a fine-tuning: 1.5 times the estimate, divided by its GPUs.

        At least one hour and at most `compute.longest_job_hours`; a longer one continues after each limit.
        """
        hours = fine_tuning_hours(self.study, self._name(folder), published_dense_speeds(self.study))
        return self._minutes(hours / self.study.compute.processes * _SLACK)

    def prediction_minutes(self, folder: str) -> int:
        """Time limit of the predictions of a fine-tuning: six times the estimate, as disks may be slow."""
        hours = fine_tuning_prediction_hours(self.study, self._name(folder), published_dense_speeds(self.study))
        return self._minutes(hours * _PREDICTION_SLACK)

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

    def _name(self, folder: str) -> str:
        return self.study.fine_tuning(folder).transfer

    def _entry(self, folder: str) -> Transfer:
        return self.study.transfer[self._name(folder)]

    def _minutes(self, hours: float) -> int:
        longest = round(self.study.compute.longest_job_hours * 60)
        return min(max(_SHORTEST_MINUTES, round(hours * 60)), longest)
