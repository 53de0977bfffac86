"""The configuration of a collection: one typed field for every key of the file that `luab annotate` reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field, field_validator, model_validator

from luab.byproducts.coco_classes import COCO_CLASSES, PANES
from luab.errors import ConfigError, did_you_mean
from luab.study.recipes import Closed
from luab.study.yaml_files import read_yaml

Interface = Literal["browsing", "tagging"]
Version = Literal["POINTER_ORIGINAL", "NO_POINTER_ORIGINAL", "POINTER_NO_ORIGINAL", "NO_POINTER_NO_ORIGINAL"]


class ClassText(Closed):
    """What the page says about one class."""

    names: list[str] = Field([], description="Names of the class; by default the name of its folder.")
    definition: str = Field("", description="One sentence that defines the class.")
    links: list[str] = Field([], description="Addresses of pages that explain the class, such as Wikipedia's.")

    @field_validator("links")
    @classmethod
    def _web_addresses(cls, links: list[str]) -> list[str]:
        if bad := [link for link in links if not link.startswith(("https://", "http://"))]:
            raise ValueError(f"{bad[0]!r} does not begin with https://")
        return links


class Browsing(Closed):
    """Pages of many images and one class; people click the images that show it."""

    images: Path = Field(description="Folder of the images, one folder per class.")
    image_list: Path | None = Field(
        None, description="CSV with the columns image, class, gold: candidates other than the folders' images."
    )
    classes: dict[str, ClassText] = Field({}, description="Names and definitions of the classes, by folder name.")
    instructions: list[str] = Field([], description="Paragraphs that replace the usual instructions of the page.")
    versions: list[Version] = Field(
        ["NO_POINTER_ORIGINAL"],
        min_length=1,
        description="POINTER shows a red dot, NO_ORIGINAL blurs; drawn at random for each assignment if several.",
    )
    images_per_page: int = Field(48, ge=1, le=300, description="Images on a page.")
    pages: int = Field(10, ge=1, le=1000, description="Pages of one assignment.")
    gold_per_page: int = Field(0, ge=0, description="Images on a page that are known to show the class.")
    distractors_per_page: int = Field(0, ge=0, description="Images on a page that belong to other classes.")
    annotators_per_image: int = Field(1, ge=1, description="People who see each image; then it is no longer shown.")

    @model_validator(mode="after")
    def _room_for_candidates(self) -> "Browsing":
        if self.gold_per_page + self.distractors_per_page >= self.images_per_page:
            raise ValueError("images_per_page must exceed gold_per_page + distractors_per_page")
        return self


class Icon(Closed):
    """One icon of the tagging interface."""

    name: str = Field(min_length=1, max_length=100, description="Class that the icon stands for.")
    pane: str = Field(min_length=1, max_length=100, description="Pane that holds the icon.")
    image: Path | None = Field(None, description="Picture of the icon; by default a tile with its first letters.")


COCO_ICONS = [
    Icon.model_validate({"name": item.name, "pane": PANES[item.pane]})
    for item in sorted(COCO_CLASSES, key=lambda one: one.pane)
]


class Tagging(Closed):
    """One image on a page; people drag the icons of the objects onto it."""

    images: Path = Field(description="Folder of the images.")
    image_list: Path | None = Field(
        None, description="CSV with the columns image, class, gold: objects that are known."
    )
    icons: list[Icon] = Field(COCO_ICONS, min_length=1, description="Icons in order of their panes; COCO's 80 classes.")
    instructions: list[str] = Field([], description="Paragraphs that replace the usual instructions of the page.")
    version: Literal["baseline", "improved"] = Field(
        "baseline", description="improved has a lens and fades the icon that is dragged."
    )
    pages: int = Field(20, ge=1, le=1000, description="Pages of one assignment.")
    gold_per_assignment: int = Field(0, ge=0, description="Images of an assignment whose objects are known.")
    annotators_per_image: int = Field(1, ge=1, description="People who see each image; then it is no longer shown.")

    @field_validator("icons")
    @classmethod
    def _one_icon_per_class(cls, icons: list[Icon]) -> list[Icon]:
        names = [icon.name for icon in icons]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the icon {twice!r} is listed twice")
        return icons

    @property
    def panes(self) -> dict[str, list[Icon]]:
        """Pane -> its icons, in the order of the list."""
        panes: dict[str, list[Icon]] = {}
        for icon in self.icons:
            panes.setdefault(icon.pane, []).append(icon)
        return panes


class Login(Closed):
    """How participants are told apart. Parameters of the address come from the platform that recruits them."""

    worker: list[str] = Field(
        ["PROLIFIC_PID", "workerId", "participantId", "id"],
        description="Parameters that may hold the participant's id.",
    )
    assignment: list[str] = Field(
        ["SESSION_ID", "assignmentId"], description="Parameters that may hold the id of the submission."
    )
    hit: list[str] = Field(["STUDY_ID", "hitId", "projectId"], description="Parameters that may hold the task's id.")
    local_names: bool = Field(True, description="Whether people without such a parameter may type a name.")


class Consent(Closed):
    """What participants agree to before anything is recorded."""

    version: str = Field("1", min_length=1, description="Change it with the text: people are asked again.")
    text: list[str] = Field([], description="Paragraphs: who, why, legal basis, how long, pay, contact.")


class Collection(Closed):
    """Everything that one collection shows and records."""

    title: str = Field("Image annotation", description="Title of the pages.")
    database: Path = Field(Path("collection.sqlite"), description="SQLite file; on a local disk.")
    browsing: Browsing | None = Field(None, description="Pages of many images and one class, as for ImageNet-AB.")
    tagging: Tagging | None = Field(None, description="One image on a page and icons to drag, as for COCO-AB.")
    login: Login = Field(Login.model_validate({}), description="How participants are told apart.")
    consent: Consent = Field(Consent.model_validate({}), description="What participants agree to.")
    completion_code: str | None = Field(None, description="Code shown at the end; by default a random one for each.")
    completion_url: str | None = Field(None, description="Address to return to; {code} is replaced by the code.")
    assignments_per_worker: int | None = Field(1, ge=1, description="null: as many as there are.")
    stop_after_pages: int | None = Field(None, ge=1, description="No new assignments after this many stored pages.")
    abandoned_h: float = Field(
        24, gt=0, description="Hours until images of an unfinished assignment are given out again."
    )
    page_limit_mib: float = Field(8, gt=0, le=256, description="Largest record of one page that is accepted.")
    faithful: bool = Field(False, description="Record exactly what the published tools recorded, faults included.")

    @field_validator("completion_url")
    @classmethod
    def _web_address(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("https://", "http://")):
            raise ValueError("expected an address that begins with https://")
        return url

    @model_validator(mode="after")
    def _one_interface(self) -> "Collection":
        if self.browsing is None and self.tagging is None:
            raise ValueError("expected a section `browsing` or `tagging`, found neither")
        return self

    @property
    def interfaces(self) -> list[Interface]:
        """The interfaces that this collection has."""
        names: tuple[Interface, ...] = ("browsing", "tagging")
        return [name for name in names if getattr(self, name) is not None]


def load_collection(file: Path) -> Collection:
    """Reads the configuration of a collection; its paths are relative to the folder of the file.

    Raises:
        ConfigError: The file is missing or is not YAML, or has mistakes; all are listed.
    """
    content = read_yaml(file)
    try:
        collection = Collection.model_validate(content)
    except pydantic.ValidationError as error:
        listed = "\n".join(f"  - {_mistake(detail, content)}" for detail in error.errors())
        raise ConfigError(f"{file} has mistakes:\n{listed}\ndocs/annotate.md lists every key.") from error
    return _with_folder(collection, file.resolve().parent)


def _mistake(detail: Any, content: Mapping[str, Any]) -> str:
    place = ".".join(map(str, detail["loc"])) or "the file"
    if detail["type"] == "extra_forbidden":
        sections: dict[Any, type[Closed]] = {
            "browsing": Browsing, "tagging": Tagging, "login": Login, "consent": Consent,
        }  # fmt: skip
        within = len(detail["loc"]) == 2
        section: type[Closed] = sections.get(detail["loc"][0], Collection) if within else Collection
        keys = section.model_fields
        return f"{place}: unknown key. {did_you_mean(str(detail['loc'][-1]), keys)}"
    if detail["type"] == "missing":
        return f"{place}: this required key is missing."
    if detail["type"] == "value_error":
        return f"{place}: {detail['ctx']['error']}."
    return f"{place}: {detail['msg']} (found {detail['input']!r})."


def _with_folder(collection: Collection, folder: Path) -> Collection:
    """Makes the paths absolute."""

    def within(path: Path | None) -> Path | None:
        return None if path is None else folder / path.expanduser()

    update: dict[str, Any] = {"database": within(collection.database)}
    for name in collection.interfaces:
        section = getattr(collection, name)
        paths: dict[str, Any] = {"images": within(section.images), "image_list": within(section.image_list)}
        if name == "tagging":
            paths["icons"] = [icon.model_copy(update={"image": within(icon.image)}) for icon in section.icons]
        update[name] = section.model_copy(update=paths)
    return collection.model_copy(update=update)
