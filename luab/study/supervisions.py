"""Supervisions: which points a model regresses, how they are spoilt and used, and how tables name them."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from luab.errors import did_you_mean
from luab.study.noises import Noise
from luab.study.recipes import Closed, Positive

BASELINE = "none"
USES = ("regress", *sorted(file.stem for file in (Path(__file__).parents[1] / "terms").glob("[a-z]*.py")))
"""What a model can do with points: regress them, or a term of the objective in `luab/terms`."""


SETTINGS = {
    "attribution": ("loss", "map"),
    "heatmap": ("map",),
    "harmonizer": ("map",),
    "pooling": ("map", "pool"),
    "rrr": ("map",),
    "weighting": ("first",),
}
"""Keys of a supervision that a use reads; each is an argument of its term."""

SINGLE_LABEL = ("attribution", "harmonizer", "rrr", "weighting")
"""Uses that need one label per image."""

EXTRA_POINTS = {"time_ms": ("click", "shuffled", "random"), "moments": ("trace", "shuffled")}
"""Points that can have the further column which a use needs (`Supervision.column`)."""


FROM_TAGS = ("browsed", "tagged", "both")
"""Points that need tags on ImageNet's training images (`paths.tags`). All three have the same images."""

CONTROLS = ("random", "shuffled", "centre")
"""Points that are made from other points (`Supervision.of`), on every data set alike."""


class Maker(NamedTuple):
    """A way to make points.

    Attributes:
        title: Name of its supervision in tables, unless the configuration has another.
        about: What a model does with the points, for the description of its file.
        from_workers: Whether the points come from annotators' records, which the noise `workers` selects.
    """

    title: str
    about: str
    from_workers: bool = True


MAKERS = {
    "none": Maker("Baseline", "baseline, trained on labels alone", False),
    "random": Maker("Random points", "control, regresses random points"),
    "shuffled": Maker("Shuffled points", "control, regresses the points of other images of the same class"),
    "click": Maker("LUAB (clicks)", "LUAB, regresses the annotators' clicks"),
    "trace": Maker("LUAB (traces)", "LUAB, regresses the time-weighted means of mouse traces"),
    "centre": Maker("Image centre", "regresses the centre of the image"),
    "box": Maker("Box centre", "regresses the centre of the ground-truth box", False),
    "mask": Maker("Mask centroid", "regresses the centroid of the ground-truth mask", False),
    "replayed": Maker("LUAB (final places)", "LUAB, regresses the places where icons were left"),
    "browsed": Maker("Browsing", "regresses the points of browsing", False),
    "tagged": Maker("Tagging", "regresses the points of tagging", False),
    "both": Maker("Browsing and tagging", "regresses points of browsing and points of tagging", False),
}
"""The points that luab can make; not every data set has all of them."""

RESERVED = tuple(name for name in MAKERS if name not in FROM_TAGS)
"""Names that the user's own kinds of points (`folder.kinds`) cannot have."""


class Map(Closed):
    """The map that a point becomes."""

    kind: Literal["gaussian", "density"] = Field(
        "gaussian",
        description="gaussian = a Gaussian around the point in the crop; density = the mean of Gaussians around the "
        "points of the mouse trace at equal intervals of time, for `points: trace` and `points: shuffled` on ImageNet.",
    )
    sigma: float = Field(0.1, gt=0, description="Standard deviation in fractions of the crop's side.")


class Supervision(Closed):
    """One entry of `supervisions`."""

    points: str = Field("", description="Points to regress; see docs/extending.md. The default is the entry's name.")
    of: str = Field(
        "click",
        description="Points that the controls random, shuffled and centre are made from; a control has their images.",
    )
    noise: Noise = Field(Noise.model_validate({}), description="How the points are spoilt when their file is made.")
    use: str = Field("regress", description="What the model does with the points; see docs/uses.md.")
    loss: Literal["point_ce", "energy", "l1"] = Field(
        "point_ce",
        description="How `use: attribution` compares the model's map with that of the point; see docs/uses.md.",
    )
    first: Literal["hard", "easy"] = Field(
        "hard",
        description="Whether `use: weighting` gives the larger weights to images that took more time (hard) or less "
        "(easy).",
    )
    pool: Literal["simpool", "latent"] = Field(
        "simpool",
        description="Attention pooling of `use: pooling`: simpool, or latent = timm's with a learned query; see "
        "docs/uses.md.",
    )
    map: Map = Field(Map.model_validate({}), description="The map of a point, for uses that compare maps.")
    scale: Positive = Field(
        1.0,
        description="Factor on lambda for this entry, because the terms of uses differ in size: the term counts "
        "lambda x scale. Give the controls of a use the same one.",
    )
    title: str = Field("", description="Name in tables and figures; by default that of the points or of the entry.")
    head: Literal["per_class", "shared"] = Field(
        "per_class", description="COCO: one point head per class, or one shared by all classes."
    )

    @property
    def target(self) -> str | None:
        """Stem of the file of points, which equal supervisions share; None for a baseline."""
        of = "" if self.of == "click" else f"of_{self.of}"
        parts = self.points, of, self.noise.digest, self.column
        return None if self.points == BASELINE else "_".join(filter(None, parts))

    @property
    def records(self) -> str:
        """The points that a control is made from; for other points, themselves."""
        return self.of if self.points in CONTROLS else self.points

    @property
    def model_use(self) -> str:
        """What the model must have for the use, see `LuabModel`."""
        return f"pooling {self.pool}" if self.use == "pooling" else self.use

    @property
    def column(self) -> str | None:
        """Further column of the file of points that the use needs: "time_ms" or "moments"; None for none."""
        if self.use == "weighting":
            return "time_ms"
        return "moments" if self.map.kind == "density" and "map" in SETTINGS.get(self.use, ()) else None

    @property
    def has_head(self) -> bool:
        """Whether the model has a byproduct head, which predicts points or maps of points."""
        return self.target is not None and self.use in ("regress", "heatmap")

    @property
    def settings(self) -> dict[str, Any]:
        """What the use reads of this entry, as plain values; empty for the paper's regression."""
        values = self.model_dump(mode="json")
        return {key: values[key] for key in SETTINGS.get(self.use, ())}

    @property
    def about(self) -> str:
        """What a model does with the points, for the description of its file."""
        spoilt = ", ".join(f"{name} {value}" for name, value in self.noise.settings.items())
        maker = MAKERS.get(self.points) or Maker(self.points, f"regresses the points {self.points}")
        about = maker.about + ("" if self.of == "click" else f" (made from {self.of})")
        about += ", one head for all classes" if self.head == "shared" else ""
        about = about if self.use == "regress" else f"{about}; use: {self.use}"
        about += "" if self.scale == 1 else f"; lambda x {self.scale:g}"
        return f"{about}; noise: {spoilt}" if spoilt else about


def entries(given: Any) -> Any:
    """Completes the entries of `supervisions` as they stand in the configuration; leaves out those that are null.

    A list of names stands for entries without keys.
    """
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        if twice := sorted({name for name in given if given.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is listed twice")
        given = {name: {} for name in given}
    if not isinstance(given, dict):
        return given
    return {name: _completed(str(name), entry) for name, entry in given.items() if entry is not None}


def mistakes(
    supervisions: Mapping[str, Supervision], makers: tuple[str, ...], heads: bool, kinds: Collection[str] = ()
) -> Iterator[str]:
    """What is wrong with the supervisions of a data set that has these makers, and several heads or one.

    `kinds` are the makers among them that make the user's own kinds of points.
    """
    from_workers = {name for name in makers if name in kinds or MAKERS[name].from_workers}
    if BASELINE not in supervisions:
        yield (
            "supervisions: the baseline 'none' is missing; every comparison needs it. Write `none: {}`; an entry "
            "without a value is left out."
        )
    for name, entry in supervisions.items():
        at = f"supervisions.{name}"
        if entry.points not in makers:
            yield f"{at}.points: there are no points {entry.points!r} here. {did_you_mean(entry.points, makers)}"
        elif name == BASELINE != entry.points or (entry.points == BASELINE != name and entry.use != "pooling"):
            yield (
                f"{at}.points: 'none' is the baseline's name and has no points; every other entry has some, unless its "
                "use is pooling."
            )
        elif entry.noise.settings and entry.points == BASELINE:
            yield f"{at}.noise: the baseline has no points that could be spoilt; remove this key."
        elif entry.of not in (recorded := [name for name in makers if name not in (BASELINE, *CONTROLS)]):
            yield f"{at}.of: expected {', '.join(recorded)}, found {entry.of!r}."
        elif entry.of != "click" and entry.points not in CONTROLS:
            yield f"{at}.of: only {', '.join(CONTROLS)} are made from other points; remove this key."
        elif entry.noise.workers and not {entry.points, entry.records} <= from_workers:
            yield f"{at}.noise.workers: {entry.records!r} does not come from workers' records; remove this key."
        elif entry.noise.after_ms and not ("trace" in makers and entry.records in from_workers):
            yield f"{at}.noise.after_ms: only ImageNet's records have a time for each point; remove this key."
        if entry.use not in USES:
            yield f"{at}.use: there is no use {entry.use!r}. {did_you_mean(entry.use, USES)}"
        changed = [
            key
            for key in ("loss", "first", "pool", "map")
            if getattr(entry, key) != Supervision.model_fields[key].default
        ]
        for key in changed:
            if key not in (read := SETTINGS.get(entry.use, ())):
                yield f"{at}.{key}: `use: {entry.use}` reads {' and '.join(read) or 'no such key'}; remove this key."
        if entry.column is not None:
            yield from _column_mistakes(at, entry, makers)
        if entry.points == BASELINE and entry.scale != 1:
            yield f"{at}.scale: without points there is no term that lambda could scale; remove this key."
        if name == BASELINE and entry.use != "regress":
            yield f"{at}.use: the baseline has no points that could be used; remove this key."
        if entry.use in SINGLE_LABEL and heads:
            yield f"{at}.use: {entry.use} needs one label per image, and COCO has several; use regress or heatmap."
        if entry.head == "shared" and not heads:
            yield f"{at}.head: only COCO has a head per class that could be shared; remove this key."


def _column_mistakes(at: str, entry: Supervision, makers: tuple[str, ...]) -> Iterator[str]:
    cause = "use: weighting" if entry.column == "time_ms" else "map.kind: density"
    allowed = [name for name in EXTRA_POINTS[str(entry.column)] if name in makers]
    if entry.column == "moments" and "trace" not in makers:
        yield f"{at}.map.kind: only ImageNet has mouse traces here; use gaussian."
    elif entry.points not in allowed:
        yield f"{at}.points: `{cause}` needs {' or '.join(allowed)}, found {entry.points!r}."
    if entry.of != "click":
        yield f"{at}.of: `{cause}` needs controls of the clicks; remove this key."
    for name in entry.noise.settings.keys() & {"jitter", "centre_bias"}:
        yield f"{at}.noise.{name}: moves points, which `{cause}` does not read; remove this key."


def _completed(name: str, entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    points = entry.get("points") or name
    title = MAKERS[name].title if name == points and name in MAKERS else name
    return {**entry, "points": points, "title": entry.get("title") or title}
