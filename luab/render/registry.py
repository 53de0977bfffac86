"""Names of all tables and figures and what each is made from; light, since every start of the workflow reads it."""

from typing import Literal

Needs = Literal["scores", "index", "images", "cams", "coco_scores", "coco_images", "coco_index", "coco_interfaces"]
"""What a product is made from.

scores, coco_scores: results/scores.csv, its rows of ImageNet or of COCO. index: the index of ImageNet-AB. images: it,
the manifest of imagenet_train and its images. cams: wsol_test predictions of the baseline and of LUAB, the manifest of
wsol_test and its images. coco_index: the index of COCO-AB, the manifest of coco_train and its masks. coco_images: that
index, the manifest and its images. coco_interfaces: both indices and the rest of coco_index.
"""

TABLES: dict[str, Needs] = {
    "byproduct_statistics": "index",
    "imagenet_main": "scores",
    "background_robustness": "scores",
    "lambda_sweep": "scores",
    "localization": "scores",
    "coco_main": "coco_scores",
    "coco_localization": "coco_scores",
    "coco_statistics": "coco_index",
    "interfaces": "coco_interfaces",
}

FIGURES: dict[str, Needs] = {
    "byproduct_samples": "images",
    "click_density": "index",
    "hover_time": "index",
    "worker_spread": "index",
    "lambda_sweep": "scores",
    "robustness_gain": "scores",
    "background_gap": "scores",
    "corruption_severity": "scores",
    "si_score_factors": "scores",
    "cam_examples": "cams",
    "coco_samples": "coco_images",
    "coco_gain_by_size": "coco_scores",
    "interfaces": "coco_interfaces",
}


def dataset_of(needs: Needs) -> str:
    """The data set whose part of the study a product shows."""
    return "coco" if needs.startswith("coco_") else "imagenet"
