"""Published sizes of the data sets; a module of its own, so that the plan does not load the readers of their trees."""

KNOWN_COUNTS: dict[str, dict[str, int | None]] = {
    # SOURCE: pytorch/vision:torchvision/datasets/imagenet.py; train count as in the ILSVRC2012 archives.
    "imagenet_train": {"n": 1_281_167, "classes": 1000},
    "imagenet_val": {"n": 50_000, "classes": 1000},
    # SOURCE: counted in google-research/reassessed-imagenet:real.json.
    "imagenet_real": {"n": 50_000, "classes": 1000},
    # SOURCE: modestyachts/ImageNetV2_pytorch.
    "imagenet_v2": {"n": 10_000, "classes": 1000},
    # SOURCE: hendrycks/natural-adv-examples:README.md.
    "imagenet_a": {"n": 7_500, "classes": 200},
    "imagenet_o": {"n": 2_000, "classes": 200},
    # SOURCE: hendrycks/imagenet-r:README.md.
    "imagenet_r": {"n": 30_000, "classes": 200},
    # SOURCE: tensorflow/datasets imagenet_sketch; its README says 50,000.
    "imagenet_sketch": {"n": 50_889, "classes": 1000},
    # SOURCE: hendrycks/robustness:README.md; 15 corruptions x 5 severities x 50,000.
    "imagenet_c": {"n": 3_750_000, "classes": 1000},
    "imagenet_c_extra": {"n": 1_000_000, "classes": 1000},
    # SOURCE: mlfoundations/wise-ft mapping; no primary source gives the number of images in the overlap.
    "objectnet": {"n": None, "classes": 125},
    # SOURCE: tensorflow/datasets docs/catalog/siscore.md.
    "siscore_size": {"n": 92_884, "classes": 61},
    "siscore_location": {"n": 541_548, "classes": 61},
    "siscore_rotation": {"n": 39_540, "classes": 61},
    # SOURCE: MadryLab/backgrounds_challenge:README.md; 8 variants x 4,050.
    "in9": {"n": 32_400, "classes": 9},
    # SOURCE: counted in clovaai/wsolevaluation:metadata/ILSVRC/{val,test}.
    "wsol_val": {"n": 10_000, "classes": 1000},
    "wsol_test": {"n": 50_000, "classes": 1000},
    # SOURCE: tensorflow/datasets docs/catalog/coco.md.
    "coco_train": {"n": 82_783, "classes": 80},
    "coco_val": {"n": 40_504, "classes": 80},
}
"""Number of images and of distinct labels by manifest; None where no source gives one."""
