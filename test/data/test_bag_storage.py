"""
Bags as other tools leave them: killed recorders, damaged chunks, splits and compressed files
without metadata. All that is there is read, in order, and what is not is told.
"""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
import zstandard
from mcap.reader import make_reader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from janusvln_ros.data.bag_storage import _log_frames
from janusvln_ros.data.bags import BagWriter, header_stamp, message_types, open_bag
from janusvln_ros.errors import InputError

IMAGE = "sensor_msgs/msg/Image"
TABLES = """
CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
  serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,
  timestamp INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO topics VALUES(1, '/image', 'sensor_msgs/msg/Image', 'cdr', '');
"""


def picture(bags, n):
    return bytes(message_types().serialize_cdr(bags.image(n * 10**8, n), IMAGE))


def numbers(path):
    """Which pictures a bag yields, and what it says of its damage."""
    with open_bag(path) as bag:
        found = [header_stamp(m.cdr) // 10**8 for m in bag.messages(["/image"])]
        return found, bag.damage


def killed_recorder(bags, path, mode, committed, uncommitted=0, cache=-2000):
    """
    A database as a recorder leaves it that is killed: ``committed`` pictures of which the last
    half may be in the log alone, then a transaction that was not finished.
    """
    code = f"""
import os, pickle, sqlite3, sys
rows = pickle.load(sys.stdin.buffer)
database = sqlite3.connect({str(path)!r}, isolation_level=None)
database.executescript({TABLES!r})
database.execute("PRAGMA journal_mode={mode}")
database.execute("PRAGMA cache_size={cache}")
database.execute("PRAGMA wal_autocheckpoint=0")
insert = "INSERT INTO messages(topic_id, timestamp, data) VALUES(1, ?, ?)"
half = {committed} // 2
for part in (rows[:half], rows[half:{committed}]):
    database.execute("BEGIN")
    database.executemany(insert, part)
    database.execute("COMMIT")
    if part == rows[:half]:
        database.execute("PRAGMA wal_checkpoint(FULL)").fetchall()
database.execute("BEGIN")
database.executemany(insert, rows[{committed}:])
os._exit(0)
"""
    import pickle

    rows = [(n * 10**8, picture(bags, n)) for n in range(committed + uncommitted)]
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(rows), check=True)
    return path


def test_messages_that_are_in_the_write_ahead_log_alone_are_read(bags, tmp_path):
    path = killed_recorder(bags, tmp_path / "drive_0.db3", "WAL", 40)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert (tmp_path / "drive_0.db3-wal").stat().st_size
    assert numbers(path) == (list(range(40)), None)
    assert numbers(tmp_path)[0] == list(range(40))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_bad_bytes_within_the_write_ahead_log_are_told(bags, tmp_path):
    path = killed_recorder(bags, tmp_path / "drive_0.db3", "WAL", 40)
    log = tmp_path / "drive_0.db3-wal"
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 0xFF
    log.write_bytes(data)
    found, damage = numbers(path)
    assert found == list(range(20)) and "db3-wal is damaged" in damage


@pytest.mark.parametrize(
    ("frames", "held"),
    [([], 0), ([b"now"], 1), ([b"old"], 0), ([b"now", b"old"], 1), ([b"old", b"now"], 2)],
)
def test_pages_of_a_write_ahead_log_are_those_up_to_the_last_of_its_present_use(
    tmp_path, frames, held
):
    log, size = tmp_path / "drive_0.db3-wal", 512
    salts = {b"now": b"saltSALT", b"old": b"otherone"}
    head = bytes(8) + size.to_bytes(4, "big") + bytes(4) + salts[b"now"] + bytes(8)
    written = [bytes(8) + salts[use] + bytes(8) + bytes(size) for use in frames]
    log.write_bytes(head + b"".join(written))
    assert _log_frames(log) == held


def test_metadata_does_not_hide_the_write_ahead_log(bags, tmp_path):
    folder = tmp_path / "bag"
    write(bags, folder, StoragePlugin.SQLITE3, range(3))
    (folder / "bag.db3").unlink()
    killed_recorder(bags, folder / "bag.db3", "WAL", 40)
    assert numbers(folder) == (list(range(40)), None)


@pytest.mark.parametrize("cut", [1, 5000, 20000])
def test_write_ahead_log_that_is_cut_short_is_told(bags, tmp_path, cut):
    path = killed_recorder(bags, tmp_path / "drive_0.db3", "WAL", 40)
    log = tmp_path / "drive_0.db3-wal"
    os.truncate(log, log.stat().st_size - cut)
    found, damage = numbers(path)
    assert found == list(range(20)) and "db3-wal is damaged or ends within" in damage


def test_unfinished_transaction_of_a_rollback_journal_is_undone_and_told(bags, tmp_path):
    # a small cache makes sqlite write pages of the transaction before it is finished
    path = killed_recorder(bags, tmp_path / "drive_0.db3", "DELETE", 40, 200, cache=10)
    journal = tmp_path / "drive_0.db3-journal"
    before = journal.read_bytes()
    found, damage = numbers(path)
    assert found == list(range(40)) and "what that had written was undone" in damage
    assert journal.read_bytes() == before


def test_empty_companions_are_nothing(bags, tmp_path):
    folder = write(bags, tmp_path / "bag", StoragePlugin.SQLITE3, range(5))
    (folder / "bag.db3-wal").touch()
    (folder / "bag.db3-shm").write_bytes(bytes(32768))
    assert numbers(folder) == (list(range(5)), None)


def write(bags, path, plugin, which, mode=CompressionMode.NONE, version=8):
    writer = Writer(path, version=version, storage_plugin=plugin)
    if mode != CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", IMAGE, typestore=message_types())
        for n in which:
            writer.write(connection, n * 10**8, picture(bags, n))
    return path


def split(bags, folder, plugin, parts, each=3):
    """A folder of splits with the names of rosbag2, without metadata.yaml."""
    folder.mkdir()
    suffix = ".db3" if plugin is StoragePlugin.SQLITE3 else ".mcap"
    for n in range(parts):
        one = write(bags, folder / f"part{n}", plugin, range(n * each, (n + 1) * each))
        (one / f"part{n}{suffix}").rename(folder / f"drive_{n}{suffix}")
        shutil.rmtree(one)
    return folder


def squeeze(path):
    """As rosbag2 compresses a file: its name and .zstd, the file itself gone."""
    target = path.with_name(path.name + ".zstd")
    target.write_bytes(zstandard.ZstdCompressor().compress(path.read_bytes()))
    path.unlink()
    return target


@pytest.mark.parametrize("plugin", StoragePlugin)
def test_splits_past_the_tenth_are_read_in_the_order_of_recording(bags, tmp_path, plugin):
    found, damage = numbers(split(bags, tmp_path / "drive", plugin, 12))
    assert found == list(range(36)) and "metadata.yaml is not there" in damage


@pytest.mark.parametrize("plugin", StoragePlugin)
def test_compressed_splits_without_metadata_are_found(bags, tmp_path, plugin):
    folder = split(bags, tmp_path / "drive", plugin, 11)
    packed = [squeeze(path) for path in sorted(folder.iterdir())]
    assert numbers(folder)[0] == list(range(33))
    assert numbers(packed[0]) == ([0, 1, 2], None)
    cut = packed[3]
    cut.write_bytes(cut.read_bytes()[:-9])
    assert "cut short" in numbers(folder)[1]


def test_file_in_both_forms_counts_once(bags, tmp_path):
    folder = write(bags, tmp_path / "bag", StoragePlugin.MCAP, range(4), CompressionMode.FILE)
    (packed,) = folder.glob("*.zstd")
    (folder / packed.stem).write_bytes(zstandard.decompress(packed.read_bytes(), 1 << 24))
    assert numbers(folder) == ([0, 1, 2, 3], None)


@pytest.mark.parametrize("plugin", StoragePlugin)
def test_messages_compressed_one_by_one_are_read_without_metadata(bags, tmp_path, plugin):
    folder = write(bags, tmp_path / "bag", plugin, range(4), CompressionMode.MESSAGE)
    (folder / "metadata.yaml").unlink()
    assert numbers(folder)[0] == [0, 1, 2, 3]


@pytest.mark.parametrize("plugin", StoragePlugin)
def test_split_that_is_cut_short_hides_none_of_the_others(bags, tmp_path, plugin):
    folder = split(bags, tmp_path / "drive", plugin, 3, each=60)
    victim = sorted(folder.iterdir())[1]
    os.truncate(victim, victim.stat().st_size // 2)
    found, damage = numbers(folder)
    assert set(range(60)) | set(range(120, 180)) <= set(found) and len(found) < 180
    assert found == sorted(found) and victim.name in damage


def test_split_that_metadata_does_not_know_or_that_is_gone_is_told(bags, tmp_path):
    folder = write(bags, tmp_path / "drive", StoragePlugin.MCAP, range(3))
    text = (folder / "metadata.yaml").read_text()
    (folder / "drive.mcap").rename(folder / "drive_0.mcap")
    (folder / "metadata.yaml").write_text(text.replace("drive.mcap", "old/drive_0.mcap"))
    other = write(bags, tmp_path / "other", StoragePlugin.MCAP, range(3, 6))
    shutil.copy(other / "other.mcap", folder / "drive_1.mcap")
    shutil.copy(other / "other.mcap", folder / "unrelated.mcap")
    found, damage = numbers(folder)
    assert found == list(range(6)) and "drive_1.mcap is not in metadata.yaml" in damage
    (folder / "drive_0.mcap").unlink()
    found, damage = numbers(folder)
    assert found == [3, 4, 5] and "names drive_0.mcap, which is not in" in damage


def test_messages_that_metadata_counts_and_nobody_has_are_told(bags, tmp_path):
    folder = write(bags, tmp_path / "drive", StoragePlugin.SQLITE3, range(5))
    text = (folder / "metadata.yaml").read_text()
    (folder / "metadata.yaml").write_text(text.replace("message_count: 5", "message_count: 9"))
    found, damage = numbers(folder)
    assert found == list(range(5)) and "counts 9 messages, 5 are there" in damage


@pytest.mark.parametrize("text", ["", "rosbag2_bagfile_information: [", "a: 1", "\0\0"])
def test_damaged_metadata_hides_nothing(bags, tmp_path, text):
    folder = write(bags, tmp_path / "drive", StoragePlugin.MCAP, range(3))
    (folder / "metadata.yaml").write_text(text)
    found, damage = numbers(folder)
    assert found == [0, 1, 2] and "metadata.yaml is damaged" in damage


def chunked(bags, path, compression, count=60, finish=True):
    """An mcap file of many small chunks, as Foxglove's or rosbag2's recorder write it."""
    with path.open("wb") as stream:
        writer = McapWriter(stream, chunk_size=4000, compression=compression)
        writer.start(profile="ros2", library="another tool")
        text, _ = message_types().generate_msgdef(IMAGE, ros_version=2)
        schema = writer.register_schema(IMAGE, "ros2msg", text.encode())
        channel = writer.register_channel("/image", "cdr", schema)
        for n in range(count):
            writer.add_message(channel, n * 10**8, picture(bags, n), n * 10**8)
        if finish:
            writer.finish()
    return path


@pytest.mark.parametrize("compression", CompressionType)
@pytest.mark.parametrize("finish", [True, False])
def test_bad_bytes_in_a_chunk_end_the_reading_there(bags, tmp_path, compression, finish):
    with chunked(bags, tmp_path / "whole.mcap", compression).open("rb") as stream:
        chunks = make_reader(stream).get_summary().chunk_indexes
    hit = chunks[len(chunks) // 2]
    path = chunked(bags, tmp_path / "a.mcap", compression, finish=finish)
    data = bytearray(path.read_bytes())
    middle = hit.chunk_start_offset + hit.chunk_length - 30
    data[middle : middle + 16] = bytes(b ^ 0x5A for b in data[middle : middle + 16])
    path.write_bytes(data)
    found, damage = numbers(path)
    assert found == list(range(len(found))) and 0 < len(found) < 60 and "a.mcap" in damage


@pytest.mark.parametrize("compression", CompressionType)
def test_recording_without_an_end_is_read_to_its_last_whole_chunk(bags, tmp_path, compression):
    path = chunked(bags, tmp_path / "a.mcap", compression, finish=False)
    found, damage = numbers(path)
    assert found == list(range(len(found))) and len(found) > 40 and "truncated" in damage


def test_bad_page_of_a_database_ends_the_reading_there(bags, tmp_path):
    folder = write(bags, tmp_path / "bag", StoragePlugin.SQLITE3, range(200))
    path = folder / "bag.db3"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8192] = b"\xff" * 8192
    path.write_bytes(data)
    found, damage = numbers(folder)
    assert found == list(range(len(found))) and 0 < len(found) < 200 and damage


def test_read_only_folder_is_read_and_left_alone(bags, tmp_path):
    path = killed_recorder(bags, tmp_path / "drive_0.db3", "WAL", 10)
    names = sorted(p.name for p in tmp_path.iterdir())
    for file in tmp_path.iterdir():
        file.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert numbers(path)[0] == list(range(10))
        assert sorted(p.name for p in tmp_path.iterdir()) == names
    finally:
        tmp_path.chmod(0o755)


PROFILE = {
    "history": "keep_last",
    "depth": 3,
    "reliability": "reliable",
    "durability": "transient_local",
    "deadline": {"sec": 9223372036, "nsec": 854775807},
    "lifespan": {"sec": 9223372036, "nsec": 854775807},
    "liveliness": "automatic",
    "liveliness_lease_duration": {"sec": 9223372036, "nsec": 854775807},
    "avoid_ros_namespace_conventions": False,
}
NUMBERS = PROFILE | {"history": 1, "reliability": 1, "durability": 1, "liveliness": 1}


@pytest.mark.parametrize(
    ("version", "profiles"),
    [(4, "text"), (8, "text"), (9, "list")],
)
@pytest.mark.parametrize("spelling", [PROFILE, NUMBERS])
def test_offered_profiles_are_read_in_every_spelling(bags, tmp_path, version, profiles, spelling):
    import yaml

    folder = write(bags, tmp_path / "bag", StoragePlugin.SQLITE3, range(2))
    path = folder / "metadata.yaml"
    told = yaml.safe_load(path.read_text())
    body = told["rosbag2_bagfile_information"]
    body["version"] = version
    topic = body["topics_with_message_count"][0]["topic_metadata"]
    topic["offered_qos_profiles"] = yaml.dump([spelling]) if profiles == "text" else [spelling]
    body["custom_data"] = {"operator": "Ada"}
    path.write_text(yaml.dump(told))
    with open_bag(folder) as bag:
        (profile,) = bag.qos["/image"]
        assert profile.durability.name == "TRANSIENT_LOCAL" and profile.depth == 3
        assert bag.about == {"operator": "Ada"}


def test_recording_is_readable_at_any_time_and_says_what_made_it(bags, tmp_path):
    path = tmp_path / "drive.mcap"
    with pytest.raises(OSError, match="no room"):
        with BagWriter(path, {"prompt": "evaluation"}, growing=True) as writer:
            for n in range(5):
                writer.write_message("/image", n * 10**8, bags.image(n * 10**8, n))
            writer.tell({"seed": "7"})
            writer.flush()
            assert numbers(path)[0] == list(range(5))
            writer.write_message("/image", 5 * 10**8, bags.image(5 * 10**8, 5))
            raise OSError("no room")
    found, damage = numbers(path)
    assert found == list(range(5)) and "truncated" in damage
    with open_bag(path) as bag:
        assert bag.about == {"prompt": "evaluation", "seed": "7"}


def test_full_disk_leaves_what_was_written(bags, tmp_path):
    path = tmp_path / "drive.mcap"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, before[1]))
    noise = np.random.default_rng(0)
    try:
        with pytest.raises(OSError), BagWriter(path, growing=True) as writer:
            for n in range(200):
                message = bags.image(n * 10**8, n, 64, 64)
                message.data = noise.integers(0, 256, message.data.size, dtype=np.uint8)
                writer.write_message("/image", n * 10**8, message)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found, damage = numbers(path)
    assert found == list(range(len(found))) and len(found) > 20 and "truncated" in damage


def test_metadata_of_a_whole_bag_is_read_back(bags, tmp_path):
    with BagWriter(tmp_path / "a.mcap", {"checkpoint": "tiny"}) as writer:
        writer.write_message("/image", 0, bags.image(0, 0))
        writer.tell({"seed": "7"})
    with open_bag(tmp_path / "a.mcap") as bag:
        assert bag.about == {"checkpoint": "tiny", "seed": "7"} and bag.damage is None


def test_file_that_is_no_bag_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="is no rosbag2"), open_bag(tmp_path / "notes.txt"):
        pass
    sqlite3.connect(tmp_path / "other.db3").executescript("CREATE TABLE a(b)").connection.close()
    with (
        pytest.raises(InputError, match="not a readable rosbag2"),
        open_bag(tmp_path / "other.db3"),
    ):
        pass


@pytest.mark.parametrize("column", ["name", "type"])
@pytest.mark.parametrize("value", ["NULL", "x'00ff'", "7.5"])
def test_a_topic_without_a_name_or_type_is_told(bags, tmp_path, column, value):
    path = tmp_path / "bag.db3"
    tables = TABLES.replace(" NOT NULL", "").replace(" TEXT", "")
    with sqlite3.connect(path) as database:
        database.executescript(tables)
        database.execute(
            "INSERT INTO topics VALUES(2, '/odom', 'nav_msgs/msg/Odometry', 'cdr', '')"
        )
        for n in range(3):
            row = (n + 1, 1, n * 10**8, picture(bags, n))
            database.execute("INSERT INTO messages VALUES(?, ?, ?, ?)", row)
        database.execute("INSERT INTO messages VALUES(9, 2, 900000000, x'00010000')")
        database.execute(f"UPDATE topics SET {column} = {value} WHERE id = 2")
    database.close()
    found, damage = numbers(path)
    assert found == [0, 1, 2] and "no names" in damage


def announced(path, at, number, width=8):
    """Write another number into an mcap file."""
    data = bytearray(path.read_bytes())
    data[at : at + width] = number.to_bytes(width, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("compression", CompressionType)
def test_a_chunk_that_announces_more_than_may_be_is_refused(bags, tmp_path, compression):
    path = chunked(bags, tmp_path / "a.mcap", compression)
    with path.open("rb") as stream:
        start = make_reader(stream).get_summary().chunk_indexes[0].chunk_start_offset
    announced(path, start + 9 + 16, 6_000_000_000)
    with pytest.raises(
        InputError, match=r"a\.mcap: a chunk at byte.*6,000 MB.*JANUSVLN_MAX_BAG_MB"
    ):
        numbers(path)


@pytest.mark.parametrize("compression", [CompressionType.LZ4, CompressionType.ZSTD])
def test_a_chunk_that_unpacks_to_more_than_it_announces_is_refused(
    bags, tmp_path, compression, monkeypatch
):
    with (tmp_path / "a.mcap").open("wb") as stream:
        writer = McapWriter(stream, chunk_size=1, compression=compression)
        writer.start(profile="ros2", library="")
        channel = writer.register_channel("/x", "cdr", writer.register_schema("a/msg/B", "", b""))
        writer.add_message(channel, 1, bytes(9_000_000), 1)
        writer.finish()
    with (tmp_path / "a.mcap").open("rb") as stream:
        start = make_reader(stream).get_summary().chunk_indexes[0].chunk_start_offset
    announced(tmp_path / "a.mcap", start + 9 + 16, 5)
    monkeypatch.setenv("JANUSVLN_MAX_BAG_MB", "4")
    with pytest.raises(InputError, match="JANUSVLN_MAX_BAG_MB"):
        numbers(tmp_path / "a.mcap")


def test_a_message_and_a_file_that_unpack_without_end_are_refused(bags, tmp_path, monkeypatch):
    monkeypatch.setenv("JANUSVLN_MAX_BAG_MB", "1")
    many = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    path = tmp_path / "a.db3.zstd"
    path.write_bytes(many)
    with pytest.raises(InputError, match=r"a\.db3\.zstd.*JANUSVLN_MAX_BAG_EXPANSION"):
        numbers(path)


@pytest.mark.parametrize("value", ["7", "'text'", "NULL", "10000000000", "1.5"])
@pytest.mark.parametrize("column", ["data", "timestamp", "topic_id"])
def test_a_database_with_something_else_than_messages_is_read_up_to_it(
    bags, tmp_path, column, value
):
    folder = write(bags, tmp_path / "drive", StoragePlugin.SQLITE3, range(4))
    (file,) = folder.glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA writable_schema=ON")
        text = database.execute("SELECT sql FROM sqlite_master WHERE name='messages'").fetchone()[
            0
        ]
        text = text.replace("NOT NULL", "").replace("BLOB", "").replace("INTEGER", "")
        database.execute("UPDATE sqlite_master SET sql=? WHERE name='messages'", (text,))
    with sqlite3.connect(file) as database:
        database.execute(f"UPDATE messages SET {column}={value} WHERE rowid=4")
    database.close()
    try:
        found, damage = numbers(folder)
    except InputError as error:
        found, damage = [], str(error)
    if column == "timestamp" and value.isdigit():  # so it was recorded then
        assert sorted(found) == [0, 1, 2, 3]
    else:
        assert found == list(range(len(found))) and damage
