import numpy as np
import pytest

from janusvln_ros.camera.variation import CameraDraw, PictureNoise, draw_camera, noisy
from janusvln_ros.errors import InputError


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    flat = np.full((84, 112, 3), (180, 120, 60), np.uint8)
    flat[20:60, 30:80] = rng.integers(40, 215, (40, 50, 3))
    return flat


def draws(count=600):
    rng = np.random.default_rng(1)
    return [draw_camera(rng) for _ in range(count)]


def test_a_third_of_the_cameras_is_the_published_one_without_noise():
    plain = [draw for draw in draws() if draw == CameraDraw()]
    assert 0.27 < len(plain) / 600 < 0.4


def test_the_others_cover_heights_tilts_and_fields_of_view_and_stay_within_them():
    varied = [draw for draw in draws() if draw != CameraDraw()]
    for name, low, high in (("height", 0.3, 1.5), ("tilt", -15, 15), ("hfov", 60, 100)):
        values = [getattr(draw, name) for draw in varied]
        margin = 0.05 * (high - low)
        assert low <= min(values) < low + margin and high - margin < max(values) <= high
    blurred = np.mean([draw.picture.blur > 0 for draw in varied])
    assert 0.2 < blurred < 0.5


def test_the_same_generator_draws_the_same_camera_and_the_same_noise(picture):
    first, second = (draw_camera(np.random.default_rng(5), 0.0) for _ in range(2))
    assert first == second
    grain = PictureNoise(noise=6.0, jpeg=60)
    a, b = (noisy(picture, grain, np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(a, b)


def test_a_camera_that_changes_nothing_gives_the_very_picture(picture):
    assert noisy(picture, PictureNoise(), np.random.default_rng(0)) is picture


@pytest.mark.parametrize("gain", [0.5, 1.5])
def test_gain_scales_brightness_and_clips(picture, gain):
    seen = noisy(picture, PictureNoise(gain=gain), np.random.default_rng(0))
    wanted = np.clip(np.round(np.array([180, 120, 60]) * gain), 0, 255)
    assert np.abs(seen[5, 5] - wanted).max() <= 1


def test_white_balance_changes_red_and_blue_in_their_own_channels(picture):
    balance = PictureNoise(white_balance=(0.5, 1.0, 2.0))
    assert noisy(picture, balance, np.random.default_rng(0))[5, 5].tolist() == [90, 120, 120]


def test_blur_takes_detail_in_proportion_to_the_width(picture):
    def detail(image):
        return float(np.abs(np.diff(image[25:55, 35:75].astype(float), axis=1)).mean())

    rng = np.random.default_rng(0)
    soft, softer = (noisy(picture, PictureNoise(blur=b), rng) for b in (0.005, 0.02))
    assert detail(softer) < detail(soft) < detail(picture)


def test_noise_has_the_spread_that_is_asked_for(picture):
    seen = noisy(picture, PictureNoise(noise=8.0), np.random.default_rng(0))
    assert np.std(seen[:18].astype(float) - picture[:18]) == pytest.approx(8, rel=0.1)


def test_jpeg_keeps_the_colours_where_they_are(picture):
    seen = noisy(picture, PictureNoise(jpeg=50), np.random.default_rng(0))
    assert np.abs(seen[5, 5].astype(int) - picture[5, 5]).max() < 8
    assert not np.array_equal(seen, picture)


@pytest.mark.parametrize(
    "bad", [{"gain": -1}, {"gamma": 0}, {"blur": 3}, {"noise": -2}, {"jpeg": 101}]
)
def test_values_out_of_range_are_refused_by_name(bad):
    with pytest.raises(InputError, match=f"^{next(iter(bad))} is "):
        PictureNoise(**bad)
