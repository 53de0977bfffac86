"""PASCAL VOC: lists, annotations and masks as in the release; hostile and damaged files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from luab.data.dense import voc
from luab.data.dense.voc import PALETTE, detection, read_annotation, read_mask, segmentation
from luab.errors import DataError

OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>{difficult}
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"""


def thing(name: str = "dog", box: tuple[object, ...] = (1, 1, 60, 40), difficult: int | str | None = 0) -> str:
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    return OBJECT.format(name=name, box=box, difficult=flag)


def document(*objects: str, size: str = "<width>60</width><height>40</height><depth>3</depth>") -> str:
    return f"<annotation><folder>VOC2007</folder><size>{size}</size>{''.join(objects)}</annotation>"


def add(root: Path, year: str, name: str, *objects: str, lists: tuple[str, ...] = (), mask: int = 1) -> None:
    """Adds an image with annotation and mask to a tree, and its name to lists."""
    base = root / "VOCdevkit" / year
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(base / "JPEGImages" / f"{name}.jpg")
    (base / "Annotations" / f"{name}.xml").write_text(document(*objects), encoding="utf-8")
    classes = Image.new("P", (60, 40), mask)
    classes.putpalette(PALETTE)
    classes.save(base / "SegmentationClass" / f"{name}.png")
    for listed in lists:
        with open(base / "ImageSets" / f"{listed}.txt", "a", encoding="utf-8") as file:
            file.write(f"{name}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "voc"
    add(root, "VOC2007", "000012", thing("car", (2, 3, 10, 20)), lists=("Main/trainval",))
    add(root, "VOC2007", "000005", thing("chair", difficult=1), thing("person"), lists=("Main/trainval",))
    add(root, "VOC2007", "000001", thing("dog"), lists=("Main/test",))
    add(root, "VOC2012", "2008_000002", thing("tvmonitor"), lists=("Main/trainval", "Segmentation/val"), mask=20)
    add(root, "VOC2012", "2007_000032", lists=("Segmentation/train",), mask=255)
    return root


def test_detection_is_trained_on_both_years_and_scored_on_the_test_images(root: Path) -> None:
    train, val = detection(root, "train", partial=True), detection(root, "val", partial=True)
    assert train.image_ids == ["000005", "000012", "2008_000002"] and val.image_ids == ["000001"]
    image, target = train[0]
    assert image.shape == (3, 40, 60) and target["image_id"] == "000005"
    assert target["boxes"].tolist() == [[0, 0, 60, 40], [0, 0, 60, 40]]
    assert target["boxes"].canvas_size == (40, 60)
    assert target["labels"].tolist() == [9, 15]
    assert target["difficult"].tolist() == [True, False] and target["iscrowd"].tolist() == [False, False]
    # Pixels 2 to 10 and 3 to 20, counted from 1: 9 columns and 18 rows.
    assert train.target(1)["boxes"].tolist() == [[1, 2, 10, 20]] and train.target(1)["area"].tolist() == [9 * 18]
    assert train.sizes.tolist() == [[60, 40]] * 3
    assert train.objects(0)["xyxy"].dtype == np.float64 and len(train.objects(2)) == 1


def test_masks_are_palette_indices(root: Path) -> None:
    train, val = segmentation(root, "train", partial=True), segmentation(root, "val", partial=True)
    assert (train.image_ids, val.image_ids) == (["2007_000032"], ["2008_000002"])
    image, target = val[0]
    assert target["mask"].shape == image.shape[1:] == (40, 60)
    assert target["mask"].unique().tolist() == [20] and train[0][1]["mask"].unique().tolist() == [255]


def test_the_devkit_folder_itself_may_be_the_root(root: Path) -> None:
    assert len(detection(root / "VOCdevkit", "train", partial=True)) == 3


def test_the_palette_is_that_of_the_devkit() -> None:
    assert PALETTE[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert PALETTE[3 * 20 : 3 * 21] == [0, 64, 128] and PALETTE[3 * 255 :] == [224, 224, 192]


def test_a_list_of_another_length_than_published_is_an_error(root: Path) -> None:
    with pytest.raises(DataError, match=r"VOC2007/ImageSets/Main/trainval.txt: expected the 5,011 images .* found 2"):
        detection(root, "train")


def test_the_published_lists_are_complete_without_partial(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in voc.KNOWN_COUNTS:
        monkeypatch.setitem(voc.KNOWN_COUNTS, key, 2 if key == ("VOC2007", "Main/trainval") else 1)
    assert len(detection(root, "train")) == 3 and len(segmentation(root, "val")) == 1


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("VOC2007/JPEGImages/000012.jpg", "JPEGImages: expected the files of 3 listed images, found 2; .* 000012.jpg"),
        ("VOC2007/Annotations/000012.xml", "000012.xml: cannot read the annotation"),
        ("VOC2012/ImageSets/Main/trainval.txt", "found no file. Fetch and unpack VOC .* `paths.copies.voc`"),
    ],
)
def test_a_missing_file_is_named_before_training(root: Path, file: str, message: str) -> None:
    (root / "VOCdevkit" / file).unlink()
    with pytest.raises(DataError, match=message):
        detection(root, "train", partial=True)


def test_a_missing_mask_is_named_before_training(root: Path) -> None:
    (root / "VOCdevkit/VOC2012/SegmentationClass/2007_000032.png").unlink()
    with pytest.raises(DataError, match=r"SegmentationClass: .* first missing 2007_000032.png"):
        segmentation(root, "train", partial=True)


@pytest.mark.parametrize(
    ("text", "found"),
    [("000005\n../../etc/passwd\n", "passwd"), ("000005 1\n", "'000005 1'"), ("000005\n000005\n", "twice"), ("", "no")],
)
def test_a_list_that_is_none_is_refused(root: Path, text: str, found: str) -> None:
    (root / "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt").write_text(text, encoding="ascii")
    with pytest.raises(DataError, match=f"trainval.txt: expected one name of an image per line.*{found}"):
        detection(root, "train", partial=True)


def test_an_image_of_both_years_is_refused(root: Path) -> None:
    add(root, "VOC2012", "000005", thing(), lists=("Main/trainval",))
    with pytest.raises(DataError, match="000005 is an image of another year as well"):
        detection(root, "train", partial=True)


def annotation(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "a.xml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_fractions_missing_flags_and_boxes_over_the_border_are_read(tmp_path: Path) -> None:
    content = document(thing(box=("45.5", 33, "60.25", 47), difficult=None), thing("cat", (0, 1, 5, 5)))
    size_wh, objects = read_annotation(annotation(tmp_path, content))
    assert size_wh == (60, 40)
    assert objects["xyxy"].tolist() == [[44.5, 32, 60, 40], [0, 0, 5, 5]]
    assert objects["difficult"].tolist() == [False, False] and not objects["crowd"].any()


def test_an_annotation_without_objects_is_empty(tmp_path: Path) -> None:
    _, objects = read_annotation(annotation(tmp_path, document()))
    assert objects.shape == (0,) and objects["xyxy"].shape == (0, 4)


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
LEAK = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (BOMB + document(thing("&c;")), "document type"),
        (LEAK + document(thing("&b;")), "document type"),
        ((LEAK + document(thing("&b;"))).encode("utf-16"), "document type|not XML"),
        (document(thing("&b;")), "not XML"),
        ("<a>" * 300 + "</a>" * 300, "not XML|annotation"),
        (document() + " " * (1 << 20), "larger than 1 MiB"),
        ("<html></html>", "found <html>"),
        (document()[:-5], "not XML"),
        ("", "empty"),
        ("<annotation></annotation>", "no <size>"),
        (document(size="<width>60</width>"), "as <height>"),
        (document(size="<width>0</width><height>40</height>"), "as <width>"),
        (document(size="<width>nan</width><height>40</height>"), "as <width>"),
        (document(size="<width>9e9</width><height>40</height>"), "as <width>"),
        (document(thing("dgo")), "'dgo' is not one of its 20 classes. Did you mean dog"),
        (document(thing(difficult="yes")), "0 or 1 as <difficult>, found 'yes'"),
        (document(thing(box=(1, 1, "inf", 4))), "as <xmax>"),
        (document(thing(box=(-5, 1, 4, 4))), "as <xmin>"),
        (document(thing(box=(30, 1, 20, 4))), "empty or outside"),
        (document(thing(box=(61, 1, 70, 4))), "empty or outside"),
        (document("<object><name>dog</name></object>"), "no <bndbox>"),
    ],
)
def test_hostile_and_damaged_annotations_are_refused(tmp_path: Path, content: str | bytes, found: str) -> None:
    with pytest.raises(DataError, match=rf"a\.xml: expected an annotation of VOC; .*({found})"):
        read_annotation(annotation(tmp_path, content))


@pytest.mark.parametrize(
    ("mode", "value", "found"), [("P", 21, "found 21"), ("RGB", 0, "the mode RGB"), ("P", 254, "found 254")]
)
def test_masks_of_other_content_are_refused(tmp_path: Path, mode: str, value: int, found: str) -> None:
    image = Image.new(mode, (8, 8), value)
    if mode == "P":
        image.putpalette(PALETTE)
    image.save(tmp_path / "m.png")
    with pytest.raises(DataError, match=rf"m.png: expected .*{found}"):
        read_mask(tmp_path / "m.png")


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"m.png .*damaged"):
        read_mask(tmp_path / "m.png")
