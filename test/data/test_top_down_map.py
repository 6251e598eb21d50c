"""The floor from above: cut to what matters, looked up, and read back."""

import numpy as np

from janusvln_ros.data.top_down_map import TopDownMap


def floor():
    """Two by three metres of floor in a map of 5 x 6 m from (-1, -2), at half a metre."""
    navigable = np.zeros((12, 10), bool)
    navigable[2:6, 2:8] = True
    return TopDownMap(navigable, (-1.0, -2.0), 0.5)


def test_a_place_is_looked_up_in_metres_and_beyond_the_map_there_is_none():
    assert floor().is_navigable(0.0, -1.0) and floor().is_navigable(2.9, 0.9)
    assert not floor().is_navigable(-0.1, -1.0) and not floor().is_navigable(0.0, 1.0)
    assert not floor().is_navigable(-1.1, -1.0) and not floor().is_navigable(100.0, 0.0)


def test_a_part_keeps_its_place_and_is_no_floor_beyond_the_map():
    part = floor().part((-2, 4), (6, 12))
    assert part.origin == (2.0, -3.0) and part.navigable.shape == (6, 6)
    assert part.navigable[4:, :2].all() and part.navigable.sum() == 4


def test_a_picture_shows_all_floor_and_all_places_with_a_margin():
    alone, wide = floor().around([], 0.5), floor().around([[-3.0, 0.0, 0.0]], 0.5)
    assert alone.origin == (-0.5, -1.5) and alone.navigable.shape == (6, 8)
    assert wide.origin == (-3.5, -1.5) and wide.navigable.shape == (6, 14)
    for part in (alone, wide):
        assert part.navigable.sum() == floor().navigable.sum() == 24
        assert part.is_navigable(0.1, -0.9) and not part.is_navigable(-0.1, -0.9)
    nothing = TopDownMap(np.zeros((4, 4), bool), (0.0, 0.0), 1.0)
    assert nothing.around([[2.0, 0.0, 2.0]], 0.0).navigable.shape == (1, 1)


def test_a_map_comes_back_from_its_file(tmp_path):
    floor().save(tmp_path / "maps" / "a.npz")
    back = TopDownMap.load(tmp_path / "maps" / "a.npz")
    assert (back.navigable == floor().navigable).all()
    assert (back.origin, back.resolution) == ((-1.0, -2.0), 0.5)
