"""Names of all tables and figures and what each is made from; light, since every start of the workflow reads it."""

from typing import Literal

Needs = Literal["scores", "index", "images", "cams", "coco_scores", "coco_tags", "coco_statistics", "coco_both"]
"""scores: results/scores.csv, its rows of ImageNet; coco_scores: of COCO. index: the byproduct index. images: it,
the manifest of imagenet_train and its images. cams: wsol_test predictions of the baseline and of LUAB, the manifest of
wsol_test and its images. coco_tags: the index of COCO-AB, the manifest of coco_train, its images and instances file.
coco_statistics: the CSV files of the tables of byproducts of both data sets. coco_both: these, and both indexes."""

TABLES: dict[str, Needs] = {
    "byproduct_statistics": "index",
    "imagenet_main": "scores",
    "background_robustness": "scores",
    "lambda_sweep": "scores",
    "localization": "scores",
    "coco_statistics": "coco_tags",
    "interfaces": "coco_statistics",
    "coco_main": "coco_scores",
    "coco_localization": "coco_scores",
}

STATISTICS = ("byproduct_statistics", "coco_statistics")
"""Tables of the byproducts, of ImageNet and of COCO, that the comparison of both interfaces reads."""

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
    "coco_samples": "coco_tags",
    "interfaces": "coco_both",
    "coco_gain_by_size": "coco_scores",
}


def dataset_of(needs: Needs) -> str:
    """The data set whose part of the study a product shows."""
    return "coco" if needs.startswith("coco_") else "imagenet"
