"""Snakemake's records: export, merge, import, and damaged files."""

import errno
import json
from pathlib import Path

import pytest

from luab.errors import DataError, JobError
from luab.provenance.snakemake_records import _path_of, export_records, import_records, read_records

LONG = "results/runs/" + "a" * 300 + "/run.json"


@pytest.fixture
def folders(tmp_path):
    return tmp_path / "results" / "provenance.jsonl", tmp_path / ".snakemake" / "metadata"


def put(metadata, output, **content):
    path = _path_of(output, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rule": "train", "incomplete": False} | content), encoding="utf-8")


def test_records_are_exported_sorted_and_imported_unchanged(folders):
    provenance, metadata = folders
    put(metadata, "results/b.json", input=["x"], params=["1"])
    put(metadata, LONG, rule="score")
    assert export_records(provenance, metadata) == 2
    lines = [json.loads(line) for line in provenance.read_text(encoding="utf-8").splitlines()]
    assert [line["output"] for line in lines] == ["results/b.json", LONG]
    before = {
        path.relative_to(metadata): json.loads(path.read_text(encoding="utf-8"))
        for path in metadata.rglob("*")
        if path.is_file()
    }
    other = metadata.parent / "other"
    assert import_records(provenance, other) == 2
    assert {
        p.relative_to(other): json.loads(p.read_text(encoding="utf-8")) for p in other.rglob("*") if p.is_file()
    } == before


def test_long_names_are_split_like_snakemake_splits_them(folders):
    _, metadata = folders
    path = _path_of(LONG, metadata).relative_to(metadata)
    assert len(path.parts) == 2 and path.parts[0].startswith("@") and len(path.parts[0]) == 255


def test_a_newer_record_replaces_the_older_and_others_stay(folders):
    provenance, metadata = folders
    put(metadata, "results/a.json", params=["old"])
    put(metadata, "results/b.json")
    export_records(provenance, metadata)
    for path in list(metadata.iterdir()):
        path.unlink()
    put(metadata, "results/a.json", params=["new"])
    put(metadata, "results/c.json", incomplete=True)  # interrupted: not exported
    assert export_records(provenance, metadata) == 2
    assert {r["output"]: r.get("params") for r in read_records(provenance)} == {
        "results/a.json": ["new"],
        "results/b.json": None,
    }


def test_snakemake_s_own_records_are_not_replaced(folders):
    provenance, metadata = folders
    put(metadata, "results/a.json", params=["old"])
    export_records(provenance, metadata)
    put(metadata, "results/a.json", params=["new"])
    assert import_records(provenance, metadata) == 0
    assert json.loads(_path_of("results/a.json", metadata).read_text(encoding="utf-8"))["params"] == ["new"]
    assert import_records(provenance.with_name("absent"), metadata.parent / "other") == 0


@pytest.mark.parametrize(
    "line", ["<<<<<<< HEAD", "[]", '{"rule": "x"}', '{"output": "../x", "rule": "y"}', '{"output": "/x", "rule": "y"}']
)
def test_a_damaged_line_raises_and_nothing_is_written(folders, line):
    provenance, metadata = folders
    provenance.parent.mkdir()
    provenance.write_text('{"output": "results/a.json", "rule": "train"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2: expected the record of a file in this folder"):
        import_records(provenance, metadata)
    assert not metadata.exists()


def test_an_interrupted_import_writes_nothing(folders, monkeypatch):
    """Otherwise the next Snakemake would take a part of the records for all, and train models again."""
    provenance, metadata = folders
    lines = [json.dumps({"output": f"results/{name}", "rule": "r"}) for name in "abc"]
    provenance.parent.mkdir()
    provenance.write_text("\n".join(lines), encoding="utf-8")
    written = []

    def full(path, text, encoding):
        written.append(path)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return path.write_bytes(text.encode())

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(JobError):
            import_records(provenance, metadata)
    assert len(written) == 2 and not [
        path for path in metadata.parent.rglob("*") if path.is_file() and path != provenance
    ]
    assert import_records(provenance, metadata) == 3
