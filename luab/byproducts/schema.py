"""The columns of the index of ImageNet-AB, with the meaning and frame of each."""

import pyarrow as pa


def field(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    """A column with its meaning, unit and frame; for the index of COCO-AB too."""
    return pa.field(name, kind, metadata={"doc": doc})


_XY = pa.list_(pa.float64(), 2)
_EACH = "one entry per metadata element (one per annotator): "

SCHEMA = pa.schema(
    [
        field("image_id", pa.string(), "name of the record's file without suffix, n01440764_10027"),
        field("wnid", pa.string(), "name of its folder, n01440764"),
        field("annotators", pa.int16(), "number of metadata elements; 0 where the record is a box only"),
        field("has_box", pa.bool_(), "whether the record has at least one ILSVRC box"),
        field("boxes", pa.list_(pa.list_(pa.int32(), 4)), "x0 y0 x1 y1, source pixels, inclusive maximum"),
        field("width", pa.int32(), "source image, pixels; null where neither metadata nor size has it"),
        field("height", pa.int32(), "source image, pixels; null where neither metadata nor size has it"),
        field("assignment_id", pa.list_(pa.string()), _EACH + "id of the submission"),
        field("hit_id", pa.list_(pa.string()), _EACH + "id of the task on the market place"),
        field("imagenet_hit_id", pa.list_(pa.string()), _EACH + "id of the task in the tool"),
        field("worker_id", pa.list_(pa.string()), _EACH + "anonymised worker"),
        field("hit_submit_time_s", pa.list_(pa.int64()), _EACH + "epoch seconds"),
        field("estimate_time_ms", pa.list_(pa.int64()), _EACH + "time hovered while not selected; 0 is real"),
        field("hovered_count", pa.list_(pa.int32()), _EACH + "number of times the pointer entered"),
        field("selected_count", pa.list_(pa.int32()), _EACH + "number of selecting clicks"),
        field("page_idx", pa.list_(pa.int32()), _EACH + "page within the task, from 0"),
        field("image_idx", pa.list_(pa.int32()), _EACH + "place within the page, from 0"),
        field("selected", pa.list_(pa.bool_()), _EACH + "state of the image when the page was submitted"),
        field("position_xy", pa.list_(pa.list_(pa.float32(), 2)), _EACH + "in the web page, px; NaN if absent"),
        field("displayed_height", pa.list_(pa.int32()), _EACH + "px on the page"),
        field("displayed_width", pa.list_(pa.int32()), _EACH + "a copy of the height (defect); do not use"),
        field(
            "click_xy",
            pa.list_(pa.list_(_XY)),
            _EACH + "selecting clicks in order; fractions, x right y down",
        ),
        field("click_time_ms", pa.list_(pa.list_(pa.int64())), _EACH + "epoch ms of each click; null if absent"),
        field(
            "trace_xy",
            pa.list_(pa.list_(_XY)),
            _EACH + "pointer while not selected; fractions, x right y down",
        ),
        field("trace_time_ms", pa.list_(pa.list_(pa.int64())), _EACH + "epoch ms of each sample; may repeat"),
        field("hover_action", pa.list_(pa.list_(pa.string())), _EACH + "enter, leave; the last may stay open"),
        field("hover_time_ms", pa.list_(pa.list_(pa.int64())), _EACH + "epoch ms of each action"),
    ]
)
