"""
Rosbags on disk: any rosbag2 (sqlite3 or mcap, zstd too) is read without ROS, damaged ones up to
the damage; mcap is written.

Formats: rosbag2 (https://github.com/ros2/rosbag2), MCAP (https://mcap.dev/spec).
"""

import contextlib
import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from mcap.exceptions import McapError
from mcap.records import Channel, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from janusvln_ros.errors import InputError, require
from janusvln_ros.files import share_dir

STORAGE_SUFFIXES = (".mcap", ".db3")
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


@cache
def message_types() -> Typestore:
    """The message types of ROS 2 Jazzy's common interfaces and of ``janusvln_msgs``."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted((share_dir() / "msg" / "janusvln_msgs" / "msg").glob("*.msg")):
        store.register(get_types_from_msg(path.read_text(), f"janusvln_msgs/msg/{path.stem}"))
    return store


@dataclass(frozen=True)
class Message:
    """
    One recorded message.

    ``log_time`` is when it was recorded, nanoseconds; ``cdr`` its serialised bytes.
    """

    topic: str
    msgtype: str
    log_time: int
    cdr: bytes


@dataclass
class Bag:
    """
    An open bag.

    ``damage`` says where reading ended early, and is complete only after all messages were read.

    Attributes:
        topics: message type of each topic.
        counts: messages of each topic, as far as the bag could be read.
    """

    path: Path
    topics: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    start: int = 0
    end: int = 0
    damage: str | None = None
    _sources: "list[_Intact | _DamagedMcap | _DamagedSqlite]" = field(default_factory=list)
    _types: Typestore = field(default_factory=message_types)

    @property
    def duration(self) -> float:
        """Seconds from the first message to the last."""
        return max(0, self.end - self.start) / 1e9

    def messages(self, topics: Collection[str] = ()) -> Iterator[Message]:
        """
        The messages of ``topics`` (of all if empty) in the order of recording; one chunk is in
        memory at a time.
        """
        for source in self._sources:
            yield from source.messages(topics)
            self.damage = self.damage or source.damage

    def decode(self, message: Message) -> Any:
        """
        The message as an object with the fields of its type.

        Raises:
            InputError: the bag holds no definition of the type, or the bytes do not fit it.
        """
        try:
            return self._types.deserialize_cdr(message.cdr, message.msgtype)
        except KeyError:
            raise InputError(
                f"{self.path}: topic {message.topic} has type {message.msgtype}; "
                "neither the bag nor janusvln_ros defines it"
            ) from None
        except Exception as error:  # the library raises many kinds on bytes that do not fit
            raise InputError(
                f"{self.path}: a message of {message.topic} at {message.log_time} ns "
                f"does not decode as {message.msgtype}: {error}"
            ) from error

    def topics_of(self, msgtypes: Collection[str]) -> list[str]:
        """The topics of one of ``msgtypes`` that hold a message."""
        return [
            topic
            for topic, msgtype in self.topics.items()
            if msgtype in msgtypes and self.counts.get(topic, 0)
        ]

    def topic_of_type(
        self, msgtypes: Collection[str], wanted: str | None, what: str, option: str
    ) -> str:
        """
        The topic to use for ``what``: ``wanted`` if given, else the only one of one of
        ``msgtypes``.

        Raises:
            InputError: it is not there, or several fit; the sentence lists what the bag holds and
                guesses.
        """
        held = (
            ", ".join(
                f"{topic} ({msgtype}, {self.counts.get(topic, 0)})"
                for topic, msgtype in sorted(self.topics.items())
            )
            or "nothing"
        )
        candidates = self.topics_of(msgtypes)
        if wanted is not None:
            for topic in (wanted, f"/{wanted.lstrip('/')}"):
                if self.topics.get(topic) in msgtypes:
                    return topic
            guess = f"; did you mean {option} {candidates[0]}?" if candidates else ""
            raise InputError(f"{self.path} has no {what} topic {wanted!r}; it holds {held}{guess}")
        require(
            candidates,
            f"{self.path} has no {what} topic (one of {', '.join(msgtypes)}); it holds {held}",
        )
        require(
            len(candidates) == 1,
            f"{self.path} has several {what} topics: {', '.join(sorted(candidates))}; "
            f"choose one, for example {option} {min(candidates)}",
        )
        return candidates[0]


@dataclass
class _Intact:
    """A storage file, or a bag folder, that reads as it should."""

    reader: Reader
    damage: str | None = None

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        connections = [c for c in self.reader.connections if not topics or c.topic in topics]
        if not connections:
            return
        try:
            for connection, log_time, data in self.reader.messages(connections):
                yield Message(connection.topic, connection.msgtype, log_time, bytes(data))
        except (ReaderError, ValueError, OSError, EOFError) as error:
            self.damage = f"{self.reader.path}: reading ended early: {error}"


@dataclass
class _DamagedMcap:
    """
    An mcap file without its end (a power cut): records are read in order until the first that is
    not whole.
    """

    path: Path
    damage: str | None = None
    schemas: dict[int, Schema] = field(default_factory=dict)

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        channels: dict[int, Channel] = {}
        with self.path.open("rb") as stream:
            try:
                # A chunk that the cut hit fails its length or its checksum and ends the reading.
                for record in StreamReader(stream, validate_crcs=True).records:
                    if isinstance(record, Schema):
                        self.schemas[record.id] = record
                    elif isinstance(record, Channel):
                        channels[record.id] = record
                    elif isinstance(record, McapMessage) and record.channel_id in channels:
                        channel = channels[record.channel_id]
                        if not topics or channel.topic in topics:
                            yield Message(
                                channel.topic,
                                self.schemas[channel.schema_id].name,
                                record.log_time,
                                record.data,
                            )
            except (McapError, struct.error, ValueError, OSError, EOFError, KeyError) as error:
                self.damage = (
                    f"{self.path} is truncated or damaged; read up to byte {stream.tell()} "
                    f"of {self.path.stat().st_size}: {str(error) or type(error).__name__}"
                )


@dataclass
class _DamagedSqlite:
    """
    A sqlite3 file that does not read to its end: rows are taken in the order of writing until the
    first bad page.
    """

    path: Path
    damage: str | None = None

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        with (
            self._padded() as path,
            contextlib.closing(
                sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
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
                        yield Message(topic, msgtype, log_time, data)
            except (sqlite3.DatabaseError, KeyError) as error:
                self.damage = (
                    f"{self.path} is truncated or damaged; read up to the first bad row: {error}"
                )

    @contextlib.contextmanager
    def _padded(self) -> Iterator[Path]:
        """
        The file itself, or a copy padded to the size its header promises: sqlite reads nothing at
        all of a shorter one.
        """
        with self.path.open("rb") as stream:
            head = stream.read(32)
        page_size = int.from_bytes(head[16:18], "big")
        promised = int.from_bytes(head[28:32], "big") * (65536 if page_size == 1 else page_size)
        if (
            len(head) < 32
            or not head.startswith(b"SQLite format 3\0")
            or promised <= self.path.stat().st_size
        ):
            yield self.path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copy(self.path, folder))
            os.truncate(copy, promised)
            yield copy


def _register(store: Typestore, reader: Reader) -> None:
    """
    Prefer the definitions that the bag itself carries, so that a bag of another distribution
    decodes as it was written.
    """
    for connection in reader.connections:
        # one strange type must not hide the others; decode() names it if it is asked for
        with contextlib.suppress(Exception):
            if connection.msgdef.format == MessageDefinitionFormat.MSG:
                store.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
            elif connection.msgdef.format == MessageDefinitionFormat.IDL:
                store.register(get_types_from_idl(connection.msgdef.data))


def _storage_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(p for p in path.iterdir() if p.suffix in STORAGE_SUFFIXES)
    require(
        files,
        f"{path} holds no rosbag2 file ({' or '.join(STORAGE_SUFFIXES)}); it holds "
        f"{sorted(p.name for p in path.iterdir())[:10] or 'nothing'}",
    )
    return files


@contextlib.contextmanager
def open_bag(path: str | os.PathLike[str]) -> Iterator[Bag]:
    """
    Open a rosbag2 folder or a single ``.mcap`` or ``.db3`` file of any ROS 2 distribution.

    A bag that a power cut left without its end or its metadata is read as far as it goes;
    ``Bag.damage`` says so.

    Raises:
        InputError: nothing there, an empty file, not a rosbag2, or nothing readable in it.
    """
    path = Path(path)
    require(path.exists(), f"bag {path} does not exist")
    bag = Bag(path, _types=_copy_of_types())
    with contextlib.ExitStack() as stack:
        whole = _open_intact(path, stack)
        if isinstance(whole, Reader):
            _add_intact(bag, whole)
        else:
            for file in _storage_files(path):
                require(
                    file.stat().st_size,
                    f"{file} is empty (0 bytes): the recording was never written to disk",
                )
                reader = _open_intact(file, stack)
                if isinstance(reader, Reader):
                    _add_intact(bag, reader)
                else:
                    _add_damaged(bag, file, reader)
            if path.is_dir():
                bag.damage = (
                    bag.damage
                    or f"{path}/metadata.yaml does not describe this bag ({whole}); the "
                    "storage files were read without it"
                )
        require(
            bag.topics,
            f"{path} is not a readable rosbag2: {bag.damage or whole or 'it holds no topics'}",
        )
        yield bag


def _copy_of_types() -> Typestore:
    store = get_typestore(Stores.EMPTY)
    store.register(message_types().fielddefs)
    return store


def _open_intact(path: Path, stack: contextlib.ExitStack) -> Reader | str:
    """An open reader, or why there is none."""
    try:
        return stack.enter_context(Reader(path))
    # the library meets damage with many kinds of exception; each is reported with its words
    except Exception as error:
        return str(error) or type(error).__name__


def _add_intact(bag: Bag, reader: Reader) -> None:
    _register(bag._types, reader)
    for connection in reader.connections:
        bag.topics[connection.topic] = connection.msgtype
        bag.counts[connection.topic] = bag.counts.get(connection.topic, 0) + connection.msgcount
    if reader.message_count:
        bag.start = min(bag.start or reader.start_time, reader.start_time)
        bag.end = max(bag.end, reader.end_time)
    bag._sources.append(_Intact(reader))


def _add_damaged(bag: Bag, file: Path, why: str) -> None:
    """
    Scan once for what is there, so that topics and counts are known before messages are asked for.
    """
    source: _DamagedMcap | _DamagedSqlite = (
        _DamagedMcap(file) if file.suffix == ".mcap" else _DamagedSqlite(file)
    )
    for message in source.messages(()):
        bag.topics[message.topic] = message.msgtype
        bag.counts[message.topic] = bag.counts.get(message.topic, 0) + 1
        bag.start = min(bag.start or message.log_time, message.log_time)
        bag.end = max(bag.end, message.log_time)
    bag.damage = bag.damage or source.damage or f"{file}: {why}"
    if isinstance(source, _DamagedMcap):
        for schema in source.schemas.values():
            with contextlib.suppress(Exception):
                bag._types.register(get_types_from_msg(schema.data.decode(), schema.name))
    bag._sources.append(source)


def header_stamp(cdr: bytes) -> int:
    """
    Nanoseconds of ``header.stamp`` of a serialised message whose first field is a
    ``std_msgs/Header``, without decoding the rest.

    Raises:
        InputError: fewer bytes than a stamp has.
    """
    require(len(cdr) >= 12, f"a message of {len(cdr)} bytes is too short to hold a header")
    # The second byte of the encapsulation says the byte order: CDR_BE is 0, CDR_LE is 1.
    seconds, nanoseconds = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


class BagWriter:
    """
    Writes one ``.mcap`` file that ``ros2 bag play`` and Foxglove open.

    Under its final name it is always whole.

    Use as a context manager: left by an exception, the file is not made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}

    def __enter__(self) -> "BagWriter":
        """Open the temporary file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._temporary.open("wb")
        self._writer = McapWriter(self._stream, compression=CompressionType.ZSTD)
        self._writer.start(profile="ros2", library="janusvln_ros")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish and rename, or delete on an exception."""
        try:
            if kind is None:
                self._writer.finish()
                self._stream.close()
                os.replace(self._temporary, self.path)
        finally:
            self._stream.close()
            self._temporary.unlink(missing_ok=True)

    def add_topic(self, topic: str, msgtype: str) -> None:
        """
        Announce a topic, so that it is listed even if nothing arrives on it.

        Raises:
            InputError: no definition of ``msgtype`` is known, so nobody could read what would be
                written.
        """
        if topic in self._channels:
            return
        if msgtype not in self._schemas:
            try:
                definition, _ = message_types().generate_msgdef(msgtype, ros_version=2)
            except Exception:
                raise InputError(
                    f"topic {topic} cannot be recorded: no definition of its type "
                    f"{msgtype} is known"
                ) from None
            self._schemas[msgtype] = self._writer.register_schema(
                name=msgtype, encoding="ros2msg", data=definition.encode()
            )
        self._channels[topic] = self._writer.register_channel(
            topic=topic,
            message_encoding="cdr",
            schema_id=self._schemas[msgtype],
            metadata={"offered_qos_profiles": ""},
        )

    def write(self, topic: str, msgtype: str, log_time: int, cdr: bytes) -> None:
        """Append one serialised message; ``log_time`` in nanoseconds."""
        self.add_topic(topic, msgtype)
        self._writer.add_message(
            channel_id=self._channels[topic], log_time=log_time, publish_time=log_time, data=cdr
        )

    def write_message(self, topic: str, log_time: int, message: Any) -> None:
        """Append a message object made from ``message_types()``."""
        msgtype = message.__msgtype__
        self.write(
            topic, msgtype, log_time, bytes(message_types().serialize_cdr(message, msgtype))
        )
