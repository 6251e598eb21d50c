"""
Documents that others wrote: JSON and YAML, read within limits and refused in one sentence.

What a document takes in memory is estimated from its text before it is parsed. A large file may
take much, a small one may not: a file of 4 MB can be made to take 8 GB.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import yaml

from janusvln_ros.errors import InputError, require
from janusvln_ros.limits import limit, require_within

CONFIG_FILE = "config.json"
"""What says in the folder of a checkpoint which network it is."""

MB = 1_000_000
TEXT_BYTES, LIST_BYTES, OBJECT_BYTES, ITEM_BYTES = 2, 96, 240, 40
"""What Python takes for a byte of text, for a list, an object and an item of either."""
PLAIN_RATIO, PACKED_RATIO, UNPACKED_RATIO = 24, 120, 24
"""
What a document may take in memory for each byte of its file, plain and packed, and what a packed
one may unpack to. Published data sets take 19, 75 and 16.
"""
BLOCK = 1 << 20
HALF = re.compile(rb"\\ud[89a-f]", re.IGNORECASE)
"""The escapes that stand for half a character each."""
YAML_NODES = 1_000_000
"""Values of a YAML document once its aliases are followed."""
YAML_MB = 4
"""A longer YAML file is no settings and no bag's metadata."""


def parse_json(
    text: bytes | str, where: str, remedy: str = "copy it again", *, finite: bool = True
) -> Any:
    """
    What a JSON document says.

    Args:
        text: of it, UTF-8.
        where: it is from, to begin the sentence with.
        remedy: to end it with.
        finite: refuse NaN and Infinity; else who uses the numbers does, item by item.

    Raises:
        InputError: it is no JSON, holds NaN or Infinity, is nested too deeply, or would take more
            memory than documents may.
    """
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    _require_memory(_memory([data]), len(data), PLAIN_RATIO, where)
    return _parsed(data, where, remedy, finite)


def read_json(path: Path, remedy: str = "copy it again", *, finite: bool = True) -> Any:
    """
    What a JSON file says, see `parse_json`.

    Raises:
        InputError: as there.
        OSError: the file cannot be read.
    """
    return parse_json(path.read_bytes(), str(path), remedy, finite=finite)


def read_object(path: Path, remedy: str = "copy it again") -> dict[str, Any]:
    """As `read_json`, of a file that must hold an object: raises InputError where it does not."""
    value = read_json(path, remedy)
    require(
        isinstance(value, dict),
        f"{path} holds a {type(value).__name__} instead of an object: {remedy}",
    )
    return dict(value)


def read_network(path: Path) -> dict[str, Any]:
    """
    What the ``config.json`` at ``path`` says, of the kind of network that is known here. Told
    without torch, so at once; whether its sizes fit each other, the room ``model`` tells.

    Raises:
        InputError: it cannot be read, is no JSON object, or of another kind of network.
    """
    try:
        values = read_object(path, "copy it again from where the checkpoint came from")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): give the folder of a "
            "checkpoint, with its config.json"
        ) from error
    require_network(values, str(path))
    return values


def require_network(values: Mapping[str, Any], name: str) -> None:
    """Raise InputError where settings ``name`` are those of another kind of network."""
    require(
        values.get("model_type") == "qwen2_5_vl" or "text_config" in values,
        f"{name}: model_type is {values.get('model_type')!r}, but 'qwen2_5_vl' "
        "is needed: give the folder of a JanusVLN checkpoint",
    )


def read_json_lines(path: Path, remedy: str = "copy it again") -> list[dict[str, Any]]:
    """
    The objects of a file with one in each line, see `read_json`.

    Raises:
        InputError: a line holds none, with its number.
        OSError: the file cannot be read.
    """
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        value = parse_json(line, f"{path}, line {number}", remedy)
        require(isinstance(value, dict), f"{path}, line {number} is no object: {remedy}")
        found.append(value)
    return found


def parse_packed_json(data: bytes, where: str, remedy: str) -> Any:
    """
    What the JSON in gzip-compressed ``data`` says, see `parse_json`; numbers may be infinite.

    It is unpacked twice: once to see what comes, block by block, once to keep it.

    Raises:
        InputError: as there, or the data are damaged.
    """
    try:
        _require_memory(_memory(_unpacked(data, where)), len(data), PACKED_RATIO, where)
        text = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{where} is damaged ({error}): {remedy}") from error
    return _parsed(text, where, remedy, finite=False)


def _unpacked(data: bytes, where: str) -> Iterator[bytes]:
    """The blocks of packed data, as long as they are no more than may be."""
    total, most = 0, max(limit("DOCUMENT_MB") * MB // 8, UNPACKED_RATIO * len(data))
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
        while block := packed.read(BLOCK):
            total += len(block)
            if total > most:
                require_within(
                    8 * total / MB,
                    "DOCUMENT_MB",
                    f"{where} ({len(data):,} bytes) unpacks to more than {most:,} bytes, which "
                    "would take",
                )
            yield block


def _memory(blocks: Any) -> int:
    """Bytes that a document may take once it is parsed, at most."""
    total = 0
    for block in blocks:
        total += TEXT_BYTES * len(block) + ITEM_BYTES * block.count(b",")
        total += LIST_BYTES * block.count(b"[") + OBJECT_BYTES * block.count(b"{")
    return total


def _require_memory(memory: int, size: int, ratio: int, where: str) -> None:
    if memory > ratio * size:
        require_within(memory / MB, "DOCUMENT_MB", f"{where} ({size:,} bytes) would take")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")


def _parsed(text: bytes, where: str, remedy: str, finite: bool) -> Any:
    try:
        said = text.decode("utf-8-sig")  # editors of Windows begin with a byte order mark
        value = json.loads(said, parse_constant=_no_number if finite else None)
        if HALF.search(text):  # half a character, which no file and no terminal takes
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply: {remedy}") from error
    except ValueError as error:  # of JSON, of UTF-8, of numbers with thousands of digits
        raise InputError(f"{where} is no JSON ({error!s:.200}): {remedy}") from error


def finite(value: Any, what: str) -> float:
    """
    A number of a document as float.

    Raises:
        InputError: ``what`` is text, true, no number at all, or not finite.
    """
    if type(value) not in (int, float) or not abs(value) < 1e300:  # of NaN too
        raise InputError(f"{what} is {value!r:.80}, not a finite number")
    return float(value)


def whole(value: Any, what: str, least: int = -(2**63)) -> int:
    """
    A whole number of a document.

    Raises:
        InputError: ``what`` is anything else, or less than ``least``.
    """
    if type(value) is not int or not least <= value < 2**63:
        raise InputError(f"{what} is {value!r:.80}, not a whole number from {least}")
    return value


# YAML ----------------------------------------------------------------------------------------


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Values as YAML's safe loader has them; the fast one where PyYAML was built with it."""

    def close(self) -> None:
        """Give back what parsing held."""
        self.dispose()


def parse_yaml(text: str, where: str) -> Any:
    """
    What a YAML document says; None if it is empty.

    Raises:
        InputError: it is no YAML, a value is none of its type, it is nested too deeply, or its
            aliases unfold into more than ``YAML_NODES`` values.
    """
    require_within(len(text) / MB * (256 / YAML_MB), "DOCUMENT_MB", f"{where} would take")
    try:
        with closing(_Loader(text)) as loader:
            node = loader.get_single_node()
            if node is None:
                return None
            require(
                _nodes(node, {}) <= YAML_NODES,
                f"{where}: its aliases unfold into more than {YAML_NODES:,} values: write them "
                "out",
            )
            return loader.construct_document(node)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{where} is nested too deeply, or holds itself") from error
    # values that YAML takes for dates and numbers, and are none, raise kinds of their own
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(f"{where} is no YAML: {error!s:.300}") from error


def read_yaml(path: Path) -> Any:
    """
    What a YAML file says, see `parse_yaml`.

    Raises:
        InputError: as there, or it is no UTF-8.
        OSError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text of UTF-8 ({error})") from error
    return parse_yaml(text, str(path))


def _nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node is once its aliases are followed; one that holds itself: too many."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = YAML_NODES + 1  # while it is being counted
        children = (
            [part for pair in node.value for part in pair]
            if isinstance(node, yaml.MappingNode)
            else node.value
        )
        known[id(node)] = 1 + sum(_nodes(child, known) for child in children)
    return known[id(node)]
