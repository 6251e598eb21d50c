"""Pictures become exactly the inputs that the published code makes of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from janusvln_ros.errors import InputError
from janusvln_ros.policy import preprocess

DATA = Path(__file__).parents[1] / "data" / "policy"
META = json.loads((DATA / "preprocess_meta.json").read_text())
LIMITED = "vga_640x480_with_max_pixels_200x784"
CASES = [case for case in META if case != LIMITED]
ROWS = load_file(DATA / "preprocess.safetensors")


def picture(name: str) -> np.ndarray:
    return np.asarray(Image.open(DATA / f"{name}.png"))


@pytest.mark.parametrize("case", CASES)
def test_resized_picture_is_the_published_one(case):
    resized = preprocess.resize(picture(f"{case}_raw"), 644)
    assert list(resized.shape[:2]) == META[case]["vggt_hw"]
    assert preprocess.resized_shape(*META[case]["raw_hw"], 644) == resized.shape[:2]
    np.testing.assert_array_equal(resized, picture(f"{case}_vggt"))


@pytest.mark.parametrize("case", CASES)
def test_rows_of_the_vision_tower_are_the_published_ones(case):
    values, grid = preprocess.pixel_rows(preprocess.resize(picture(f"{case}_raw"), 644))
    assert (
        list(grid) == META[case]["grid_thw"]
        and len(values) == META[case]["n_rows"]
        and values.dtype == np.float32
    )
    np.testing.assert_allclose(
        values[ROWS[f"{case}.rows"]], ROWS[f"{case}.pixel_values_rows"], atol=1e-6, rtol=0
    )
    np.testing.assert_allclose(
        values[:5].astype(np.float64).sum(1), META[case]["row_sums_first5"], rtol=1e-6
    )
    np.testing.assert_allclose(values.astype(np.float64).sum(), META[case]["sum"], rtol=1e-7)


def test_pixel_limit_makes_the_vision_tower_resize():
    resized = preprocess.resize(picture("vga_640x480_raw"), 644)
    values, grid = preprocess.patch_rows(resized, pixel_limits=(784, 200 * 784))
    assert list(grid) == META[LIMITED]["grid_thw"]
    np.testing.assert_allclose(values.astype(np.float64).sum(), META[LIMITED]["sum"], rtol=1e-7)


def test_too_small_a_picture_is_enlarged_to_the_least_area():
    assert preprocess.smart_size(28, 28, 28, 784 * 16, 10**6) == (112, 112)


def test_480_rows_become_35_patch_rows_by_the_published_float_expression():
    # exact arithmetic gives 34.5, which rounds to 34
    assert preprocess.resized_shape(480, 640, 644) == (490, 644)


def test_spatial_input_is_the_byte_over_255():
    resized = picture("small_320x240_vggt")
    expected = np.transpose(resized, (2, 0, 1)).astype(np.float32) / 255
    got = preprocess.spatial_input(resized)
    assert got.dtype == np.float32 and got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected)


def test_transparent_pixels_are_white():
    clear = np.zeros((28, 28, 4), np.uint8)
    assert (preprocess.to_rgb(clear) == 255).all()


@pytest.mark.parametrize(
    "wrong, says",
    [
        (np.zeros((1, 1, 3), np.uint8), "1x1"),
        (np.zeros((48, 64), np.uint8), r"\[48, 64\]"),
        (np.zeros((48, 64, 3), np.float32), "float32"),
        ("front.jpg", "str"),
        (np.zeros((20, 2000, 3), np.uint8), "rows of patches"),
        (np.zeros((1, 48, 64, 3), np.uint8), r"\[1, 48, 64, 3\]"),
        (np.zeros((48, 64, 3, 1), np.uint8), r"\[48, 64, 3, 1\]"),
        *((np.zeros((48, 64, n), np.uint8), rf"\[48, 64, {n}\]") for n in (0, 1, 2, 5)),
        (np.zeros((13, 14, 3), np.uint8), "14x13"),
        (np.zeros((14, 13, 3), np.uint8), "13x14"),
    ],
)
def test_what_is_no_usable_picture_is_refused_with_its_shape(wrong, says):
    with pytest.raises(InputError, match=says):
        preprocess.resize(wrong, 644)


def test_one_patch_is_enough_of_a_picture():
    picture = np.zeros((14, 14, 3), np.uint8)
    assert preprocess.to_rgb(picture) is picture


def test_what_is_half_transparent_lies_over_opaque_white():
    half = np.full((14, 14, 4), (0, 100, 255, 128), np.uint8)
    assert preprocess.to_rgb(half)[0, 0].tolist() == [127, 177, 255]
    opaque = np.full((14, 14, 4), (0, 100, 255, 255), np.uint8)
    assert preprocess.to_rgb(opaque)[0, 0].tolist() == [0, 100, 255]


def test_two_rows_of_patches_are_the_least():
    assert preprocess.resize(np.zeros((28, 644, 3), np.uint8), 644).shape == (28, 644, 3)
    with pytest.raises(InputError, match="leaves 1 rows"):
        preprocess.resize(np.zeros((14, 644, 3), np.uint8), 644)


@pytest.mark.parametrize("rows", [2, 3, 4, 5, 8])
def test_of_a_tall_picture_the_middle_is_kept(rows):
    """Patch row n of the picture has level n."""
    levels = np.repeat(np.arange(rows, dtype=np.uint8) * 20, 28)
    tall = np.broadcast_to(levels[:, None, None], (28 * rows, 28, 3))
    kept = preprocess.resize(tall, 28)
    assert kept.shape == (28, 28, 3)
    top = (28 * rows - 28) // 2
    np.testing.assert_array_equal(kept[:, 0, 0], levels[top : top + 28])


def test_every_level_is_normalised():
    assert preprocess.LEVELS.shape == (3, 256)


@pytest.mark.parametrize(
    ("size", "limits", "expected"),
    [
        # within the limits: the nearest whole groups, at least one
        ((28, 28), (784, 10**6), (28, 28)),
        ((41, 43), (784, 10**6), (28, 56)),
        ((10, 30), (1, 10**6), (28, 28)),
        ((30, 10), (1, 10**6), (28, 28)),
        # at a limit nothing is done, although the picture itself has another area
        ((74, 28), (784, 3 * 784), (84, 28)),
        ((74, 28), (3 * 784, 10**6), (84, 28)),
        # beyond it the aspect is kept
        ((74, 28), (784, 3 * 784 - 1), (56, 28)),
        ((74, 28), (3 * 784 + 1, 10**6), (84, 56)),
        ((280, 560), (784, 50 * 784), (140, 280)),
        ((280, 560), (800 * 784, 10**9), (560, 1120)),
        # a side never falls below one group
        ((28, 2800), (784, 16 * 784), (28, 1120)),
        ((2800, 28), (784, 16 * 784), (1120, 28)),
    ],
)
def test_sizes_of_the_vision_tower(size, limits, expected):
    assert preprocess.smart_size(*size, 28, *limits) == expected


def test_a_picture_may_be_200_times_longer_than_wide():
    for size in ((14, 2800), (2800, 14)):
        preprocess.smart_size(*size, 28, 784, 10**9)
    for size in ((14, 2801), (2801, 14)):
        with pytest.raises(InputError, match="more than 200 times"):
            preprocess.smart_size(*size, 28, 784, 10**9)


def test_limits_when_driving_are_one_group_and_2048():
    assert preprocess.patch_rows(np.zeros((28, 28, 3), np.uint8))[1] == (1, 2, 2)
    assert preprocess.patch_rows(np.zeros((28 * 32, 28 * 64, 3), np.uint8))[1] == (1, 64, 128)
    assert preprocess.patch_rows(np.zeros((28 * 33, 28 * 64, 3), np.uint8))[1] == (1, 64, 126)
