"""
The parts of reading a bag, one at a time: which files belong to it, what each says of itself, and
the limits of what is unpacked, at the limit and one beyond.
"""

import contextlib
import shutil
import sqlite3
import struct
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from mcap.opcode import Opcode
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter

from janusvln_ros.data.bag_storage import (
    Row,
    Source,
    check_chunks,
    custom_data,
    described,
    left_beside,
    metadata_qos,
    open_source,
    storage_files,
    storage_suffix,
)
from janusvln_ros.errors import InputError

MB = 1_000_000
ROW = Row("/a", "std_msgs/msg/String", 5, b"\0\1\0\0")


def read(rows):
    """What a source with these rows yields, and its damage."""
    source = Source(Path("drive.db3"), rows=lambda topics: iter(rows))
    return list(source.messages(())), source.damage


def noise(count):
    return np.random.default_rng(0).bytes(count)


# messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_time", [0, 1, (1 << 63) - 1])
def test_times_of_recording_are_whole_numbers_of_63_bits(log_time):
    row = ROW._replace(log_time=log_time)
    assert read([row]) == ([row], None)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"log_time": t} for t in (-1, 1 << 63, 1.5, True, "7", None)),
        *({"cdr": data} for data in ("text", None, bytearray(4), 7)),
    ],
)
def test_what_is_no_message_ends_the_reading_with_a_sentence(wrong):
    found, damage = read([ROW, ROW._replace(**wrong), ROW])
    assert found == [ROW]
    assert damage.startswith("drive.db3: reading ended early, at the first damage: a message of")


@pytest.mark.parametrize("wrong", [{"topic": 7}, {"topic": None}, {"msgtype": None}])
def test_a_message_whose_topic_has_no_name_ends_the_reading_with_a_sentence(wrong):
    found, damage = read([ROW, ROW._replace(**wrong), ROW])
    assert found == [ROW]
    assert damage.startswith("drive.db3: reading ended early, at the first damage: a topic is")


def failing(error):
    yield ROW
    raise error


def test_damage_is_told_in_the_words_of_the_error_or_by_its_kind():
    assert read(failing(KeyError("no such page")))[1].endswith("first damage: 'no such page'")
    assert read(failing(EOFError()))[1].endswith("first damage: EOFError")


def test_the_first_damage_is_the_one_that_is_told():
    source = Source(Path("a"), damage="cut short", rows=lambda topics: failing(ValueError("x")))
    assert list(source.messages(())) == [ROW] and source.damage == "cut short"


def test_what_may_not_be_read_is_no_damage():
    with pytest.raises(InputError, match="too large"):
        read(failing(InputError("too large")))


def test_counting_messages_in_any_order_of_time():
    source = Source(Path("a"))
    assert (source.start, source.end, source.counts) == (0, 0, {})
    for topic, time in [("/a", 5), ("/b", 3), ("/a", 9), ("/a", 4)]:
        source.count(Row(topic, "T", time, b""))
    assert (source.start, source.end) == (3, 9)
    assert source.counts == {"/a": 3, "/b": 1} and source.topics == {"/a": "T", "/b": "T"}


def test_a_recording_in_simulated_time_may_start_at_zero():
    source = Source(Path("a"), counts={"/silent": 0})
    for time in (0, 7):
        source.count(Row("/a", "T", time, b""))
    assert (source.start, source.end) == (0, 7)


@given(st.binary(min_size=0, max_size=5000))
def test_a_compressed_message_is_unpacked_and_what_follows_it_is_ignored(content):
    packed = zstandard.compress(content)
    for behind in (b"", b"x", bytes(1024), bytes(5000)):
        (found,), damage = read([ROW._replace(cdr=packed + behind)])
        assert found.cdr == content and damage is None


@pytest.mark.parametrize("cut", [1, 2000])
def test_a_compressed_message_that_is_cut_short_is_damage(cut):
    found, damage = read([ROW._replace(cdr=zstandard.compress(noise(5000))[:-cut])])
    assert found == [] and "a compressed message is cut short" in damage


@pytest.mark.parametrize("content", [bytes, noise])
def test_a_message_may_unpack_to_the_limit_and_no_further(content, monkeypatch):
    monkeypatch.setenv("JANUSVLN_MAX_BAG_MB", "1")
    (found,), damage = read([ROW._replace(cdr=zstandard.compress(content(MB)))])
    assert len(found.cdr) == MB and damage is None
    with pytest.raises(InputError, match=r"unpacks to.*JANUSVLN_MAX_BAG_MB"):
        read([ROW._replace(cdr=zstandard.compress(content(MB + 1)))])


# which files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.mcap", ".mcap"),
        ("a.db3", ".db3"),
        ("a.mcap.zstd", ".mcap"),
        ("a.db3.zst", ".db3"),
        ("a.zstd", ""),
        ("a.bag", ""),
        ("a.bag.zst", ""),
        ("a.mcap.gz", ""),
        ("a.mcap.zst.zst", ""),
        ("mcap", ""),
    ],
)
def test_kinds_of_files_by_their_names(name, suffix):
    assert storage_suffix(Path(name)) == suffix


def chosen(folder, there, listed=()):
    """Names of the files that are read of those that are there, and the notes without paths."""
    for name in there:
        (folder / name).touch()
    files, notes = storage_files(folder, listed)
    return sorted(p.name for p in files), [n.replace(f"{folder}/", "") for n in notes]


def test_without_metadata_every_storage_file_is_read(tmp_path):
    assert chosen(tmp_path, ["a.mcap", "b.db3", "c.txt", "d.mcap.zstd"]) == (
        ["a.mcap", "b.db3", "d.mcap.zstd"],
        [],
    )


def test_of_both_forms_of_a_file_the_plain_one_is_read(tmp_path):
    assert chosen(tmp_path, ["a.mcap", "a.mcap.zstd"])[0] == ["a.mcap"]


def test_a_doubled_ending_is_a_name_and_no_compression(tmp_path):
    assert chosen(tmp_path, ["a.mcap", "a.mcap.mcap"])[0] == ["a.mcap", "a.mcap.mcap"]


def test_listed_files_and_their_unlisted_splits_are_read_and_strangers_are_not(tmp_path):
    there = ["drive_0.mcap", "drive_1.mcap", "drive_12.mcap", "other.mcap"]
    files, notes = chosen(tmp_path, there, ["bag/drive_0.mcap"])
    assert files == ["drive_0.mcap", "drive_1.mcap", "drive_12.mcap"]
    assert sorted(notes) == [
        f"drive_{n}.mcap is not in metadata.yaml; it was read too" for n in (1, 12)
    ]


def test_where_nothing_listed_is_there_all_others_are_read_and_both_are_told(tmp_path):
    files, notes = chosen(tmp_path, ["other.mcap"], ["drive_0.mcap"])
    assert files == ["other.mcap"]
    assert notes == [
        f"metadata.yaml names drive_0.mcap, which is not in {tmp_path}",
        "other.mcap is not in metadata.yaml; it was read too",
    ]


def test_a_listed_file_that_was_unpacked_is_there(tmp_path):
    assert chosen(tmp_path, ["a.mcap"], ["a.mcap.zstd"]) == (["a.mcap"], [])


def test_a_folder_without_a_bag_says_what_it_holds_instead(tmp_path):
    with pytest.raises(InputError, match=r"no rosbag2 file.*it holds nothing"):
        storage_files(tmp_path, [])
    names = [f"{n:02}.txt" for n in range(12)]
    with pytest.raises(InputError, match="no rosbag2 file") as refused:
        chosen(tmp_path, names)
    assert [name for name in names if name in str(refused.value)] == names[:10]


@pytest.mark.parametrize(
    "text",
    [
        "rosbag2_bagfile_information: {relative_file_paths: [a.mcap, 7]}",
        "rosbag2_bagfile_information: {relative_file_paths: [7, a.mcap]}",
        "rosbag2_bagfile_information: {version: 8}",
        "rosbag2_bagfile_information: [unfinished\nmore: {",
        "rosbag2_bagfile_information: 7",
    ],
)
def test_damaged_metadata_is_told_in_one_line(tmp_path, text):
    (tmp_path / "metadata.yaml").write_text(text)
    information, problem = described(tmp_path)
    assert information == {} and "\n" not in problem
    assert problem.startswith(f"{tmp_path}/metadata.yaml is damaged (")


def test_metadata_is_told_or_missing(tmp_path):
    assert "metadata.yaml is not there" in described(tmp_path)[1]
    text = "rosbag2_bagfile_information: {relative_file_paths: [a.mcap, b.mcap]}"
    (tmp_path / "metadata.yaml").write_text(text)
    assert described(tmp_path) == ({"relative_file_paths": ["a.mcap", "b.mcap"]}, None)


def test_what_somebody_wrote_about_a_bag_is_text():
    assert custom_data({"custom_data": {"operator": "Ada", 7: 1.5}}) == {
        "operator": "Ada",
        "7": "1.5",
    }
    for nothing in ({}, {"custom_data": None}, {"custom_data": "text"}):
        assert custom_data(nothing) == {}


def test_topics_without_profiles_offer_none_and_damaged_entries_are_left_out():
    entries = [{"topic_metadata": {"name": "/a"}}, {}, {"topic_metadata": {"name": "/b"}}]
    assert metadata_qos({"topics_with_message_count": entries}) == {"/a": [], "/b": []}
    assert metadata_qos({"topics_with_message_count": None}) == metadata_qos({}) == {}


def test_only_logs_with_something_in_them_are_left_beside_a_database(tmp_path):
    path = tmp_path / "a.db3"
    (tmp_path / "a.db3-wal").touch()
    (tmp_path / "a.db3-shm").write_bytes(b"x")
    (tmp_path / "a.db3-journal").mkdir()
    assert left_beside(path) == []
    (tmp_path / "a.db3-wal").write_bytes(b"x")
    assert left_beside(path) == [tmp_path / "a.db3-wal"]


# chunks of mcap ------------------------------------------------------------------------------


def record(opcode, content):
    return bytes([opcode]) + struct.pack("<Q", len(content)) + content


def chunk(told, compression=b"", packed=b""):
    """A chunk that announces ``told`` bytes."""
    return record(
        Opcode.CHUNK,
        struct.pack("<QQQI", 0, 0, told, 0)
        + struct.pack("<I", len(compression))
        + compression
        + struct.pack("<Q", len(packed))
        + packed,
    )


@pytest.fixture
def checked(tmp_path, monkeypatch):
    """Checks an mcap file of these records at a limit of 1 MB."""
    monkeypatch.setenv("JANUSVLN_MAX_BAG_MB", "1")

    def check(*records):
        path = tmp_path / "a.mcap"
        path.write_bytes(b"\x89MCAP0\r\n" + b"".join(records))
        check_chunks(Path("bag/a.mcap"), path)

    return check


def test_a_chunk_may_announce_the_limit_and_no_more(checked):
    checked(chunk(MB))
    for told in (MB + 1, 1 << 63, (1 << 64) - 1):
        with pytest.raises(InputError, match=r"bag/a\.mcap: a chunk at byte 17 unpacks to"):
            checked(chunk(told))


def test_a_chunk_behind_other_records_is_found_up_to_the_end_of_the_file(checked):
    others = [record(Opcode.HEADER, bytes(300)), record(Opcode.SCHEMA, b""), chunk(5)]
    with pytest.raises(InputError, match=f"a chunk at byte {8 + 309 + 9 + 49 + 9} unpacks to"):
        checked(*others, chunk(2 * MB))
    with pytest.raises(InputError, match="a chunk"):
        checked(*others, chunk(2 * MB), b"cut")


def test_a_large_record_that_is_no_chunk_is_not_judged_as_one(checked):
    checked(record(Opcode.ATTACHMENT, chunk(2 * MB)[9:]))


@pytest.mark.parametrize("missing", [1, 8, 20])
def test_a_chunk_that_is_not_whole_is_left_to_the_reader(checked, missing):
    checked(chunk(2 * MB)[:-missing])
    checked(record(Opcode.CHUNK, chunk(2 * MB)[9:-missing]), chunk(5))


@pytest.mark.parametrize("streamed", [False, True])
def test_the_size_in_a_zstd_frame_counts_where_there_is_one(checked, streamed):
    compressor = zstandard.ZstdCompressor(write_content_size=not streamed)
    checked(chunk(5, b"zstd", compressor.compress(bytes(MB))))
    large = chunk(5, b"zstd", compressor.compress(bytes(MB + 1)))
    with contextlib.nullcontext() if streamed else pytest.raises(InputError, match="unpacks to"):
        checked(large)
    with pytest.raises(InputError, match="unpacks to"):
        checked(chunk(2 * MB, b"zstd", compressor.compress(b"")))


def test_a_zstd_frame_that_is_none_is_left_to_the_reader(checked):
    checked(chunk(5, b"zstd", b"no frame"))


@pytest.mark.parametrize("content", [bytes, noise])
def test_what_comes_out_of_an_lz4_frame_counts(checked, content):
    checked(chunk(5, b"lz4", lz4.frame.compress(content(MB))))
    with pytest.raises(InputError, match="unpacks to"):
        checked(chunk(5, b"lz4", lz4.frame.compress(content(MB + 1))), chunk(5))
    with pytest.raises(InputError, match="unpacks to"):
        checked(chunk(5), chunk(5, b"lz4", lz4.frame.compress(content(3 * MB))))


def test_an_lz4_frame_that_is_damaged_is_left_to_the_reader(checked):
    packed = lz4.frame.compress(noise(MB))
    checked(chunk(5, b"lz4", packed[:-100]))
    checked(chunk(5, b"lz4", packed[:500_000] + bytes(500_000)))
    checked(chunk(5, b"lz4", bytes(100_000)))


# what one file says --------------------------------------------------------------------------


def opened(path, topics=()):
    """A file's source, and its rows."""
    with contextlib.ExitStack() as stack:
        source = open_source(path, stack)
        return source, list(source.messages(topics))


def recording(path, times, schema="ros2msg", finish=True, silent=True, qos=""):
    """An mcap file with two channels of /a and one of /b, every third message in each."""
    with path.open("wb") as stream:
        writer = McapWriter(stream, compression=CompressionType.NONE)
        writer.start(profile="ros2", library="another tool")
        kind = writer.register_schema("std_msgs/msg/String", schema, b"string data")
        metadata = {"offered_qos_profiles": qos}
        names = ["/a", "/b", "/a"] + ["/silent"] * silent
        channels = [writer.register_channel(name, "cdr", kind, metadata) for name in names]
        for n, time in enumerate(times):
            writer.add_message(channels[n % 3], time, bytes([0, 1, 0, 0, n]), time)
        writer.finish()
        end = stream.tell()
    if not finish:
        path.write_bytes(path.read_bytes()[: end - 8])
    return path


@pytest.mark.parametrize("finish", [True, False])
def test_a_recording_says_what_is_in_it_with_and_without_its_end(tmp_path, finish):
    source, rows = opened(recording(tmp_path / "a.mcap", range(4, 11), finish=finish))
    assert source.counts == {"/a": 5, "/b": 2, "/silent": 0}
    assert (source.start, source.end) == (4, 10)
    assert set(source.topics) == set(source.counts)
    assert [row.cdr[4] for row in rows] == list(range(7))
    assert [row.topic for row in rows] == ["/a", "/b", "/a"] * 2 + ["/a"]
    assert (source.damage is None) == finish


@pytest.mark.parametrize("finish", [True, False])
def test_what_rosbag2_wrote_of_a_bag_into_its_file_is_read(tmp_path, finish):
    path = tmp_path / "a.mcap"
    with path.open("wb") as stream:
        writer = McapWriter(stream, compression=CompressionType.NONE)
        writer.start(profile="ros2", library="libmcap")
        kind = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
        writer.add_message(writer.register_channel("/a", "cdr", kind), 1, bytes([0, 1, 0, 0]), 1)
        told = "version: 9\ncustom_data: {operator: Ada}\n"
        writer.add_metadata("rosbag2", {"serialized_metadata": told})
        writer.finish()
    if not finish:
        path.write_bytes(path.read_bytes()[:-8])
    source, _ = opened(path)
    assert source.about == {"operator": "Ada"}


@pytest.mark.parametrize("finish", [True, False])
@pytest.mark.parametrize("topics", [["/b"], ["/a", "/b"], ["/none"]])
def test_only_the_topics_asked_for_are_read(tmp_path, finish, topics):
    _, rows = opened(recording(tmp_path / "a.mcap", range(6), finish=finish), topics)
    assert [r.topic for r in rows] == [t for t in ["/a", "/b", "/a"] * 2 if t in topics]


@pytest.mark.parametrize("finish", [True, False])
@pytest.mark.parametrize("schema", ["ros2msg", "ros2idl"])
def test_definitions_are_told_from_idl(tmp_path, finish, schema):
    source, _ = opened(recording(tmp_path / "a.mcap", range(3), schema, finish))
    assert set(source.definitions) == {
        ("std_msgs/msg/String", "string data", schema == "ros2idl"),
    }


def database(path, topics=((1, "/a"), (2, "/b")), rows=6, page_size=4096):
    """A database of rosbag2 with its messages in turn on its topics."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size={page_size}")
        connection.executescript(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT,"
            " serialization_format TEXT, offered_qos_profiles TEXT);"
            "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER,"
            " timestamp INTEGER, data BLOB);"
        )
        for number, name in topics:
            connection.execute(
                "INSERT INTO topics VALUES(?, ?, 'std_msgs/msg/String', 'cdr', '')", (number, name)
            )
        for n in range(rows):
            connection.execute(
                "INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)",
                (topics[n % len(topics)][0], n, bytes([0, 1, 0, 0, n]) + bytes(2000)),
            )
        connection.commit()
    return path


@pytest.mark.parametrize("topics", [[], ["/b"], ["/a"], ["/none"]])
def test_rows_of_a_whole_database(tmp_path, topics):
    source, rows = opened(database(tmp_path / "a.db3"), topics)
    assert source.counts == {"/a": 3, "/b": 3} and (source.start, source.end) == (0, 5)
    assert [r.cdr[4] for r in rows] == [
        n for n in range(6) if not topics or ["/a", "/b"][n % 2] in topics
    ]
    assert source.definitions == [] and source.damage is None


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("name", ["a.db3", "50% of #1?.db3"])
def test_a_database_that_is_cut_short_is_read_to_the_cut(tmp_path, page_size, name):
    path = database(tmp_path / name, rows=200, page_size=page_size)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    source, rows = opened(path)
    found = [r.cdr[4] for r in rows]
    assert found == list(range(len(found))) and 40 < len(found) < 200
    assert f"{path} is truncated or damaged; read up to the first bad row" in source.damage
    assert sum(source.counts.values()) == len(found)
    _, some = opened(path, ["/b"])
    assert [r.cdr[4] for r in some] == found[1::2]
    assert path.read_bytes() == whole[: len(whole) * 2 // 3]


def test_a_message_of_a_topic_that_nobody_announced_ends_the_reading(tmp_path):
    path = database(tmp_path / "a.db3", rows=200)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE messages SET topic_id=9 WHERE id=4")
        connection.commit()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    source, rows = opened(path)
    assert [r.cdr[4] for r in rows] == [0, 1, 2]
    assert source.damage.endswith("read up to the first bad row: 9")


def test_a_header_that_promises_less_than_there_is_takes_nothing_away(tmp_path):
    path = database(tmp_path / "a.db3")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        # edited by hand: read row by row, as a damaged file is
        connection.execute("UPDATE topics SET offered_qos_profiles = '- {depth: 3}'")
        connection.commit()
    data = bytearray(path.read_bytes())
    data[28:32] = bytes(4)  # as versions of SQLite wrote it that did not count pages
    path.write_bytes(data)
    source, rows = opened(path)
    assert [r.cdr[4] for r in rows] == list(range(6)) and source.damage is None


@pytest.mark.parametrize("kind", ["db3", "mcap"])
def test_a_whole_file_says_how_its_topics_were_offered(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    ever = "{sec: 9223372036, nsec: 854775807}"
    qos = (
        f"- {{history: 1, depth: 3, reliability: 1, durability: 1, deadline: {ever}, "
        f"lifespan: {ever}, liveliness: 1, liveliness_lease_duration: {ever}, "
        "avoid_ros_namespace_conventions: false}"
    )
    if kind == "mcap":
        recording(path, range(3), qos=qos)
    else:
        with contextlib.closing(sqlite3.connect(database(path))) as connection:
            connection.execute("UPDATE topics SET offered_qos_profiles = ?", (qos,))
            connection.commit()
    source, _ = opened(path)
    (profile,) = source.qos["/b"]
    assert profile.depth == 3 and profile.durability.name == "TRANSIENT_LOCAL"


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0", b"\xff" * 40])
def test_what_is_no_database_is_told_as_such(tmp_path, content):
    (tmp_path / "a.db3").write_bytes(content)
    source, rows = opened(tmp_path / "a.db3")
    assert rows == [] and source.topics == {} and "not a database" in source.damage


def test_a_header_that_promises_more_than_a_disk_holds_is_told(tmp_path):
    path = database(tmp_path / "a.db3")
    data = bytearray(path.read_bytes())
    data[16:18], data[28:32] = b"\0\1", b"\xff" * 4
    path.write_bytes(data)
    source, rows = opened(path)
    assert rows == [] and source.damage


def test_empty_and_missing_files_are_refused(tmp_path):
    (tmp_path / "a.db3").touch()
    with pytest.raises(InputError, match=r"a\.db3 is empty \(0 bytes\)"):
        opened(tmp_path / "a.db3")
    with pytest.raises(InputError, match=r"b\.mcap cannot be read: No such file"):
        opened(tmp_path / "b.mcap")


def test_an_empty_database_with_a_log_beside_it_is_not_called_empty(tmp_path):
    (tmp_path / "a.db3").touch()
    (tmp_path / "a.db3-wal").write_bytes(b"x" * 100)
    source, rows = opened(tmp_path / "a.db3")
    assert rows == [] and "a.db3-wal is damaged" in source.damage
    assert "0 of its 1 pages could be used" in source.damage


def test_an_mcap_file_of_nothing_is_told(tmp_path):
    (tmp_path / "a.mcap.zstd").write_bytes(zstandard.compress(b""))
    source, rows = opened(tmp_path / "a.mcap.zstd")
    assert rows == [] and "is truncated or damaged; read up to byte 0 of 0" in source.damage


# what has to be unpacked first ---------------------------------------------------------------


@pytest.fixture
def packed(tmp_path):
    """A recording that was compressed as a whole, and the bytes of the recording."""
    plain = recording(tmp_path / "a.mcap", range(6))
    data = plain.read_bytes()
    plain.unlink()
    (tmp_path / "a.mcap.zstd").write_bytes(zstandard.compress(data))
    return tmp_path / "a.mcap.zstd", data


def test_bytes_behind_a_compressed_file_are_ignored(packed):
    path, _ = packed
    path.write_bytes(path.read_bytes() + bytes(5000))
    source, rows = opened(path)
    assert len(rows) == 6 and source.damage is None


def test_a_compressed_file_is_read_up_to_its_damage_and_both_are_told(packed):
    path, _ = packed
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    source, _ = opened(path)
    assert f"{path} is cut short; unpacked up to its end" in source.damage
    path.write_bytes(b"no frame at all")
    source, rows = opened(path)
    assert rows == []
    assert source.damage.startswith(f"{path} is damaged; unpacked up to the damage: ")
    assert f"; {path} is truncated or damaged; read up to byte 0" in source.damage


@pytest.mark.parametrize(
    ("size", "refused"), [(MB, False), (MB + 1, True), (MB // 2, False), (2 * MB, True)]
)
def test_a_file_may_unpack_far_only_to_the_limit(tmp_path, monkeypatch, size, refused):
    monkeypatch.setenv("JANUSVLN_MAX_BAG_MB", "1")
    monkeypatch.setenv("JANUSVLN_MAX_BAG_EXPANSION", "10")
    path = tmp_path / "a.mcap.zst"
    path.write_bytes(zstandard.compress(bytes(size)))
    with (
        pytest.raises(InputError, match=r"unpacks to.*times.*JANUSVLN_MAX_BAG_EXPANSION")
        if refused
        else contextlib.nullcontext()
    ):
        opened(path)


def test_a_large_file_that_expands_little_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setenv("JANUSVLN_MAX_BAG_MB", "1")
    monkeypatch.setenv("JANUSVLN_MAX_BAG_EXPANSION", "1")
    path = tmp_path / "a.mcap.zst"
    path.write_bytes(zstandard.compress(noise(3 * MB)))
    source, _ = opened(path)
    assert "truncated or damaged" in source.damage


def test_no_room_for_a_copy_is_one_sentence(tmp_path, monkeypatch):
    path = database(tmp_path / "a.db3")
    (tmp_path / "a.db3-wal").write_bytes(b"x")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InputError, match=r"has no room for that \(No space left.*TMPDIR"):
        opened(path)


def log_of(folder, first, second, behind=0, cut=None):
    """
    A database whose recorder was killed: ``first`` messages that went from its write-ahead log to
    the database, then ``second`` that are in the log alone, over older frames; the log is cut to
    its used frames and ``behind`` bytes more.
    """
    made = folder / "made"
    made.mkdir(exist_ok=True)
    path = database(made / "a.db3", rows=0)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        insert = "INSERT INTO messages(topic_id, timestamp, data) VALUES(1, ?, ?)"
        for count, start in ((first, 0), (second, first)):
            writer.execute("BEGIN")
            for n in range(start, start + count):
                writer.execute(insert, (n, bytes([0, 1, 0, 0, n]) + bytes(4000)))
            writer.execute("COMMIT")
            if not start and first:
                writer.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        for name in ("a.db3", "a.db3-wal"):
            shutil.copyfile(made / name, folder / name)
    log = folder / "a.db3-wal"
    data = log.read_bytes()
    salt = data[16:24]
    used = 0
    while data[32 + used * 4120 + 8 :][:8] == salt:
        used += 1
    if behind is not None:
        log.write_bytes(data[: 32 + used * 4120 + behind])
    return folder / "a.db3", used


def test_messages_in_the_log_count_over_frames_of_its_older_use(tmp_path):
    path, used = log_of(tmp_path, 30, 5, behind=None)
    assert path.with_name("a.db3-wal").stat().st_size > 32 + used * 4120
    source, rows = opened(path)
    assert [r.cdr[4] for r in rows] == list(range(35)) and source.damage is None


@pytest.mark.parametrize("behind", [0, 16, 24, 4119])
def test_an_older_frame_that_is_cut_short_lost_nothing(tmp_path, behind):
    path, _ = log_of(tmp_path, 30, 5, behind)
    source, rows = opened(path)
    assert len(rows) == 35 and source.damage is None


@pytest.mark.parametrize("behind", [1, 8, 15])
def test_a_frame_that_is_too_short_to_tell_its_use_counts_as_lost(tmp_path, behind):
    path, used = log_of(tmp_path, 30, 5, behind)
    source, rows = opened(path)
    assert len(rows) == 35
    assert source.damage == (
        f"{path}-wal is damaged or ends within a transaction: {used} of its {used + 1} "
        "pages could be used"
    )


@pytest.mark.parametrize("byte", [8, 15, 16, 24, 4119])
@pytest.mark.parametrize("frame", [0, 2])
def test_a_log_with_a_bad_frame_says_how_much_of_it_could_be_used(tmp_path, byte, frame):
    path, used = log_of(tmp_path, 30, 5)
    log = path.with_name("a.db3-wal")
    data = bytearray(log.read_bytes())
    data[32 + frame * 4120 + byte] ^= 0xFF
    log.write_bytes(data)
    source, rows = opened(path)
    assert len(rows) == 30 and f": 0 of its {used} pages could be used" in source.damage


def test_a_rollback_journal_that_was_finished_is_nothing(tmp_path):
    path = database(tmp_path / "a.db3")
    (tmp_path / "a.db3-journal").write_bytes(bytes(512))
    source, rows = opened(path)
    assert len(rows) == 6 and source.damage is None
