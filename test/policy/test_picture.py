"""What a GPU is given, bit for bit as the published code prepares it on a CPU."""

import numpy as np
import pytest
import torch

from janusvln_ros.policy import picture
from janusvln_ros.policy.preprocess import pixel_rows, resize, spatial_input

SIZES = [
    ((480, 640), 644),  # both sides a little larger
    ((480, 640), 224),
    ((720, 1280), 644),
    ((240, 320), 644),
    ((640, 480), 644),  # taller than wide: cut to the middle
    ((490, 644), 644),  # as it is
    ((600, 800), 644),  # Pillow 13 by itself goes down first
    ((123, 517), 112),
    ((48, 64), 84),
]


def expected(rgb, width):
    resized = resize(rgb, width)
    return spatial_input(resized), pixel_rows(resized)[0]


@pytest.mark.parametrize("size, width", SIZES)
def test_computed_on_tensors_the_encoders_inputs_are_the_same_bits(size, width):
    assert picture.computable(*size, width)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    edges = np.where(noise > 127, 255, 0).astype(np.uint8)  # over- and undershoots are cut
    for rgb in (noise, edges):
        image, pixels = picture.encoder_inputs(torch.from_numpy(rgb), width)
        image_np, pixels_np = expected(rgb, width)
        np.testing.assert_array_equal(image.numpy(), image_np)
        np.testing.assert_array_equal(pixels.numpy(), pixels_np)


def test_any_sides_are_resized_as_pillow_does():
    from PIL import Image

    rng = np.random.default_rng(1)
    for _ in range(25):
        height, width, h, w = rng.integers(15, 300, 4)
        rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        found = picture.resampled(picture.resampled(torch.from_numpy(rgb).int(), 1, w), 0, h)
        across = Image.fromarray(rgb).resize((int(w), int(height)), Image.Resampling.BICUBIC)
        wanted = across.resize((int(w), int(h)), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(found.numpy(), np.asarray(wanted))


def test_what_needs_a_second_resize_is_left_to_the_cpu():
    assert not picture.computable(20, 20, 14)  # fewer pixels than the vision tower takes
    assert not picture.computable(30, 3000, 644)  # no two rows of patches: refused there
