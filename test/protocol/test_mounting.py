"""Where a scanner sits, of TF's static transforms."""

import math

import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.geometry import half_turn
from janusvln_ros.protocol.mounting import Link, Mount, mount_of

FLAT = (0.0, 0.0, 0.0, 1.0)
UPSIDE_DOWN = (1.0, 0.0, 0.0, 0.0)  # rolled by 180 degrees


def turned(degrees):
    return (0.0, 0.0, *half_turn(math.radians(degrees)))


def test_a_scan_in_the_frame_of_the_base_sits_at_its_middle():
    assert mount_of({}, "base_link", "base_link") == Mount((0.0, 0.0, 0.0))
    assert mount_of({}, "r1/base_link", "/r1/base_link") == Mount((0.0, 0.0, 0.0))


def test_a_scanner_turned_by_ninety_degrees_over_two_links_is_turned():
    links = {
        "mast": Link("base_link", (0.1, 0.0, 0.5), turned(90)),
        "laser": Link("mast", (0.2, 0.0, 0.1), FLAT),
    }
    mount = mount_of(links, "base_link", "laser")
    assert mount.pose == pytest.approx((0.1, 0.2, math.pi / 2)) and not mount.upside_down


def test_base_and_scanner_may_hang_on_a_common_root():
    links = {
        "base_link": Link("base_footprint", (0.0, 0.0, 0.1), turned(90)),
        "laser": Link("base_footprint", (0.0, 0.3, 0.2), turned(90)),
    }
    assert mount_of(links, "base_link", "laser").pose == pytest.approx((0.3, 0.0, 0.0))


def test_a_scanner_that_hangs_upside_down_is_told():
    mount = mount_of(
        {"laser": Link("base_link", (0.0, 0.0, 0.2), UPSIDE_DOWN)}, "base_link", "laser"
    )
    assert mount.upside_down and mount.pose.yaw == pytest.approx(0.0)


def test_what_no_chain_connects_is_not_known():
    assert mount_of({}, "base_link", "laser") is None
    assert mount_of({"laser": Link("other", (0, 0, 0), FLAT)}, "base_link", "laser") is None


@pytest.mark.parametrize(
    ("links", "words"),
    [
        ({"laser": Link("base_link", (0, 0, 0), (0, 0.7, 0, 0.7))}, "does not look level"),
        ({"laser": Link("base_link", (0, 0, 0), (0, 0, 0, 0))}, "not zero"),
        ({"laser": Link("base_link", (math.nan, 0, 0), FLAT)}, "quaternion"),
        ({"laser": Link("a", (0, 0, 0), FLAT), "a": Link("laser", (0, 0, 0), FLAT)}, "circle"),
    ],
)
def test_transforms_that_make_no_corridor_are_refused_by_name(links, words):
    with pytest.raises(InputError, match=words):
        mount_of(links, "base_link", "laser")
