"""The ingredients of published recipes train together: binary cross-entropy, LAMB, erasing, several views per image."""

import json

from luab.study.paths import Run

RUN = Run("imagenet", "test_resnet", "click", 1.0, 0)


def test_a_recipe_with_everything_trains(toy_study, trainings):
    recipe = {
        "optimizer": "lamb", "lr": 5e-3, "classification": "bce", "bce_threshold": 0.2, "label_smoothing": 0.1,
        "mixup": 0.2, "cutmix": 1.0, "auto_augment": "rand-m7-mstd0.5-inc1", "random_erasing": 0.25,
        "repeated_augmentation": 3, "warmup_epochs": 1, "warmup_lr": 1e-4, "train_px": 40,
        "eval_interpolation": "bicubic",
    }  # fmt: skip
    study = toy_study(recipe=recipe)
    assert trainings(study, RUN).fine
    folder = study.layout.run(RUN)
    written = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert written["preprocessing"]["interpolation"] == "bicubic" and written["recipe"]["train_px"] == 40
    lines = (folder / "log.csv").read_text(encoding="utf-8").splitlines()
    first = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert 0.3 < float(first["classification"]) < 1  # near ln 2 per class, not ln 1000
