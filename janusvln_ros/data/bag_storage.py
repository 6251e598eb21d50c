"""
The files of a rosbag2 as they lie on disk: whole, compressed, split, without metadata.yaml, with
what sqlite left beside them, or damaged. Each is read as far as it goes, and says where it ended.

Nothing is ever written beside the user's files: what has to be unpacked or recovered is copied to
a temporary folder first. Formats: rosbag2 (https://github.com/ros2/rosbag2, metadata versions 1 to
9), MCAP (https://mcap.dev/spec), sqlite (https://www.sqlite.org/fileformat.html).
"""

import contextlib
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from lz4.frame import LZ4FrameDecompressor
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import Channel, Metadata, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader
from rosbags.interfaces import MessageDefinitionFormat, Qos
from rosbags.rosbag2 import Reader
from rosbags.rosbag2.metadata import parse_qos

from janusvln_ros.documents import parse_yaml, read_yaml
from janusvln_ros.errors import InputError, require
from janusvln_ros.limits import limit, require_within

STORAGE_SUFFIXES = (".mcap", ".db3")
COMPRESSED_SUFFIXES = (".zstd", ".zst")
"""rosbag2's file compression adds the first of these to the name of a storage file."""
ABOUT = "janusvln_ros"
"""Name of the MCAP metadata record that says what made the decisions of a bag."""
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""A serialised message begins with a zero byte, one that rosbag2 compressed with these."""
SLICE = 1024
"""Bytes that are unpacked at a time, since each may become 32,768."""
BLOCK = 1_048_576
"""Bytes that come out of lz4 at a time."""
LZ4_RATIO = 255
"""What a byte of lz4 becomes at most."""
MB = 1_000_000


class Row(NamedTuple):
    """One recorded message: topic, type, time of recording (ns) and serialised bytes."""

    topic: str
    msgtype: str
    log_time: int
    cdr: bytes


class Definition(NamedTuple):
    """What a file says of a message type; ``idl``: as IDL instead of .msg text."""

    msgtype: str
    text: str
    idl: bool


@dataclass
class Source:
    """
    One storage file.

    ``damage`` says where reading ended early; of damage inside a file with an intact index it is
    known only once its messages were read.

    Attributes:
        path: as the user knows it.
        topics: message type of each topic.
        counts: messages of each topic.
        start: time of recording of the first message, ns.
        end: that of the last.
        qos: what the publishers of each topic offered.
        definitions: of the message types.
        about: what the file says of its making.
    """

    path: Path
    topics: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    start: int = 0
    end: int = 0
    damage: str | None = None
    qos: dict[str, list[Qos]] = field(default_factory=dict)
    definitions: list[Definition] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)
    rows: Callable[[Collection[str]], Iterator[Row]] = lambda topics: iter(())

    def messages(self, topics: Collection[str]) -> Iterator[Row]:
        """The messages of ``topics`` (of all if empty), up to the damage if there is any."""
        try:
            for row in self.rows(topics):
                _check_row(row)
                if row.cdr[:4] == ZSTD_MAGIC:
                    row = row._replace(cdr=_unpacked(row.cdr))
                yield row
        except InputError:
            raise
        # the libraries meet damage with many kinds of exception; each is reported with its words
        except Exception as error:
            self.damage = self.damage or (
                f"{self.path}: reading ended early, at the first damage: {_words(error)}"
            )

    def count(self, row: Row) -> None:
        """Take note of a message that is there."""
        # simulated time begins at zero, so a start of zero may be one
        self.start = min(self.start, row.log_time) if any(self.counts.values()) else row.log_time
        self.topics[row.topic] = row.msgtype
        self.counts[row.topic] = self.counts.get(row.topic, 0) + 1
        self.end = max(self.end, row.log_time)


def _words(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


def _check_row(row: Row) -> None:
    """Raise ValueError where a damaged database holds something else than a message."""
    if type(row.log_time) is not int or not 0 <= row.log_time < 1 << 63:
        raise ValueError(f"a message of {row.topic} was recorded at {row.log_time!r:.40}")
    _check_names(row.topic, row.msgtype)
    if type(row.cdr) is not bytes:
        raise ValueError(f"a message of {row.topic:.40} is {type(row.cdr).__name__}, not bytes")


def _check_names(topic: object, msgtype: object) -> None:
    """Raise ValueError where a damaged database holds something else than names: NULL, numbers."""
    if not isinstance(topic, str) or not isinstance(msgtype, str):
        raise ValueError(f"a topic is {topic!r:.40} of type {msgtype!r:.40}, which are no names")


def _unpacked(data: bytes) -> bytes:
    """
    The content of a zstd frame.

    Raises:
        ValueError: it is cut short.
        InputError: it is larger than messages may be.
    """
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    blocks, total = [], 0
    for at in range(0, len(data), SLICE):
        if unpacker.eof:
            break
        blocks.append(unpacker.decompress(data[at : at + SLICE]))
        total += len(blocks[-1])
        require_within(total / MB, "BAG_MB", f"a message of {len(data)} bytes unpacks to")
    if not unpacker.eof:
        raise ValueError("a compressed message is cut short")
    return b"".join(blocks)


# which files ---------------------------------------------------------------------------------


def storage_suffix(path: Path) -> str:
    """The kind of a storage file, ``.mcap`` or ``.db3``, under its compression; '' if neither."""
    inner = Path(path.stem) if path.suffix in COMPRESSED_SUFFIXES else path
    return inner.suffix if inner.suffix in STORAGE_SUFFIXES else ""


def described(folder: Path) -> tuple[dict[str, Any], str | None]:
    """What ``metadata.yaml`` says of the bag in a folder, and why nothing, if so."""
    path = folder / "metadata.yaml"
    try:
        information = dict(read_yaml(path)["rosbag2_bagfile_information"])
        require(
            all(isinstance(name, str) for name in information["relative_file_paths"]),
            "relative_file_paths holds something else than names",
        )
        return information, None
    except FileNotFoundError:
        return {}, f"{path} is not there; the storage files were read without it"
    except Exception as error:
        first = _words(error).splitlines()[0]
        return {}, f"{path} is damaged ({first}); the storage files were read without it"


def storage_files(folder: Path, listed: Collection[str]) -> tuple[list[Path], list[str]]:
    """
    The storage files of the bag in a folder, and sentences about those that are missing or that
    its metadata does not know.

    Args:
        folder: of the bag.
        listed: the files that its metadata lists; a copy may have lost the folder in their names.

    Raises:
        InputError: there is none.
    """
    there = {path.name: path for path in folder.iterdir() if storage_suffix(path)}
    # a player that unpacks a file leaves both forms
    files = [p for p in there.values() if not (_is_compressed(p) and p.stem in there)]
    held = sorted(p.name for p in folder.iterdir())[:10] or "nothing"
    endings = " or ".join(STORAGE_SUFFIXES)
    require(
        files, f"{folder} holds no rosbag2 file ({endings}, compressed or not); it holds {held}"
    )
    names = [Path(name).name for name in listed]
    found = [n for n in names if {n, Path(n).stem} & {p.name for p in files}]
    notes = [
        f"metadata.yaml names {name}, which is not in {folder}"
        for name in names
        if name not in found
    ]
    stems = {_split_stem(Path(name)) for name in names}
    known = {_plain_name(Path(name)) for name in names}
    ours = [p for p in files if _split_stem(p) in stems] or files
    if names:
        notes += [
            f"{path} is not in metadata.yaml; it was read too"
            for path in ours
            if _plain_name(path) not in known
        ]
    return ours, notes


def _is_compressed(path: Path) -> bool:
    return path.suffix in COMPRESSED_SUFFIXES


def _plain_name(path: Path) -> str:
    return path.stem if _is_compressed(path) else path.name


def _split_stem(path: Path) -> str:
    """The name that the splits of a bag share: without ``_0.db3``."""
    return re.sub(r"_\d+$", "", Path(_plain_name(path)).stem)


# one file ------------------------------------------------------------------------------------


def open_source(path: Path, stack: contextlib.ExitStack) -> Source:
    """
    A storage file, open until ``stack`` is closed.

    Raises:
        InputError: it is empty, or cannot be opened.
    """
    left = left_beside(path)
    try:
        require(
            path.stat().st_size or left,
            f"{path} is empty (0 bytes): the recording was never written to disk",
        )
        with path.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    plain, note = _plain(path, left, stack)
    source = Source(path)
    try:
        if plain.suffix == ".mcap":
            check_chunks(path, plain)
        reader = stack.enter_context(Reader(plain))
        _take(source, reader, plain)
    except InputError:
        raise
    # the libraries raise many kinds on damage
    except Exception as error:
        source = Source(path)
        damaged: Any = _scan_mcap if plain.suffix == ".mcap" else _scan_sqlite
        source.rows = lambda topics: damaged(source, plain, topics)
        for row in source.messages(()):
            source.count(row)
        if not source.topics:
            source.damage = source.damage or f"{path}: {_words(error)}"
    if note:
        source.damage = f"{note}; {source.damage}" if source.damage else note
    return source


def _take(source: Source, reader: Reader, plain: Path) -> None:
    """Fill ``source`` with what the index of an intact file says."""
    for connection in reader.connections:
        topic, definition = connection.topic, connection.msgdef
        _check_names(topic, connection.msgtype)
        source.topics[topic] = connection.msgtype
        source.counts[topic] = source.counts.get(topic, 0) + connection.msgcount
        source.qos.setdefault(topic, []).extend(
            getattr(connection.ext, "offered_qos_profiles", ())
        )
        if definition.format != MessageDefinitionFormat.NONE:
            idl = definition.format == MessageDefinitionFormat.IDL
            source.definitions.append(Definition(connection.msgtype, definition.data, idl))
    if reader.message_count:
        source.start, source.end = reader.start_time, reader.end_time - 1
    if plain.suffix == ".mcap":
        with contextlib.suppress(Exception), plain.open("rb") as stream:
            for record in make_reader(stream).iter_metadata():
                _note_about(source, record)

    def rows(topics: Collection[str]) -> Iterator[Row]:
        wanted = [c for c in reader.connections if not topics or c.topic in topics]
        # to the library, no connections are all of them
        for connection, log_time, data in reader.messages(wanted) if wanted else ():
            # a whole number would become as many zeros
            cdr = data if isinstance(data, int | str | None) else bytes(data)
            yield Row(connection.topic, connection.msgtype, log_time, cdr)

    source.rows = rows


def _note_about(source: Source, record: Metadata) -> None:
    """Take over what a metadata record of an mcap file says of its making."""
    if record.name == ABOUT:
        source.about.update(record.metadata)
    elif text := record.metadata.get("serialized_metadata"):
        with contextlib.suppress(Exception):
            source.about.update(custom_data(parse_yaml(text, str(source.path))))


def custom_data(information: Mapping[str, Any]) -> dict[str, str]:
    """What somebody wrote about a bag into its metadata (version 6 and later)."""
    told = information.get("custom_data")
    return {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}


def metadata_qos(information: Mapping[str, Any]) -> dict[str, list[Qos]]:
    """
    What the publishers of each topic offered, by metadata.yaml: a text of YAML until version 8, a
    list since 9; policies as numbers or by their names.
    """
    found: dict[str, list[Qos]] = {}
    for entry in information.get("topics_with_message_count") or ():
        with contextlib.suppress(Exception):
            topic = entry["topic_metadata"]
            found[topic["name"]] = parse_qos(topic.get("offered_qos_profiles") or [])
    return found


def check_chunks(path: Path, plain: Path) -> None:
    """
    Refuse an mcap file with a chunk that unpacks to more than may be, before a library believes
    it; what is damaged in other ways is left to who reads it.

    Args:
        path: as the user knows it.
        plain: where it lies, unpacked.

    Raises:
        InputError: it has one.
    """
    with plain.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(8)
        while len(head := stream.read(9)) == 9:
            length, at = int.from_bytes(head[1:], "little"), stream.tell()
            if at + length > end:
                return
            if head[0] == Opcode.CHUNK:
                _check_chunk(stream.read(min(length, 64)), path, plain, at)
            stream.seek(at + length)


def _check_chunk(head: bytes, path: Path, plain: Path, at: int) -> None:
    """
    Check one chunk by its ``head``: the size that it tells, that of its zstd frame, and for lz4,
    which tells none, what comes out.
    """
    if len(head) < 40:
        return
    told, name = int.from_bytes(head[16:24], "little"), int.from_bytes(head[28:32], "little")
    compression, packed = head[32 : 32 + name], 32 + name + 8
    sizes = [told]
    if compression == b"zstd":
        with contextlib.suppress(zstandard.ZstdError):
            size = zstandard.get_frame_parameters(head[packed:]).content_size
            if size != zstandard.CONTENTSIZE_UNKNOWN:
                sizes.append(size)
    if compression == b"lz4":
        size = int.from_bytes(head[packed - 8 : packed], "little")
        if size * LZ4_RATIO > limit("BAG_MB") * MB:
            sizes.append(_lz4_size(plain, at + packed, size))
    require_within(max(sizes) / MB, "BAG_MB", f"{path}: a chunk at byte {at} unpacks to")


def _lz4_size(path: Path, at: int, size: int) -> int:
    """How much the lz4 frame of ``size`` bytes at ``at`` unpacks to, or what of it is too much."""
    unpacker, total = LZ4FrameDecompressor(), 0
    with path.open("rb") as stream:
        stream.seek(at)
        packed = stream.read(size)
    # the end raises EOFError; damage is found by who reads it
    with contextlib.suppress(RuntimeError, EOFError):
        while total <= limit("BAG_MB") * MB:
            block = unpacker.decompress(packed, max_length=BLOCK)
            if not block:
                break
            packed, total = b"", total + len(block)
    return total


# damaged files -------------------------------------------------------------------------------


def _scan_mcap(source: Source, path: Path, topics: Collection[str]) -> Iterator[Row]:
    """
    Records of an mcap file without its end (a power cut), or with a bad index, in order until the
    first that is not whole.
    """
    channels: dict[int, Channel] = {}
    schemas: dict[int, Schema] = {}
    with path.open("rb") as stream:
        try:
            # A chunk that the cut hit fails its length or its checksum and ends the reading.
            most = path.stat().st_size
            reader = StreamReader(stream, validate_crcs=True, record_size_limit=most)
            for record in reader.records:
                if isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Metadata):
                    _note_about(source, record)
                elif isinstance(record, Channel):
                    channels[record.id] = record
                    _note_channel(source, record, schemas)
                elif isinstance(record, McapMessage) and record.channel_id in channels:
                    channel = channels[record.channel_id]
                    msgtype = source.topics[channel.topic]
                    if not topics or channel.topic in topics:
                        yield Row(channel.topic, msgtype, record.log_time, record.data)
        except Exception as error:
            source.damage = source.damage or (
                f"{source.path} is truncated or damaged; read up to byte {stream.tell()} "
                f"of {path.stat().st_size}: {_words(error)}"
            )


def _note_channel(source: Source, channel: Channel, schemas: dict[int, Schema]) -> None:
    schema = schemas[channel.schema_id]
    if channel.topic not in source.topics:
        source.counts[channel.topic] = 0
        source.definitions.append(
            Definition(schema.name, schema.data.decode(), schema.encoding != "ros2msg")
        )
        with contextlib.suppress(Exception):
            source.qos[channel.topic] = parse_qos(channel.metadata["offered_qos_profiles"])
    source.topics[channel.topic] = schema.name


def _scan_sqlite(source: Source, path: Path, topics: Collection[str]) -> Iterator[Row]:
    """
    Rows of a sqlite3 file that does not read to its end, in the order of writing until the first
    bad page.
    """
    with (
        _padded(path) as whole,
        contextlib.closing(
            sqlite3.connect(f"file:{_uri(whole)}?mode=ro&immutable=1", uri=True)
        ) as database,
    ):
        try:
            names = {
                row[0]: (row[1], row[2])
                for row in database.execute("SELECT id, name, type FROM topics")
            }
            for topic_id, log_time, data in database.execute(
                "SELECT topic_id, timestamp, data FROM messages ORDER BY id"
            ):
                topic, msgtype = names[topic_id]
                if not topics or topic in topics:
                    yield Row(topic, msgtype, log_time, data)
        except (sqlite3.Error, KeyError) as error:
            source.damage = source.damage or (
                f"{source.path} is truncated or damaged; read up to the first bad row: "
                f"{_words(error)}"
            )


def _uri(path: Path) -> str:
    """A path within a URI of sqlite."""
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


@contextlib.contextmanager
def _padded(path: Path) -> Iterator[Path]:
    """
    The file itself, or a copy padded to the size its header promises: sqlite reads nothing at all
    of a shorter one.
    """
    with path.open("rb") as stream:
        head = stream.read(32)
    page_size = int.from_bytes(head[16:18], "big")
    promised = int.from_bytes(head[28:32], "big") * (65536 if page_size == 1 else page_size)
    if not head.startswith(b"SQLite format 3\0") or promised <= path.stat().st_size:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(path, folder))
        try:
            os.truncate(copy, promised)
        except (OSError, OverflowError) as error:
            raise ValueError(f"its header promises {promised:,} bytes") from error
        yield copy


# what has to be unpacked or recovered first --------------------------------------------------


def left_beside(path: Path) -> list[Path]:
    """What a recorder that was killed left beside a database: logs with something in them."""
    beside = [path.with_name(path.name + end) for end in ("-wal", "-journal")]
    return [file for file in beside if file.is_file() and file.stat().st_size]


def _plain(
    path: Path, left: Collection[Path], stack: contextlib.ExitStack
) -> tuple[Path, str | None]:
    """
    The file itself where it can be read as it is, else a copy that can, and a sentence about what
    the copy lacks.

    Raises:
        InputError: there is no room for the copy.
    """
    if not _is_compressed(path) and not left:
        return path, None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="janusvln-bag-")))
    try:
        if _is_compressed(path):
            return _decompressed(path, folder / path.stem)
        for file in (path, *left):
            shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise InputError(
            f"{path} has to be unpacked, and {folder.parent} has no room for that "
            f"({error.strerror}): name a larger folder in the variable TMPDIR"
        ) from error
    return folder / path.name, _recover(path, folder / path.name, left)


def _decompressed(path: Path, copy: Path) -> tuple[Path, str | None]:
    """Unpack a file that rosbag2 compressed as a whole, up to the damage."""
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    size, total = path.stat().st_size, 0
    try:
        with path.open("rb") as packed, copy.open("wb") as plain:
            while (block := packed.read(SLICE)) and not unpacker.eof:
                unpacked = unpacker.decompress(block)
                total += len(unpacked)
                if total > limit("BAG_MB") * MB:
                    require_within(total / size, "BAG_EXPANSION", f"{path} unpacks to")
                plain.write(unpacked)
    except zstandard.ZstdError as error:
        return copy, f"{path} is damaged; unpacked up to the damage: {error}"
    return copy, None if unpacker.eof else f"{path} is cut short; unpacked up to its end"


def _recover(path: Path, copy: Path, left: Collection[Path]) -> str | None:
    """
    Let sqlite bring a copy of a database in order with what a recorder that was killed left beside
    it; a sentence about what was lost.
    """
    notes = []
    try:
        with contextlib.closing(sqlite3.connect(copy)) as database:
            # the first read undoes a transaction that was not finished
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            *_, taken = database.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            database.execute("PRAGMA journal_mode=DELETE").fetchone()
    except sqlite3.Error as error:
        return f"{path} could not be recovered with {left and min(left).name}: {error}"
    for file in left:
        if file.name.endswith("-wal") and taken < (held := _log_frames(file)):
            notes.append(
                f"{file} is damaged or ends within a transaction: {max(taken, 0)} of its {held} "
                "pages could be used"
            )
        if file.name.endswith("-journal") and not copy.with_name(file.name).exists():
            notes.append(
                f"{path}: the recorder ended within a transaction ({file.name}); what that had "
                "written was undone"
            )
    return "; ".join(notes) or None


def _log_frames(log: Path) -> int:
    """
    Frames of a write-ahead log up to the last of its present use, which may be cut short; those of
    an older use carry another salt.
    """
    with log.open("rb") as stream:
        head = stream.read(32)
        size = int.from_bytes(head[8:12], "big") + 24
        count = held = 0
        while frame := stream.read(24):
            # what is too short to tell its use is of the use before it
            short = len(frame) < 16 and held == count
            count += 1
            if short or frame[8:16] == head[16:24]:
                held = count
            stream.seek(32 + count * size)
    return held
