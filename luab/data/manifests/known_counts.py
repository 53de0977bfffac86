"""Published sizes of the data sets; a module of its own, so that the plan does not load the readers of their trees."""

import json
from pathlib import Path
from typing import Any

_TABLE = Path(__file__).parent / "tables" / "data_sets.json"

DATA_SETS: dict[str, dict[str, Any]] = json.loads(_TABLE.read_text(encoding="utf-8"))
"""By manifest: number of images (n) and of distinct labels (classes), null where no source gives one; the folder
structure for error messages (tree), below up to three levels of other folders; and the source of the counts."""

KNOWN_COUNTS: dict[str, dict[str, int | None]] = {
    name: {"n": entry["n"], "classes": entry["classes"]} for name, entry in DATA_SETS.items()
}
"""Number of images and of distinct labels by manifest."""
