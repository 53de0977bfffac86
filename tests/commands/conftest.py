"""A study on the toy world that has validation images."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luab.data.manifests.manifest import SCHEMA


@pytest.fixture
def validated_study(toy_world, toy_study, tmp_path):
    """A study whose validation images are the toy training images."""
    rows = pq.read_table(toy_world / "data/manifests/imagenet_train.parquet").to_pylist()
    manifests = tmp_path / "data" / "manifests"
    manifests.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), manifests / "imagenet_val.parquet")
    return toy_study(paths={"data": str(tmp_path / "data")})
