"""
Rosbags on disk: any rosbag2 (sqlite3 or mcap, zstd too) is read without ROS, damaged ones up to
the damage; mcap is written.

Formats: rosbag2 (https://github.com/ros2/rosbag2), MCAP (https://mcap.dev/spec).
"""

import contextlib
import heapq
import os
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import dump_qos_v8
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from janusvln_ros.data.bag_storage import (
    ABOUT,
    Source,
    custom_data,
    described,
    metadata_qos,
    open_source,
    storage_files,
    storage_suffix,
)
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import share_dir
from janusvln_ros.limits import limit

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
FLUSH_BYTES = 1 << 18
"""Of messages, after which a recording is handed to the disk: no more can be lost."""
TIMES = ("header", "log")
"""What tells when something was: the stamp in its header, or the time at which it was recorded."""


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

    Attributes:
        topics: message type of each topic.
        counts: messages of each topic, as far as the bag could be read.
        start: time of recording of the first message, ns.
        end: that of the last.
        qos: what the publishers of each topic offered, as far as the bag says.
        about: what the bag says of its making: checkpoint, prompt, version ...
        time: one of ``TIMES``.
    """

    path: Path
    topics: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    start: int = 0
    end: int = 0
    qos: dict[str, list[Qos]] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    time: str = "header"
    _notes: list[str] = field(default_factory=list)
    _sources: list[Source] = field(default_factory=list)
    _types: Typestore = field(default_factory=message_types)

    @property
    def duration(self) -> float:
        """Seconds from the first message to the last."""
        return max(0, self.end - self.start) / 1e9

    @property
    def damage(self) -> str | None:
        """Where reading ended early, and what is missing; complete once all messages were read."""
        told = (*self._notes, *(source.damage for source in self._sources))
        return "; ".join(filter(None, told)) or None

    @property
    def held(self) -> str:
        """What the bag holds, for a sentence: topics with their types and numbers of messages."""
        return (
            ", ".join(
                f"{topic} ({msgtype}, {self.counts.get(topic, 0)})"
                for topic, msgtype in sorted(self.topics.items())
            )
            or "nothing"
        )

    def messages(self, topics: Collection[str] = ()) -> Iterator[Message]:
        """
        The messages of ``topics`` (of all if empty) in the order of recording; one chunk of each
        file that was recorded at the time is in memory.
        """
        for together in _overlapping(self._sources):
            rows = (source.messages(topics) for source in together)
            for row in heapq.merge(*rows, key=lambda row: row.log_time):
                yield Message(*row)

    def first(self, topic: str) -> Message:
        """
        The first message of a topic.

        Raises:
            InputError: there is none, or it lies behind the damage.
        """
        for message in self.messages([topic]):
            return message
        raise InputError(
            f"{self.path}: no message of {topic} can be read; {self.damage or 'it has none'}"
        )

    def stamp(self, message: Message) -> int:
        """When a message with a header was, in nanoseconds, by the bag's ``time``."""
        return message.log_time if self.time == "log" else header_stamp(message.cdr)

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
        candidates = self.topics_of(msgtypes)
        if wanted is not None:
            for topic in (wanted, f"/{wanted.lstrip('/')}"):
                if self.topics.get(topic) in msgtypes:
                    return topic
            guess = f"; did you mean {option} {candidates[0]}?" if candidates else ""
            raise InputError(
                f"{self.path} has no {what} topic {wanted!r}; it holds {self.held}{guess}"
            )
        require(
            candidates,
            f"{self.path} has no {what} topic (one of {', '.join(msgtypes)}); it holds "
            f"{self.held}",
        )
        require(
            len(candidates) == 1,
            f"{self.path} has several {what} topics: {', '.join(sorted(candidates))}; "
            f"choose one, for example {option} {min(candidates)}",
        )
        return candidates[0]


def _overlapping(sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Files in the order of their beginnings, those together that were recorded at one time."""
    together: list[Source] = []
    for source in sorted(sources, key=lambda source: source.start):
        if together and source.start > max(other.end for other in together):
            yield together
            together = []
        together.append(source)
    yield together


@contextlib.contextmanager
def open_bag(path: str | os.PathLike[str], time: str = "header") -> Iterator[Bag]:
    """
    Open a rosbag2 folder or a single storage file (``.mcap``, ``.db3``, either as ``.zstd``) of
    any ROS 2 distribution.

    A bag that a power cut left without its end, its index or its metadata is read as far as it
    goes; ``Bag.damage`` says so. ``time``: one of ``TIMES``.

    Raises:
        InputError: nothing there, an empty file, not a rosbag2, or nothing readable in it.
    """
    path = Path(path)
    require(path.exists(), f"bag {path} does not exist")
    bag = Bag(path, time=time, _types=_copy_of_types())
    with contextlib.ExitStack() as stack:
        files = [path]
        information: Mapping[str, Any] = {}
        if path.is_dir():
            information, problem = described(path)
            files, bag._notes = storage_files(path, information.get("relative_file_paths", ()))
            if problem:
                bag._notes.append(problem)
        else:
            require(
                storage_suffix(path),
                f"{path} is no rosbag2: give its folder, or a .mcap or .db3 file",
            )
        for file in files:
            _add(bag, open_source(file, stack))
        require(
            bag.topics, f"{path} is not a readable rosbag2: {bag.damage or 'it holds no topics'}"
        )
        _compare(bag, information)
        yield bag


def _add(bag: Bag, source: Source) -> None:
    if any(source.counts.values()):
        bag.start = min(bag.start, source.start) if any(bag.counts.values()) else source.start
        bag.end = max(bag.end, source.end)
    bag.topics.update(source.topics)
    bag.about.update(source.about)
    for topic, count in source.counts.items():
        bag.counts[topic] = bag.counts.get(topic, 0) + count
    for topic, profiles in source.qos.items():
        bag.qos[topic] = bag.qos.get(topic) or profiles
    bag._sources.append(source)
    # Definitions that the bag itself carries are preferred, so that a bag of another distribution
    # decodes as it was written.
    for definition in source.definitions:
        # one strange type must not hide the others; decode() names it if it is asked for
        with contextlib.suppress(Exception):
            bag._types.register(
                get_types_from_idl(definition.text)
                if definition.idl
                else get_types_from_msg(definition.text, definition.msgtype)
            )


def _compare(bag: Bag, information: Mapping[str, Any]) -> None:
    """Take over what only metadata.yaml says, and note messages that it counts and nobody has."""
    bag.about.update(custom_data(information))
    for topic, profiles in metadata_qos(information).items():
        bag.qos[topic] = bag.qos.get(topic) or profiles
    promised, there = information.get("message_count"), sum(bag.counts.values())
    if isinstance(promised, int) and there < promised and not bag.damage:
        bag._notes.append(
            f"{bag.path}/metadata.yaml counts {promised} messages, {there} are there"
        )


def _copy_of_types() -> Typestore:
    """The known types, to which a bag may add its own; copied, since making them takes long."""
    store, known = get_typestore(Stores.EMPTY), message_types()
    store.types.update(known.types)
    store.fielddefs.update(known.fielddefs)
    store.max_sequence_length = limit("BAG_MB") * 1_000_000
    return store


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

    A result is whole under its final name, or not there: left by an exception, the file is not
    made. A recording (``growing``) is written under its final name, and what `flush` has seen
    stays readable whatever happens to the process or the disk.

    Use as a context manager.

    Args:
        path: of the file.
        about: what made the decisions of this bag, for its metadata.
        growing: a recording.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        about: Mapping[str, str] | None = None,
        *,
        growing: bool = False,
    ) -> None:
        self.path, self.growing = Path(path), growing
        self.about = dict(about or {})
        hidden = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._written = self.path if growing else hidden
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._whole = 0  # bytes up to the end of the last flush
        self._waiting = 0  # bytes of messages since then

    def __enter__(self) -> "BagWriter":
        """Open the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._written.open("wb")
        self._writer = McapWriter(self._stream, compression=CompressionType.ZSTD)
        try:
            self._writer.start(profile="ros2", library="janusvln_ros")
            if self.about:
                self._writer.add_metadata(ABOUT, self.about)
            self.flush()
        except BaseException:
            self._drop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish; on an exception delete a result, and keep what is whole of a recording."""
        try:
            if kind is None:
                self._writer.finish()
                self._stream.close()
                os.replace(self._written, self.path)
        finally:
            self._drop()

    def _drop(self) -> None:
        """Close the file if it still is open, without what is not whole."""
        if self._stream.closed:
            return
        with contextlib.suppress(OSError):  # the disk is full: what cannot leave the buffer stays
            self._stream.close()
        if self.growing and self._whole:
            os.truncate(self.path, self._whole)
        else:
            self._written.unlink(missing_ok=True)

    def tell(self, about: Mapping[str, str]) -> None:
        """Add to what the bag says of its making."""
        if not about.items() <= self.about.items():
            self.about.update(about)
            self._writer.add_metadata(ABOUT, self.about)

    def flush(self) -> None:
        """
        Hand everything written so far to the disk.

        Raises:
            OSError: there is no room; leave the writer with this exception.
        """
        self._writer.flush()
        self._whole, self._waiting = self._stream.tell(), 0

    def add_topic(self, topic: str, msgtype: str, offered: Sequence[Qos] = ()) -> None:
        """
        Announce a topic, so that it is listed even if nothing arrives on it; ``offered``: the
        profiles of its publishers.

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
            # policies as numbers: what every distribution reads
            metadata={"offered_qos_profiles": dump_qos_v8(list(offered))},
        )

    def write(self, topic: str, msgtype: str, log_time: int, cdr: bytes) -> None:
        """
        Append one serialised message; ``log_time`` in nanoseconds.

        Raises:
            OSError: there is no room; leave the writer with this exception.
        """
        self.add_topic(topic, msgtype)
        self._writer.add_message(
            channel_id=self._channels[topic], log_time=log_time, publish_time=log_time, data=cdr
        )
        self._waiting += len(cdr)
        if self.growing and self._waiting > FLUSH_BYTES:
            self.flush()

    def write_message(self, topic: str, log_time: int, message: Any) -> None:
        """Append a message object made from ``message_types()``."""
        msgtype = message.__msgtype__
        self.write(
            topic, msgtype, log_time, bytes(message_types().serialize_cdr(message, msgtype))
        )
