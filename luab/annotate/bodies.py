"""The record of one page as the browser sends it: its shape, its limits, and what it must agree with."""

import json
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from luab.annotate.config import Tagging
from luab.annotate.store import Refused

_LONGEST = 100_000  # entries of one list: half an hour of uninterrupted movement
_DAY_MS = 24 * 3600 * 1000


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


Ratio = Annotated[float, Field(ge=-0.1, le=1.1)]  # a border of the picture may be hit
Ms = Annotated[int, Field(ge=0, le=2**53)]
Px = Annotated[int, Field(ge=0, le=100_000)]
Input = Literal["mouse", "touch", "pen", "keyboard"]


class _Place(_Exact):
    x: Ratio
    y: Ratio


class _Click(_Place):
    time: Ms


class _Hover(_Exact):
    action: Literal["enter", "leave"]
    time: Ms


class _Position(_Exact):
    x: Annotated[float, Field(ge=-100_000, le=10_000_000)]
    y: Annotated[float, Field(ge=-100_000, le=10_000_000)]


class Annotation(_Exact):
    """One image of a browsing page. The last two keys are ours, and absent if the collection is faithful."""

    imageID: str
    selected: bool
    selectedCount: Annotated[int, Field(ge=0, le=_LONGEST)]
    selectedRecord: Annotated[list[_Click], Field(max_length=_LONGEST)]
    hoveredCount: Annotated[int, Field(ge=0, le=_LONGEST)]
    hoveredRecord: Annotated[list[_Hover], Field(max_length=_LONGEST)]
    mouseTracking: Annotated[list[_Click], Field(max_length=_LONGEST)]
    estimateTime: Ms
    imagePosition: _Position
    imageWidth: Px
    imageHeight: Px
    originalImageWidth: Px
    originalImageHeight: Px
    selectedInputs: Annotated[list[Input], Field(max_length=_LONGEST)] = []
    loadFailed: bool = False


class _Move(_Place):
    timeAt: Ms


class _Action(_Exact):
    actionType: Literal["add", "move", "remove"]
    iconType: str
    pointFrom: _Place | None = None
    pointTo: _Place | None = None
    timeAt: Ms


class _Pane(_Exact):
    categoryIndex: Annotated[int, Field(ge=0, le=1000)]
    categoryName: Annotated[str, Field(max_length=100)]
    usingKeyboard: bool
    timeAt: Ms


class Tags(_Exact):
    """The image of a tagging page. The last three keys are ours, and absent if the collection is faithful."""

    imageURL: str
    imageWidth: Px
    imageHeight: Px
    originalImageWidth: Px
    originalImageHeight: Px
    timeSpend: Ms
    actionHistories: Annotated[list[_Action], Field(max_length=_LONGEST)]
    categoryHistories: Annotated[list[_Pane], Field(max_length=_LONGEST)]
    mouseTracking: Annotated[list[_Move], Field(max_length=_LONGEST)]
    actionInputs: Annotated[list[Input], Field(max_length=_LONGEST)] = []
    dragTracking: Annotated[list[_Move], Field(max_length=_LONGEST)] = []
    loadFailed: bool = False


class _Clock(_Exact):
    """How far the browser's wall clock and its steady clock advanced while the page was shown."""

    wallMs: int
    steadyMs: Annotated[float, Field(ge=0)]


class _Page(_Exact):
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
    pageno: Annotated[int, Field(ge=1)]
    startedAt: Ms
    clock: _Clock | None = None


class _BrowsingPage(_Page):
    endedAt: Ms
    annotations: Annotated[list[Annotation], Field(max_length=1000)]


class _TaggingPage(_Page):
    annotation: Tags


class BrowsingBody(_Exact):
    """What the browsing interface sends."""

    page: _BrowsingPage
    endedAt: Ms
    isDone: bool


class TaggingBody(_Exact):
    """What the tagging interface sends."""

    page: _TaggingPage
    endedAt: Ms
    isDone: bool


Body = BrowsingBody | TaggingBody


def parse_json(data: bytes) -> Any:
    """Decodes a request; Refused unless it is JSON without NaN and infinity."""

    def no_constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(data, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "Expected JSON, found something else. Please reload the page.") from error


def check_body(content: Any, number: int, image_ids: list[str], tagging: Tagging | None, now_s: float) -> Body:
    """Checks the record of one page.

    Args:
        content: Decoded JSON.
        number: Page, from 1.
        image_ids: Names of its images, in their order.
        tagging: The interface, if it is tagging.
        now_s: Time of the server, epoch seconds.

    Raises:
        Refused: The record has another shape, other images, impossible numbers, or times in the future.
    """
    kind: Any = TaggingBody if tagging else BrowsingBody
    try:
        body: Body = kind.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise Refused(422, f"The record is not valid: {place}: {first['msg']}. Please reload the page.") from error
    if body.page.pageno != number:
        raise Refused(422, f"The record says page {body.page.pageno}, but was sent as page {number}.")
    _check_times(body, now_s)
    if isinstance(body, BrowsingBody):
        _check_browsing(body, image_ids)
    elif tagging:
        _check_tagging(body, image_ids, tagging)
    return body


def _check_times(body: Body, now_s: float) -> None:
    times = [body.page.startedAt, body.endedAt]
    if isinstance(body, BrowsingBody):
        for one in body.page.annotations:
            times += [click.time for click in (*one.selectedRecord, *one.mouseTracking)]
            times += [hover.time for hover in one.hoveredRecord]
    if max(times) > now_s * 1000 + _DAY_MS:
        raise Refused(
            422, "The clock of your device is more than a day ahead. Please set it, and press the button again."
        )
    spent = max(0, body.endedAt - body.page.startedAt)
    if isinstance(body, TaggingBody):
        tags = body.page.annotation
        moments = [tags.timeSpend, *(entry.timeAt for entry in tags.actionHistories)]
        moments += [entry.timeAt for entry in tags.mouseTracking]
        if max(moments) > max(spent, 0) + _DAY_MS:
            raise Refused(422, "The times of the record exceed the time of the page. Please reload the page.")


def _check_browsing(body: BrowsingBody, image_ids: list[str]) -> None:
    if [one.imageID for one in body.page.annotations] != image_ids:
        raise Refused(422, "The record is not about the images of this page. Please reload the page.")
    for one in body.page.annotations:
        by_key = one.selectedInputs.count("keyboard")
        if one.selectedCount != len(one.selectedRecord) + by_key or (one.selected and not one.selectedCount):
            raise Refused(422, f"The clicks of {one.imageID} do not add up. Please reload the page.")
        if one.selectedInputs and len(one.selectedInputs) != one.selectedCount:
            raise Refused(422, f"The inputs of {one.imageID} do not add up. Please reload the page.")
        if one.hoveredCount != sum(entry.action == "enter" for entry in one.hoveredRecord):
            raise Refused(422, f"The visits of {one.imageID} do not add up. Please reload the page.")


_ENDS = {"add": (False, True), "move": (True, True), "remove": (True, False)}


def _check_tagging(body: TaggingBody, image_ids: list[str], tagging: Tagging) -> None:
    tags = body.page.annotation
    if [tags.imageURL] != image_ids:
        raise Refused(422, "The record is not about the image of this page. Please reload the page.")
    names, placed = {icon.name for icon in tagging.icons}, set[str]()
    for action in tags.actionHistories:
        ends = (action.pointFrom is not None, action.pointTo is not None)
        if action.iconType not in names or ends != _ENDS[action.actionType]:
            raise Refused(422, f"The action {action.actionType} is not valid. Please reload the page.")
        if (action.iconType in placed) == (action.actionType == "add"):
            raise Refused(422, "The actions do not follow from each other. Please reload the page.")
        placed.add(action.iconType)
        if action.actionType == "remove":
            placed.remove(action.iconType)
    panes = list(tagging.panes)
    for pane in tags.categoryHistories:
        if pane.categoryIndex >= len(panes) or panes[pane.categoryIndex] != pane.categoryName:
            raise Refused(422, f"The pane {pane.categoryIndex} is not {pane.categoryName[:40]!r}. Please reload.")
