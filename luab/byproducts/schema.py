"""The columns of the indexes of ImageNet-AB and COCO-AB, with the meaning, unit and frame of each."""

import pyarrow as pa


def _field(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, metadata={"doc": doc})


_XY = pa.list_(pa.float64(), 2)
_EACH = "one entry per metadata element (one per annotator): "

SCHEMA = pa.schema(
    [
        _field("image_id", pa.string(), "name of the record's file without suffix, n01440764_10027"),
        _field("wnid", pa.string(), "name of its folder, n01440764"),
        _field("annotators", pa.int16(), "number of metadata elements; 0 where the record is a box only"),
        _field("has_box", pa.bool_(), "whether the record has at least one ILSVRC box"),
        _field("boxes", pa.list_(pa.list_(pa.int32(), 4)), "x0 y0 x1 y1, source pixels, inclusive maximum"),
        _field("width", pa.int32(), "source image, pixels; null where neither metadata nor size has it"),
        _field("height", pa.int32(), "source image, pixels; null where neither metadata nor size has it"),
        _field("assignment_id", pa.list_(pa.string()), _EACH + "id of the submission"),
        _field("hit_id", pa.list_(pa.string()), _EACH + "id of the task on the market place"),
        _field("imagenet_hit_id", pa.list_(pa.string()), _EACH + "id of the task in the tool"),
        _field("worker_id", pa.list_(pa.string()), _EACH + "anonymised worker"),
        _field("hit_submit_time_s", pa.list_(pa.int64()), _EACH + "epoch seconds"),
        _field("estimate_time_ms", pa.list_(pa.int64()), _EACH + "time hovered while not selected; 0 is real"),
        _field("hovered_count", pa.list_(pa.int32()), _EACH + "number of times the pointer entered"),
        _field("selected_count", pa.list_(pa.int32()), _EACH + "number of selecting clicks"),
        _field("page_idx", pa.list_(pa.int32()), _EACH + "page within the task, from 0"),
        _field("image_idx", pa.list_(pa.int32()), _EACH + "place within the page, from 0"),
        _field("selected", pa.list_(pa.bool_()), _EACH + "state of the image when the page was submitted"),
        _field("position_xy", pa.list_(pa.list_(pa.float32(), 2)), _EACH + "in the web page, px; NaN if absent"),
        _field("displayed_height", pa.list_(pa.int32()), _EACH + "px on the page"),
        _field("displayed_width", pa.list_(pa.int32()), _EACH + "a copy of the height (defect); do not use"),
        _field(
            "click_xy",
            pa.list_(pa.list_(_XY)),
            _EACH + "selecting clicks in order; fractions, x right y down",
        ),
        _field("click_time_ms", pa.list_(pa.list_(pa.int64())), _EACH + "epoch ms of each click; null if absent"),
        _field(
            "trace_xy",
            pa.list_(pa.list_(_XY)),
            _EACH + "pointer while not selected; fractions, x right y down",
        ),
        _field("trace_time_ms", pa.list_(pa.list_(pa.int64())), _EACH + "epoch ms of each sample; may repeat"),
        _field("hover_action", pa.list_(pa.list_(pa.string())), _EACH + "enter, leave; the last may stay open"),
        _field("hover_time_ms", pa.list_(pa.list_(pa.int64())), _EACH + "epoch ms of each action"),
    ]
)
"""Index of ImageNet-AB."""

_ACTION = "one entry per action on an icon, in order: "
_PANE = "one entry per change of pane, in order: "
_SAMPLE = "one entry per sample of the pointer, in order: "

COCO_SCHEMA = pa.schema(
    [
        _field("image_id", pa.int32(), "official number of the train2014 image; may occur in several rows"),
        _field("width", pa.int32(), "source image, pixels; 0 where the page could not load it"),
        _field("height", pa.int32(), "source image, pixels; 0 where the page could not load it"),
        _field("displayed_width", pa.int32(), "a copy of the height in the release (defect); do not use"),
        _field("displayed_height", pa.int32(), "px on the page; 0 where it could not be loaded"),
        _field("time_spent_ms", pa.int64(), "time that the page was open"),
        _field("worker_id", pa.string(), "anonymised worker"),
        _field("hit_id", pa.string(), "id of the task"),
        _field("page_id", pa.int32(), "page within the task, from 0"),
        _field("action_type", pa.list_(pa.string()), _ACTION + "add, move or remove"),
        _field("action_class", pa.list_(pa.int16()), _ACTION + "index of the icon's class, 0 to 79 (COCO_CLASSES)"),
        _field("action_from_xy", pa.list_(_XY), _ACTION + "where the icon was; fractions, x right y down; NaN if none"),
        _field("action_to_xy", pa.list_(_XY), _ACTION + "where it went; fractions, x right y down; NaN if none"),
        _field("action_time_ms", pa.list_(pa.int64()), _ACTION + "ms since the page began"),
        _field("pane_index", pa.list_(pa.int16()), _PANE + "0 to 10; pane 0 is open at the start and not logged"),
        _field("pane_name", pa.list_(pa.string()), _PANE + "its name in the tool"),
        _field("pane_time_ms", pa.list_(pa.int64()), _PANE + "ms since the page began"),
        _field("pane_by_keyboard", pa.list_(pa.bool_()), _PANE + "whether a key was used; null if absent"),
        _field("trace_xy", pa.list_(_XY), _SAMPLE + "fractions, x right y down; none while an icon is dragged"),
        _field("trace_time_ms", pa.list_(pa.int64()), _SAMPLE + "ms since the page began; may repeat"),
    ]
)
"""Index of COCO-AB."""
