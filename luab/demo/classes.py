"""The 22 classes of the demo world: ImageNet classes, two of each ImageNet-9 super-class and four others."""

from dataclasses import dataclass

from pydantic import TypeAdapter

from luab.data.manifests.labels import wnids
from luab.demo.polygons import TABLES

Colour = tuple[float, float, float]

# Super-class -> the usual backdrop of its classes.
FAMILIES = {
    "dog": "lawn",
    "bird": "sky",
    "wheeled vehicle": "road",
    "reptile": "dunes",
    "carnivore": "birches",
    "insect": "bokeh",
    "musical instrument": "stage",
    "primate": "foliage",
    "fish": "water",
    "household": "tiles",
}


@dataclass(frozen=True)
class DemoClass:
    """One class; numbers of colours lie in [0, 1]."""

    index: int  # in ImageNet
    name: str  # key of SILHOUETTES
    family: str  # key of FAMILIES
    hsv: Colour  # hue, saturation and value of the body
    accent: Colour = (0.85, 0.25, 0.25)  # red, green and blue of the marks

    @property
    def wnid(self) -> str:
        """WordNet id of the class in ImageNet."""
        return wnids()[self.index]


# Each of the class lists of ImageNet-A, -R and -O, ObjectNet and SI-Score has at least three of them.
CLASSES = TypeAdapter(tuple[DemoClass, ...]).validate_json((TABLES / "classes.json").read_bytes())
