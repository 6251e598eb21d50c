"""Bags are read whichever way they were written, and up to the damage where there is some."""

import shutil
import struct
from pathlib import Path

import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from janusvln_ros.data.bags import BagWriter, header_stamp, message_types, open_bag
from janusvln_ros.errors import InputError


def write_rosbag2(
    bags, path: Path, plugin: StoragePlugin, compression: CompressionMode, count: int = 20
) -> Path:
    writer = Writer(path, version=8, storage_plugin=plugin)
    if compression != CompressionMode.NONE:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(
            "/image", "sensor_msgs/msg/Image", typestore=message_types()
        )
        for n in range(count):
            writer.write(
                connection,
                n * 10**8,
                bytes(
                    message_types().serialize_cdr(
                        bags.image(n * 10**8 + 5, n), "sensor_msgs/msg/Image"
                    )
                ),
            )
    return path


@pytest.mark.parametrize("plugin", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
@pytest.mark.parametrize(
    "compression",
    [CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE, CompressionMode.STORAGE],
)
def test_every_storage_and_compression_reads_the_same(bags, tmp_path, plugin, compression):
    if (plugin, compression) == (StoragePlugin.SQLITE3, CompressionMode.STORAGE):
        pytest.skip("sqlite3 has no storage compression")
    with open_bag(write_rosbag2(bags, tmp_path / "bag", plugin, compression)) as bag:
        messages = list(bag.messages(["/image"]))
        assert [header_stamp(m.cdr) for m in messages] == [n * 10**8 + 5 for n in range(20)]
        assert [int(bag.decode(m).data[0]) for m in messages] == list(range(20))
        assert bag.damage is None


def test_header_stamp_equals_the_decoded_one(bags, tmp_path):
    with open_bag(bags.write_drive(tmp_path / "a.mcap", [1, 2])) as bag:
        for message in bag.messages(["/image", "/odom"]):
            decoded = bag.decode(message).header.stamp
            assert header_stamp(message.cdr) == decoded.sec * 10**9 + decoded.nanosec


def test_what_is_written_is_whole_or_absent(bags, tmp_path):
    with pytest.raises(RuntimeError), BagWriter(tmp_path / "a.mcap") as writer:
        writer.write_message("/image", 0, bags.image(0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_own_messages_carry_their_definition(bags, tmp_path):
    report = bags.types["janusvln_msgs/msg/StepReport"].__dataclass_fields__
    assert {"episode_id", "step", "frame_stamp", "pose_change"} <= set(report)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_truncated_mcap_is_read_up_to_the_cut_and_says_so(bags, tmp_path, share):
    whole = tmp_path / "whole.mcap"
    with BagWriter(whole) as writer:
        for n in range(400):
            writer.write_message("/image", n * 10**8, bags.image(n * 10**8, n, 64, 96))
    cut = tmp_path / "cut.mcap"
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    with open_bag(cut) as bag:
        messages = list(bag.messages())
        assert 0 < len(messages) <= 400 and [int(bag.decode(m).data[0]) for m in messages] == [
            n % 256 for n in range(len(messages))
        ]
        assert "truncated or damaged" in bag.damage and bag.counts["/image"] == len(messages)


def test_truncated_sqlite_is_read_up_to_the_cut_and_says_so(bags, tmp_path):
    folder = write_rosbag2(
        bags, tmp_path / "bag", StoragePlugin.SQLITE3, CompressionMode.NONE, 400
    )
    file = next(folder.glob("*.db3"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with open_bag(folder) as bag:
        messages = list(bag.messages())
        assert 0 < len(messages) < 400 and bag.damage


def test_folder_without_metadata_is_read_and_says_so(bags, tmp_path):
    folder = write_rosbag2(bags, tmp_path / "bag", StoragePlugin.MCAP, CompressionMode.NONE)
    (folder / "metadata.yaml").unlink()
    with open_bag(folder) as bag:
        assert len(list(bag.messages())) == 20
        assert "metadata.yaml" in bag.damage


def test_empty_file_missing_file_and_foreign_file_are_sentences(tmp_path):
    (tmp_path / "empty.mcap").touch()
    (tmp_path / "text.mcap").write_text("not a bag")
    (tmp_path / "folder").mkdir()
    words = {
        "empty.mcap": "0 bytes",
        "text.mcap": "not a readable rosbag2",
        "none.mcap": "does not exist",
        "folder": "holds no rosbag2 file",
    }
    for name, expected in words.items():
        with pytest.raises(InputError, match=expected), open_bag(tmp_path / name):
            pass


def test_missing_topic_lists_what_the_bag_holds_and_guesses(bags, tmp_path):
    with open_bag(bags.write_drive(tmp_path / "a.mcap", [1])) as bag:
        with pytest.raises(
            InputError,
            match=r"no camera topic '/front/image'; it holds .*/image "
            r"\(sensor_msgs/msg/Image.*did you mean --image-topic /image",
        ):
            bag.topic_of_type(["sensor_msgs/msg/Image"], "/front/image", "camera", "--image-topic")


def test_bytes_that_do_not_fit_their_type_are_named(tmp_path):
    with BagWriter(tmp_path / "a.mcap") as writer:
        writer.write("/image", "sensor_msgs/msg/Image", 7, b"\x00\x01\x00\x00abc")
    with (
        open_bag(tmp_path / "a.mcap") as bag,
        pytest.raises(InputError, match="/image at 7 ns does not decode"),
    ):
        bag.decode(next(bag.messages()))


def test_copied_bag_folder_still_opens(bags, tmp_path):
    shutil.move(
        write_rosbag2(bags, tmp_path / "bag", StoragePlugin.MCAP, CompressionMode.NONE),
        tmp_path / "renamed",
    )
    with open_bag(tmp_path / "renamed") as bag:
        assert bag.counts == {"/image": 20}


@pytest.mark.parametrize(("order", "sign"), [(0, ">"), (1, "<"), (7, "<")])
def test_header_stamp_in_both_orders_of_bytes(order, sign):
    cdr = bytes([0, order, 0, 0]) + struct.pack(f"{sign}iI", 7, 5)
    assert header_stamp(cdr) == 7 * 10**9 + 5
    with pytest.raises(InputError, match="11 bytes"):
        header_stamp(cdr[:11])
