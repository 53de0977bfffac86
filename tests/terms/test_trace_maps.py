"""Maps of traces: moments at equal intervals of time, in the frame of the crop, mixed, and as a density by hand."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from luab.byproducts.imagenet_ab import SCHEMA
from luab.data.images.augmentations import Moves
from luab.data.images.imagenet import ImageNetAB
from luab.data.images.training_images import View
from luab.data.supervisions.imagenet import BYPRODUCTS, traces
from luab.data.supervisions.makers import Sources, write_targets
from luab.data.supervisions.point_files import MOMENTS, read_extra, write_traces
from luab.objective import PointMixup
from luab.predictions import read_listed
from luab.study.config import Recipe
from luab.study.supervisions import Supervision, entries, mistakes
from luab.terms.heatmap import Heatmap


def _index(folder, *rows):
    """Writes an index: image_id, wnid, and annotations (selected, time in ms, trace of x, y, ms)."""
    names, table = SCHEMA.names[7:], []
    for image_id, wnid, annotations in rows:
        given = [dict.fromkeys(names) for _ in annotations]
        for one, (selected, time, trace) in zip(given, annotations, strict=True):
            one |= {"selected": selected, "estimate_time_ms": time, "position_xy": [0, 0]}
            one |= {"hover_action": [], "hover_time_ms": [], "click_xy": [[0.5, 0.5]], "click_time_ms": [0]}
            one |= {"trace_xy": [list(sample[:2]) for sample in trace]}
            one |= {"trace_time_ms": [sample[2] for sample in trace]}
        row = {"image_id": image_id, "wnid": wnid, "annotators": len(given), "has_box": False, "boxes": []}
        table.append(row | {"width": 10, "height": 10} | {name: [one[name] for one in given] for name in names})
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), folder / "index.parquet", row_group_size=2)
    return Sources(folder / "index.parquet", folder)


def _targets(folder, sources, column, **entry):
    supervision = Supervision.model_validate(entry)
    write_targets(BYPRODUCTS, sources, supervision, folder / "p.parquet", folder / "p.json")
    ids, values = read_extra(folder / "p.parquet", column)
    card = json.loads((folder / "p.json").read_text(encoding="utf-8"))
    assert card["column"] == column == supervision.column
    return dict(zip(ids, values.tolist(), strict=True)), card["notes"]


def test_times_are_means_of_selected_annotations_and_move_with_shuffled_points(tmp_path):
    sources = _index(
        tmp_path,
        ("a", "n01440764", [(True, 100, []), (True, 300, []), (False, 9000, []), (True, 0, [])]),
        ("b", "n01440764", [(True, 500, [])]),
        ("c", "n01440764", [(True, 0, [])]),
    )
    found, notes = _targets(tmp_path, sources, "time_ms", points="click", use="weighting")
    assert found == {"a": 200.0, "b": 500.0} and notes["without_time_ms"] == 1
    assert _targets(tmp_path, sources, "time_ms", points="shuffled", use="weighting")[0] == {"a": 500.0, "b": 200.0}
    random, _ = _targets(tmp_path, sources, "time_ms", points="random", use="weighting")
    assert random.keys() == found.keys() and all(0 <= time < 1 for time in random.values())


def test_moments_are_equally_spaced_in_time(tmp_path):
    still = [(0.0, 0.5, 0), (0.0, 0.5, 300), (1.0, 0.5, 400)]  # three quarters of the time at rest, then to the right
    sources = _index(
        tmp_path,
        ("a", "n01440764", [(True, 1, still)]),
        ("b", "n01440764", [(True, 1, [(0.25, 0.25, 5)]), (True, 1, [(0.75, 0.75, 9), (2.0, 0.0, 10)])]),
        ("c", "n01440764", [(True, 1, [(0.0, 0.0, 0), (1.0, 1.0, 10_000)])]),
    )
    density = {"use": "heatmap", "map": {"kind": "density"}}
    found, _ = _targets(tmp_path, sources, "moments", points="trace", **density)
    rest, moving = MOMENTS * 3 // 4, MOMENTS // 4
    assert [x for x, _ in found["a"]] == pytest.approx([0.0] * rest + [(k + 0.5) / moving for k in range(moving)])
    assert found["b"] == [[0.25, 0.25]] * (MOMENTS // 2) + [[0.75, 0.75]] * (MOMENTS // 2)
    assert [y for _, y in found["c"]] == pytest.approx([(k + 0.5) / MOMENTS for k in range(MOMENTS)])
    shuffled, _ = _targets(tmp_path, sources, "moments", points="shuffled", **density)
    assert all(shuffled[name] != found[name] and shuffled[name] in found.values() for name in found)


def test_traces_of_each_person_are_kept_for_held_out_and_for_several(tmp_path):
    sources = _index(
        tmp_path,
        ("a", "n01440764", [(True, 1, [(0.25, 0.25, 5)]), (True, 1, [(0.75, 0.75, 9), (2.0, 0.0, 10)])]),
        ("b", "n01440764", [(True, 1, [(0.5, 0.5, 0)])]),
        ("c", "n01440764", [(True, 1, [(0.0, 0.0, 0), (1.0, 1.0, 300)]), (False, 1, [(0.5, 0.5, 0)])]),
        ("d", "n01440764", [(True, 1, [])]),
    )
    found = traces(sources, {"c", "d"})
    assert sorted(found) == ["a", "c"]
    assert [one.reshape(-1, 2).tolist() for one in found["a"]] == [[[x, x]] * MOMENTS for x in (0.25, 0.75)]
    (line,) = found["c"]  # a person who did not select the image does not count
    assert line.reshape(-1, 2)[:, 0].tolist() == pytest.approx([(k + 0.5) / MOMENTS for k in range(MOMENTS)])
    card = write_traces(found, tmp_path / "t.parquet", tmp_path / "t.json")
    assert {key: card[key] for key in ("n", "people", "several")} == {"n": 2, "people": 3, "several": 1}
    table = read_listed(tmp_path, "t", ("image_id", "moments"))
    assert table["moments"].to_pylist()[1] == [line.tolist()]


def test_moments_move_with_crop_flip_rotation_and_erasing():
    rotation = (0.0, 1.0, 0.0, -1.0, 0.0, 8.0)  # by 90 degrees
    moves = Moves(8, (rotation,), ((0, 0, 8, 2),))
    xy = np.random.default_rng(0).random((200, 2)).astype(np.float32)
    view = View(torch.zeros(3, 8, 8), moves, (40, 30), (5, 8, 20, 24), True)
    places = [view.place((x, y)) or (-1, -1) for x, y in xy.tolist()]
    moved = view.places(xy)
    assert np.allclose(moved, places, atol=1e-6) and 20 < (moved[:, 0] >= 0).sum() < 100
    assert view.places(np.full((1, 2), np.nan, np.float32)).tolist() == [[-1, -1]]


def test_an_item_counts_if_any_moment_is_in_the_crop(toy_world):
    data = toy_world / "data"
    targets, manifest = data / "targets/imagenet/trace_moments.parquet", data / "manifests/imagenet_train.parquet"
    toy = ImageNetAB(toy_world / "imagenet", manifest, targets, column="moments")
    for i in range(30):
        item = toy[i]
        inside = item["moments"][:, 0] >= 0
        assert item["moments"].shape == (MOMENTS, 2) and item["weights"] == float(inside.any())
        assert item["weights"] == 0 or not np.isnan(toy.points[i, 0])


def test_a_density_by_hand():
    term = Heatmap(1.0, {"kind": "density", "sigma": 0.25})
    near, far = 1.0, math.exp(-(0.5**2) / (2 * 0.25**2))
    # Two moments at the left position, one at the right, one outside.
    moments = torch.tensor([[[0.25, 0.5], [0.25, 0.5], [0.75, 0.5], [-1.0, -1.0]]])
    batch = {"moments": moments, "points": torch.zeros(1, 2), "weights": torch.ones(1)}
    left, right = 2 * near + far, 2 * far + near
    found = term.log_maps(batch, torch.zeros(1, 1, 2), 1, 2).exp()
    assert found.flatten().tolist() == pytest.approx([1.0, right / left])
    maps = torch.tensor([[[[0.0, math.log(3)]]]])
    expected = -(left * math.log(1 / 4) + right * math.log(3 / 4)) / (left + right)
    assert term({"maps": maps}, batch, None).item() == pytest.approx(expected)
    # One moment is a point; its Gaussian has the same shape.
    one, point = {**batch, "moments": torch.tensor([[[0.7, 0.2]]])}, torch.tensor([[[0.7, 0.2]]])
    gaussian = Heatmap(1.0, {"kind": "gaussian", "sigma": 0.25}).log_maps(one, point, 3, 3)
    density = term.log_maps(one, point, 3, 3)
    assert torch.allclose(density, gaussian - gaussian.max(), atol=1e-5)


def test_without_a_moment_inside_a_term_is_zero_and_has_no_gradient():
    maps = torch.zeros(1, 1, 2, 2, requires_grad=True)
    batch = {"moments": torch.full((1, 3, 2), -1.0), "points": torch.full((1, 2), -1.0), "weights": torch.zeros(1)}
    value = Heatmap(1.0, {"kind": "density", "sigma": 0.1})({"maps": maps}, batch, None)
    assert value.item() == 0 and torch.autograd.grad(value, maps)[0].abs().max() == 0


def test_cutmix_keeps_the_moments_that_are_seen(monkeypatch):
    options = {"epochs": 1, "batch_size": 2, "input_px": 16, "optimizer": "sgd", "lr": 1, "weight_decay": 0}
    mixup = PointMixup(Recipe(**options, warmup_epochs=0, cutmix=1.0), 2)
    monkeypatch.setattr(mixup.mixup, "_params_per_batch", lambda: (0.5, True))
    monkeypatch.setattr("luab.objective.cutmix_bbox_and_lam", lambda shape, share: ((0, 16, 0, 8), 0.5))  # left half
    moments = torch.tensor([[[0.2, 0.5], [0.8, 0.5]], [[0.3, 0.5], [0.4, 0.5]]])
    batch = {"images": torch.zeros(2, 3, 16, 16), "labels": torch.tensor([0, 1]), "moments": moments}
    mixed = mixup({**batch, "points": torch.zeros(2, 2), "weights": torch.ones(2)})
    gone = [-1.0, -1.0]
    first, second = mixed["moments"].tolist()
    assert first == [[gone, pytest.approx([0.8, 0.5])], [pytest.approx([0.3, 0.5]), pytest.approx([0.4, 0.5])]]
    assert second == [[gone, gone], [pytest.approx([0.2, 0.5]), gone]]
    assert mixed["weights"].tolist() == [[0.5, 0.5], [0.0, 0.5]]


def test_mistakes_of_columns_are_named():
    density = {"use": "heatmap", "map": {"kind": "density"}}
    given = entries({
        "none": {},
        "click": density,
        "jittered": {"points": "trace", **density, "noise": {"jitter": 0.1}},
        "timed": {"points": "box", "use": "weighting"},
        "pooled": {"points": "none", "use": "pooling"},
        "empty": {"points": "none", "use": "heatmap"},
        "first": {"points": "click", "use": "heatmap", "first": "easy"},
    })  # fmt: skip
    given = {name: Supervision.model_validate(entry) for name, entry in given.items()}
    found = list(mistakes(given, ("none", "click", "trace", "shuffled", "random", "box"), heads=False))
    assert found == [
        "supervisions.click.points: `map.kind: density` needs trace or shuffled, found 'click'.",
        "supervisions.jittered.noise.jitter: moves points, which `map.kind: density` does not read; remove this key.",
        "supervisions.timed.points: `use: weighting` needs click or shuffled or random, found 'box'.",
        "supervisions.empty.points: 'none' is the baseline's name and has no points; every other entry has some, "
        "unless its use is pooling.",
        "supervisions.first.first: `use: heatmap` reads map; remove this key.",
    ]
    assert (given["jittered"].target or "").endswith("_moments") and given["timed"].target == "box_time_ms"
    (only,) = mistakes({"none": Supervision(points="none"), "click": given["click"]}, ("none", "click"), heads=False)
    assert "map.kind: only ImageNet" in only
