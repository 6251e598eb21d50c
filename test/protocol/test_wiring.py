"""Who speaks and who listens: what a user is told of it."""

import pytest

from janusvln_ros.protocol.wiring import (
    NO_TOPIC,
    Endpoint,
    heard_by,
    names,
    no_listener,
    no_publisher,
)

TWIST, STAMPED = "geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped"
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
REMEDIES = {STAMPED: "output: twist_stamped"}


def test_nobody_who_listens_is_told_with_topic_type_and_count():
    told = no_listener("/cmd_vel", TWIST, [], REMEDIES)
    assert "/cmd_vel" in told and TWIST in told and "0 listeners" in told


@pytest.mark.parametrize("count", [1, 3])
def test_listeners_of_another_type_are_told_with_both_types_their_nodes_and_the_remedy(count):
    others = [Endpoint(f"/base{i}", STAMPED) for i in range(count)]
    told = no_listener("/cmd_vel", TWIST, others, REMEDIES)
    words = ("/cmd_vel", TWIST, STAMPED, f"{count} listener", "/base0", "output: twist_stamped")
    assert all(word in told for word in words)


def test_a_listener_that_asks_for_more_than_is_offered_hears_nothing():
    picky = Endpoint("/base", TWIST, "transient local is asked for, volatile offered")
    assert "/base: transient local" in no_listener("/cmd_vel", TWIST, [picky], REMEDIES)


def test_one_listener_that_hears_is_enough_and_the_deaf_are_named():
    both = [Endpoint("/base", TWIST), Endpoint("/mux", STAMPED)]
    assert no_listener("/cmd_vel", TWIST, both, REMEDIES) is None
    told = heard_by("/cmd_vel", TWIST, both)
    assert "1 listener: /base" in told and f"not heard by /mux: {STAMPED}" in told


def test_a_topic_without_publisher_is_told_with_those_of_its_type():
    topics = {"/front/image": [IMAGE], "/back/image": [IMAGE], "/tf": ["tf2_msgs/msg/TFMessage"]}
    told = no_publisher("/image", IMAGE, [], topics)
    assert told.startswith(f"/image ({IMAGE}) has no publisher")
    assert told.endswith("topics of that type: /back/image, /front/image")
    assert no_publisher("/image", IMAGE, [], {}).endswith(NO_TOPIC)


def test_many_topics_are_counted():
    topics = {f"/camera{i}": [IMAGE] for i in range(9)}
    assert no_publisher("/image", IMAGE, [], topics).endswith("/camera4 and 4 more")


def test_the_other_transport_of_the_same_camera_is_offered():
    raw = no_publisher("/image/compressed", COMPRESSED, [], {"/image": [IMAGE]})
    assert "/image is there: image_transport: raw" in raw
    twin = no_publisher("/image", IMAGE, [], {"/image/compressed": [COMPRESSED]})
    assert "image_transport: compressed" in twin


def test_a_publisher_of_another_type_or_of_less_quality_is_no_publisher():
    other = no_publisher("/image", IMAGE, [Endpoint("/camera", COMPRESSED)], {})
    assert f"published as {COMPRESSED}, not as {IMAGE}" in other
    less = Endpoint("/camera", IMAGE, "reliable is asked for, best effort offered")
    assert "/camera: reliable is asked for" in no_publisher("/image", IMAGE, [less], {})
    assert no_publisher("/image", IMAGE, [less, Endpoint("/other", IMAGE)], {}) is None


def test_nobody_who_listens_asks_whether_the_base_runs():
    told = no_listener("/cmd_vel", TWIST, [], REMEDIES)
    assert told.startswith("nobody listens to /cmd_vel") and told.endswith("is the base running?")


@pytest.mark.parametrize(("count", "words"), [(1, "has 1 listener ("), (2, "has 2 listeners (")])
def test_listeners_of_another_type_are_counted_in_words(count, words):
    others = [Endpoint(f"/base{i}", STAMPED) for i in range(count)]
    assert words in no_listener("/cmd_vel", TWIST, others, REMEDIES)


def test_listeners_that_hear_are_counted_in_words():
    ears = [Endpoint("/base", TWIST), Endpoint("/log", TWIST)]
    assert heard_by("/cmd_vel", TWIST, ears) == f"/cmd_vel ({TWIST}) has 2 listeners: /base, /log"


def test_a_listener_of_the_type_whose_quality_does_not_match_is_deaf():
    deaf = Endpoint("/log", TWIST, "reliable is asked for, best effort offered")
    told = heard_by("/cmd_vel", TWIST, [Endpoint("/base", TWIST), deaf])
    assert "has 1 listener: /base" in told
    assert told.endswith("not heard by /log: reliable is asked for, best effort offered")


def test_the_topic_itself_is_not_what_was_meant_instead():
    told = no_publisher("/image", IMAGE, [], {"/image": [IMAGE], "/front": [IMAGE]})
    assert told.endswith("topics of that type: /front")


def test_five_words_are_all_named_and_a_sixth_is_counted():
    assert names("abcde") == "a, b, c, d, e"
    assert names("abcdef") == "a, b, c, d, e and 1 more"
