"""Reads the released archives quickly: `imagenet.read_records` and `coco.read_records` are the only entry points."""
