"""The reader of large JSON files: entries, positions of errors, windows of every size."""

import json
from pathlib import Path
from typing import Any

import pytest

from luab.byproducts import json_stream
from luab.byproducts.json_stream import array_items, object_items
from luab.errors import DataError

RECORDS: list[Any] = [
    {"a": 1, "b": [1.5, -2e-3, 'ü\\"\n😀']},
    [],
    {},
    "]",
    12,
    -7.25,
    1e-7,
    True,
    None,
    {"c": {"d": [[{}]]}},
]


def of_array(path: Path) -> list[Any]:
    with array_items(path) as items:
        return list(items)


def of_object(path: Path, *keys: str) -> list[Any]:
    with object_items(path, keys) as items:
        return list(items)


def saved(folder: Path, text: str | bytes) -> Path:
    path = folder / "some.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("form", [{}, {"indent": 1}, {"separators": (",", ":"), "ensure_ascii": False}])
def test_records_come_in_order_with_their_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, form: dict[str, Any]
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK_BYTES", chunk)  # the window ends inside numbers, strings and code points
    path = saved(tmp_path, " " + json.dumps(RECORDS, **form) + "\n")
    items = of_array(path)
    assert [item.value for item in items] == RECORDS
    assert [item.number for item in items] == list(range(len(RECORDS)))
    for item in items:
        assert json.JSONDecoder().raw_decode(path.read_bytes()[item.offset :].decode())[0] == item.value
    whole = saved(
        tmp_path, json.dumps({"info": {"x": [1]}, "some": RECORDS, "n": 10, "rest": [1, 2], "more": [3]}, **form)
    )
    named = of_object(whole, "some", "more")
    assert [(item.key, item.number, item.value) for item in named] == [
        *(("some", number, value) for number, value in enumerate(RECORDS)),
        ("more", 0, 3),
    ]


def test_empty_arrays_and_objects(tmp_path: Path) -> None:
    assert of_array(saved(tmp_path, "[]")) == []
    assert of_object(saved(tmp_path, "{}")) == []
    assert of_object(saved(tmp_path, '{"a": []}'), "a") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["byte 0", "a JSON array", "found the end of the file"]),
        ('{"a": 1}', ["byte 0", "found '{'"]),
        ("[1, 2", ["byte 5", "after 2 records"]),
        ("[1, 2,", ["byte 6", "record 2"]),
        ('[{"a": 1}, {"a": [1, 2', ["byte 11", "record 1 is not valid JSON, or truncated"]),
        ('[{"a": 1}, {"a": nope}]', ["byte 11", "record 1"]),
        ("[1 2]", ["byte 3", "after 1 records"]),
        ("[1] [2]", ["byte 4", "found more text"]),
        ('[{"a": 1, "b": {"a": 1, "a": 2}}]', ["byte 1", "the key 'a' occurs twice"]),
        ("[NaN]", ["record 0", "NaN"]),
        ("[-Infinity]", ["-Infinity"]),
        ("[" + "9" * 5000 + "]", ["record 0", "4300"]),
        (b'["\xff"]', ["byte 0", "UTF-8"]),
        ('["\n"]', ["record 0", "control character"]),
    ],
)
def test_invalid_json_is_reported_with_its_position(tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    with pytest.raises(DataError) as error:
        of_array(saved(tmp_path, text))
    for word in [*words, "some.json", "fetch it again"]:
        assert word in str(error.value)


@pytest.mark.parametrize("depth", [5_000, 300_000])
def test_deep_nesting_is_refused(tmp_path: Path, depth: int) -> None:
    for opening in ("[", '{"a":'):
        with pytest.raises(DataError, match=r"record 1.*nested too deeply"):
            of_array(saved(tmp_path, "[0," + opening * depth))


def test_an_endless_record_is_refused_before_it_fills_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK_BYTES", 100)
    monkeypatch.setattr(json_stream, "LARGEST_RECORD_CHARS", 1000)
    assert of_array(saved(tmp_path, '["' + "a" * 900 + '"]'))[0].value == "a" * 900
    with pytest.raises(DataError, match="byte 1: record 0 is not valid JSON, or longer"):
        of_array(saved(tmp_path, '["' + "a" * 100_000 + '"]'))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", ["byte 0", "a JSON object"]),
        ('{"a": [1]', ["comma or the end of the object"]),
        ('{"a": [1], "a": [2]}', ["unique strings", "'a'"]),
        ('{"a": 5}', ["expected an array as the value of 'a'"]),
        ('{"b": [1]}', ["expected the arrays a; a not found"]),
        ('{"a" [1]}', ["a colon"]),
        ("{1: [1]}", ["unique strings"]),
        ('{"a": [1],}', ["a key"]),
        ('{"a": [1, {]}', ["record 1 of 'a'"]),
    ],
)
def test_other_files_than_objects_of_arrays_are_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(DataError) as error:
        of_object(saved(tmp_path, text), "a")
    for word in words:
        assert word in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the JSON file is missing"):
        of_array(tmp_path / "none.json")
