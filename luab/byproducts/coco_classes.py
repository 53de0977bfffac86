"""The 80 classes of COCO, and the panes of the annotation tool of COCO-AB that contain their icons.

The index of a class is the rank, 0 to 79, of its official category id among all ids in use.
"""

from typing import NamedTuple


class CocoClass(NamedTuple):
    """One class: official category id (1 to 90 with gaps), official name, number of its pane in the tool."""

    category_id: int
    name: str
    pane: int


PANES = (
    "PersonAccessory",
    "Animal",
    "Vehicle",
    "OutdoorObj",
    "Sports",
    "Kitchenware",
    "Food",
    "Furniture",
    "Appliance",
    "Electronics",
    "IndoorObjects",
)
"""Names of the panes by number. Source: naver-ai/coco-annotation-tool:icon-categories.json."""

_BY_PANE: dict[int, tuple[tuple[int, str], ...]] = {
    0: ((1, "person"), (27, "backpack"), (28, "umbrella"), (31, "handbag"), (32, "tie"), (33, "suitcase")),
    1: (
        (16, "bird"), (17, "cat"), (18, "dog"), (19, "horse"), (20, "sheep"), (21, "cow"), (22, "elephant"),
        (23, "bear"), (24, "zebra"), (25, "giraffe"),
    ),
    2: (
        (2, "bicycle"), (3, "car"), (4, "motorcycle"), (5, "airplane"), (6, "bus"), (7, "train"), (8, "truck"),
        (9, "boat"),
    ),
    3: ((10, "traffic light"), (11, "fire hydrant"), (13, "stop sign"), (14, "parking meter"), (15, "bench")),
    4: (
        (34, "frisbee"), (35, "skis"), (36, "snowboard"), (37, "sports ball"), (38, "kite"), (39, "baseball bat"),
        (40, "baseball glove"), (41, "skateboard"), (42, "surfboard"), (43, "tennis racket"),
    ),
    5: ((44, "bottle"), (46, "wine glass"), (47, "cup"), (48, "fork"), (49, "knife"), (50, "spoon"), (51, "bowl")),
    6: (
        (52, "banana"), (53, "apple"), (54, "sandwich"), (55, "orange"), (56, "broccoli"), (57, "carrot"),
        (58, "hot dog"), (59, "pizza"), (60, "donut"), (61, "cake"),
    ),
    7: ((62, "chair"), (63, "couch"), (64, "potted plant"), (65, "bed"), (67, "dining table"), (70, "toilet")),
    8: ((78, "microwave"), (79, "oven"), (80, "toaster"), (81, "sink"), (82, "refrigerator")),
    9: ((72, "tv"), (73, "laptop"), (74, "mouse"), (75, "remote"), (76, "keyboard"), (77, "cell phone")),
    10: (
        (84, "book"), (85, "clock"), (86, "vase"), (87, "scissors"), (88, "teddy bear"), (89, "hair drier"),
        (90, "toothbrush"),
    ),
}  # fmt: skip

COCO_CLASSES: tuple[CocoClass, ...] = tuple(
    sorted(CocoClass(number, name, pane) for pane, members in _BY_PANE.items() for number, name in members)
)
"""The classes by index. Source: COCO's category list, as in naver-ai/NeglectedFreeLunch:coco_dataloader.ipynb."""

INDEX_OF_ID = {item.category_id: index for index, item in enumerate(COCO_CLASSES)}
INDEX_OF_NAME = {item.name: index for index, item in enumerate(COCO_CLASSES)}
