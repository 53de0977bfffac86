"""luab: learning image classifiers using annotation byproducts.

    from luab import ImageNetAB, LuabLoss, with_byproduct_head

Names are imported on first use, because torch and timm take seconds to load.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "ImageNetAB": "luab.data.images.imagenet",
    "CocoAB": "luab.data.images.coco",
    "CropFlip": "luab.data.images.crops",
    "with_byproduct_head": "luab.model",
    "LuabModel": "luab.model",
    "Normalise": "luab.model",
    "preprocessing_of": "luab.training.pretrained",
    "LuabLoss": "luab.objective",
    "read_clicks": "luab.byproducts.flat",
    "read_traces": "luab.byproducts.flat",
    "load_study": "luab.study.config",
    "ConfigError": "luab.errors",
    "DataError": "luab.errors",
    "JobError": "luab.errors",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'luab' has no attribute {name!r}")
