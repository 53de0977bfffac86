"""The 22 classes of the demo world: ImageNet classes, two of each ImageNet-9 super-class and four others."""

from dataclasses import dataclass

from luab.data.manifests.labels import wnids

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
    """One class.

    Attributes:
        index: ImageNet index.
        name: Key of the silhouette.
        family: Key of FAMILIES.
        hsv: Hue, saturation and value of the body, each in [0, 1].
        accent: Red, green and blue of the marks, each in [0, 1].
    """

    index: int
    name: str
    family: str
    hsv: Colour
    accent: Colour = (0.85, 0.25, 0.25)

    @property
    def wnid(self) -> str:
        """WordNet id of the class in ImageNet."""
        return wnids()[self.index]


# Each of the class lists of ImageNet-A, -R and -O, ObjectNet and SI-Score has at least three of them.
CLASSES = (
    DemoClass(1, "goldfish", "fish", (0.055, 0.86, 0.96)),
    DemoClass(47, "African chameleon", "reptile", (0.36, 0.62, 0.66)),
    DemoClass(37, "box turtle", "reptile", (0.20, 0.55, 0.48)),
    DemoClass(99, "goose", "bird", (0.60, 0.16, 0.62)),
    DemoClass(130, "flamingo", "bird", (0.95, 0.48, 0.95)),
    DemoClass(151, "Chihuahua", "dog", (0.06, 0.52, 0.60)),
    DemoClass(207, "golden retriever", "dog", (0.105, 0.62, 0.88)),
    DemoClass(277, "red fox", "carnivore", (0.035, 0.78, 0.80)),
    DemoClass(308, "fly", "insect", (0.72, 0.42, 0.45), (0.80, 0.20, 0.22)),
    DemoClass(310, "grasshopper", "insect", (0.27, 0.72, 0.66)),
    DemoClass(361, "skunk", "carnivore", (0.66, 0.14, 0.24), (0.90, 0.55, 0.55)),
    DemoClass(365, "orangutan", "primate", (0.03, 0.70, 0.62)),
    DemoClass(368, "gibbon", "primate", (0.09, 0.35, 0.36)),
    DemoClass(397, "puffer", "fish", (0.14, 0.52, 0.90)),
    DemoClass(401, "accordion", "musical instrument", (0.98, 0.76, 0.76)),
    DemoClass(402, "acoustic guitar", "musical instrument", (0.085, 0.68, 0.80)),
    DemoClass(407, "ambulance", "wheeled vehicle", (0.13, 0.05, 0.96)),
    DemoClass(414, "backpack", "household", (0.61, 0.66, 0.72), (0.98, 0.75, 0.30)),
    DemoClass(444, "bicycle-built-for-two", "wheeled vehicle", (0.54, 0.75, 0.62), (0.85, 0.35, 0.30)),
    DemoClass(849, "teapot", "household", (0.49, 0.58, 0.76)),
    DemoClass(883, "vase", "household", (0.80, 0.48, 0.66)),
    DemoClass(954, "banana", "household", (0.145, 0.78, 0.97)),
)


def class_of(index: int) -> DemoClass:
    """Returns the demo class with this ImageNet index."""
    return next(item for item in CLASSES if item.index == index)
