"""Byproducts of your own images: tables as people have them, and the released schemas."""

import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.byproducts.folder_ab import SCHEMA, WITH_KIND, agreement, index, read_index, read_points
from luab.errors import DataError
from luab.files import read_json

ROWS = [
    {"image": "a/1.jpg", "x": 0.25, "y": 0.5, "time_ms": 570.0, "worker": "w1", "class": "a"},
    {"image": "b/ü 2.jpg", "x": 1.0, "y": 0.0, "time_ms": None, "worker": None, "class": None},
]


@pytest.mark.parametrize(
    "content",
    [
        "image,x,y,time_ms,worker,class\na/1.jpg,0.25,0.5,570,w1,a\nb/ü 2.jpg,1,0,,,\n".encode(),
        "\ufeffimage;x;y;time_ms;worker;class\r\na/1.jpg;0,25;0,5;570;w1;a\r\nb/ü 2.jpg;1,0;0;;;\r\n".encode(),
        "image\tclass\tworker\ty\tx\ttime_ms\na/1.jpg\ta\tw1\t0.5\t.25\t5.7e2\nb/ü 2.jpg\t\t\t0\t1\t\n".encode(),
    ],
    ids=["commas", "excel", "tabs"],
)
def test_tables_are_read_whatever_their_separator(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.csv").write_bytes(content)
    table, bad = read_points(tmp_path / "p.csv")
    assert (table.to_pylist(), bad) == (ROWS, 0) and table.schema.equals(SCHEMA)


def test_parquet_with_other_columns_and_types_is_read(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"n": [1], "y": pa.array([0.5], pa.float32()), "image": ["1"], "x": [0]}), tmp_path / "p.parquet"
    )
    (row,) = read_points(tmp_path / "p.parquet")[0].to_pylist()
    assert row == {"image": "1", "x": 0.0, "y": 0.5, "time_ms": None, "worker": None, "class": None}


def test_the_apostrophe_before_a_formula_is_no_part_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image,x,y,class\n'=1.jpg,0,0,'@a\n'x.jpg,0,0,'b\n", encoding="utf-8")
    table = read_points(tmp_path / "p.csv")[0]
    assert table["image"].to_pylist() == ["=1.jpg", "'x.jpg"] and table["class"].to_pylist() == ["@a", "'b"]


def test_the_index_has_a_card_and_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image,x,y\n1,0,1\n1,1,0\n2,nan,0\n", encoding="utf-8")
    card = index(tmp_path / "p.csv", tmp_path / "i.parquet", tmp_path / "i.json", "d", "count")
    assert card == read_json(tmp_path / "i.json") and card["counts"] == {"points": 2, "images": 1, "bad_records": 1}
    assert agreement(card) == "2 points on 1 images; 1 rows without a point were left out."
    assert read_index(tmp_path / "i.parquet")["x"].to_pylist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,x\n1,0\n", "'y' is missing"),
        ("image,x,y,z\n1,0,0,0\n", "'z' is unknown"),
        ("image,x,y\n1,NaN,0\n2,0,inf\n3,a,0\n4,0,0\n", "3 of 4 rows are not points"),
        ("image,x,y\n,0,0\n", "line 2: expected the name of an image"),
        ("image,x,y\n", "expected at least one point, found none"),
    ],
)
def test_mistakes_of_a_table_are_listed(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "p.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as error:
        index(tmp_path / "p.csv", tmp_path / "i.parquet", tmp_path / "i.json")
    assert message in str(error.value) and not (tmp_path / "i.parquet").exists()


def test_kinds_of_points_are_a_column_of_the_index_if_the_table_has_them(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image,x,y,kind\n1,0,1,gaze\n1,1,0,\n2,0,0,click\n", encoding="utf-8")
    pq.write_table(read_points(tmp_path / "p.csv")[0], tmp_path / "p.parquet")
    for name in ("p.csv", "p.parquet"):
        card = index(tmp_path / name, tmp_path / "i.parquet", tmp_path / "i.json", kinds={"gazed": ["gaze", "click"]})
        table = read_index(tmp_path / "i.parquet")
        assert table.schema.equals(WITH_KIND) and table["kind"].to_pylist() == ["gaze", None, "click"]
        assert card["kinds"] == {"gazed": ["gaze", "click"]}


@pytest.mark.parametrize(("column", "found"), [(",kind", "the kinds b, c"), ("", "no column kind")])
def test_kinds_that_no_row_has_are_listed(tmp_path: Path, column: str, found: str) -> None:
    kinds = (",b", ",c") if column else ("", "")
    rows = [f"image,x,y{column}", *(f"{k},0,0{kind}" for k, kind in enumerate(kinds))]
    (tmp_path / "p.csv").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(DataError) as error:
        index(tmp_path / "p.csv", tmp_path / "i.parquet", tmp_path / "i.json", kinds={"x": ["a", "b"], "y": ["d"]})
    assert f"found {found}" in str(error.value) and "- x: 'a'\n" in str(error.value) and "- y: 'd'" in str(error.value)
    assert not (tmp_path / "i.parquet").exists()


def test_an_index_without_kinds_has_the_bytes_that_it_had_before_there_were_any(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image,x,y\n1,0,1\n", encoding="utf-8")
    card = index(tmp_path / "p.csv", tmp_path / "i.parquet", tmp_path / "i.json")
    assert read_index(tmp_path / "i.parquet").schema.equals(SCHEMA) and "kinds" not in card
    assert card["sha256"] == "a2e829702f945cbebe59b3b20e61fa620ce7a771fc4794160f97aa76861a2d13"


RECORD = """<annotation><folder>my class</folder><filename>img 1</filename><metadata>
<estimateTime>570</estimateTime><worker_id>w9</worker_id><selected>True</selected>
<selectedRecord><time>1640942070514</time><x>0.65</x><y>0.25</y></selectedRecord></metadata></annotation>"""


def test_records_as_those_of_imagenet_ab_with_any_ids_are_read(tmp_path: Path) -> None:
    file = tmp_path / "xml" / "my class" / "img 1.xml"
    file.parent.mkdir(parents=True)
    file.write_text(RECORD, encoding="utf-8")
    with tarfile.open(tmp_path / "ab.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "xml", "train_xml")
    expected = {"image": "img 1", "x": 0.65, "y": 0.25, "time_ms": 570.0, "class": "my class"}
    for source in (tmp_path / "ab.tar.gz", tmp_path / "xml"):
        (row,) = read_points(source)[0].to_pylist()
        assert {name: row[name] for name in expected} == expected
