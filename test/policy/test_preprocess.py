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
    ],
)
def test_what_is_no_usable_picture_is_refused_with_its_shape(wrong, says):
    with pytest.raises(InputError, match=says):
        preprocess.resize(wrong, 644)
