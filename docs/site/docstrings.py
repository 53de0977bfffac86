"""Griffe extension: placeholders such as <supervision> in docstrings are text, not HTML."""

import re
from typing import Any

import griffe

_CODE_OR_TAG = re.compile(r"(`+[^`]+`+)|<(?=\w)")


class Placeholders(griffe.Extension):
    """Escapes the `<` of placeholders in docstrings, outside inline code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every object of the documented package."""
        if obj.docstring:
            obj.docstring.value = _CODE_OR_TAG.sub(lambda m: m[1] or "&lt;", obj.docstring.value)
