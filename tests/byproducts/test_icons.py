"""Paths of icons, worked out by hand."""

from typing import Any

from luab.byproducts.icons import IconPath, added, icon_paths, left


def record(*actions: tuple[str, int, float]) -> dict[str, Any]:
    """Actions as (kind, class, x); y is 0.5."""
    kinds, classes, places = zip(*actions, strict=True)
    return {"action_type": kinds, "action_class": classes, "action_to_xy": [[x, 0.5] for x in places]}


def test_a_path_goes_from_the_last_add_to_the_last_place() -> None:
    acts = record(("add", 3, 0.1), ("add", 4, 0.7), ("move", 3, 0.2), ("move", 3, 0.3), ("remove", 4, 0.0))
    assert icon_paths(acts) == {
        3: IconPath([[0.1, 0.5], [0.2, 0.5], [0.3, 0.5]], removed=False),
        4: IconPath([[0.7, 0.5]], removed=True),
    }


def test_an_icon_added_again_starts_a_new_path_and_one_never_added_has_none() -> None:
    acts = record(("add", 3, 0.1), ("move", 3, 0.2), ("remove", 3, 0.0), ("add", 3, 0.4), ("move", 5, 0.6))
    assert icon_paths(acts) == {3: IconPath([[0.4, 0.5]], removed=False)}


def test_paths_start_at_the_point_of_the_official_loader_and_end_at_that_of_a_replay() -> None:
    acts = record(("add", 3, 0.1), ("move", 3, 0.2), ("add", 4, 0.6), ("remove", 4, 0.0), ("add", 7, 0.8))
    paths = icon_paths(acts)
    assert {label: path.places[0] for label, path in paths.items()} == added(acts)
    assert {label: path.places[-1] for label, path in paths.items() if not path.removed} == left(acts)
