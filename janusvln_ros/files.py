"""
Where the package's own files lie, and how files are written so that nobody ever sees half of one.
"""

import ctypes
import errno
import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import FileLock

from janusvln_ros.errors import InputError, require


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """
    Yield a temporary path beside ``path``; rename it to ``path`` if the block succeeds, delete it
    if it raises.

    Folders above are made. The block must create the temporary file itself; who may read it is
    what the umask says, whatever wrote it. Works for a single file.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, since many writers choose a format by it.
    temporary = final.with_name(f".{final.stem}.{os.getpid()}.tmp{final.suffix}")
    try:
        temporary.touch()
        allowed = temporary.stat().st_mode
        temporary.unlink()
        yield temporary
        temporary.chmod(allowed)  # safetensors writes for its owner alone
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8) to ``path`` through a temporary file and a rename."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(
    path: str | os.PathLike[str], keep: Callable[[str], bool] = lambda name: False
) -> Iterator[Path]:
    """
    Yield an empty folder beside ``path``; put it in the place of ``path`` in one step if the block
    succeeds, delete it if it raises. Whoever looks, also after a kill or a loss of power, finds
    all that was there before or all that is new.

    What lay in ``path`` and the block did not write stays, where ``keep`` says so of its name. A
    file system that cannot exchange two folders does it in two steps: between them none is there,
    and the one before is beside it (``.NAME.HOST-PID.tmp``).
    """
    final = Path(path).resolve()  # a link stays, its folder is replaced
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final)
    temporary = final.with_name(f".{final.name}.{socket.gethostname()}-{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        yield temporary
        for entry in os.scandir(final) if final.is_dir() else ():
            if keep(entry.name) and not (temporary / entry.name).exists():
                _link(Path(entry.path), temporary / entry.name)
        _flush(temporary)
        if final.is_dir():
            shutil.copymode(final, temporary)
            _exchange(temporary, final)
        else:
            temporary.rename(final)
        _flush_names(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def unreplaced(folder: Path) -> Iterator[None]:
    """
    For reading several files of a folder that others may replace (`atomic_folder`).

    Raises:
        InputError: it was replaced in between, so that they may be of two folders.
    """
    before = folder.stat().st_ino
    yield
    if folder.stat().st_ino != before:
        raise InputError(f"{folder} was replaced while it was read: load it again")


def _sweep(final: Path) -> None:
    """
    Delete what processes of this host that live no more left of their `atomic_folder`; but nothing
    where ``final`` is not there, since a kill between the two steps of an exchange leaves it so.
    """
    left = re.compile(re.escape(f".{final.name}.{socket.gethostname()}-") + r"(\d+)\.tmp.*")
    for entry in final.parent.iterdir() if final.exists() else ():
        found = left.fullmatch(entry.name)
        if found and not _lives(int(found[1])):
            shutil.rmtree(entry, ignore_errors=True)


def _lives(process: int) -> bool:
    """Whether another process of this host has that number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _link(source: Path, target: Path) -> None:
    """The same file or folder under another name; a copy where there are no hard links."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=_link_file)
    else:
        _link_file(source, target)


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _flush(folder: Path) -> None:
    """Have a new folder on the disk, before its name says that it is whole."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    _flush_names(folder)


def _flush_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(new: Path, old: Path) -> None:
    """Let two folders change names: in one step on Linux (renameat2), else in two."""
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is not None and call(here, os.fsencode(new), here, os.fsencode(old), both) == 0:
        return
    if call is not None and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(old))
    before = new.with_name(f"{new.name}.before")
    old.rename(before)
    new.rename(old)
    before.rename(new)


ELSEWHERE, ROOM = "choose another folder, or ask its owner", "make room, and try again"

REMEDIES = {
    errno.EACCES: ELSEWHERE,
    errno.EPERM: ELSEWHERE,
    errno.EROFS: "choose a folder that is not read-only",
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "the disk or a limit (ulimit -f) allows no larger file",
    errno.ENOTDIR: "a part of the path is a file: choose another",
    errno.EEXIST: "a file is in the way: choose another name",
    errno.EISDIR: "that is a folder: name a file",
    errno.ENOTEMPTY: "the folder is not empty: choose another name",
    errno.ENOENT: "a part of the path is not there and cannot be made",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
    errno.EIO: "the disk failed: look at the system's log",
}
"""What to do about what the file system says."""


def trouble(error: OSError) -> str | None:
    """
    One sentence about what the file system refused: the path, why, and what to do. None where the
    error is about anything else.
    """
    remedy = REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    path = Path(str(error.filename2 or error.filename or ""))
    # the name under which a file is built is of no interest to who asked for the other one
    if path.name.startswith(".") and ".tmp" in path.name:
        path = path.parent
    where = f"{path}: " if error.filename else ""
    return f"{where}{(error.strerror or str(error)).lower()}; {remedy}"


def require_folder(path: str | os.PathLike[str]) -> Path:
    """
    Return ``path`` if a folder is there or can be made, and files in it; nothing stays of the
    attempt. For before long work.

    Raises:
        OSError: it cannot, with ``path`` as its name.
    """
    folder = Path(path)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        Path(tempfile.mkdtemp(prefix=".janusvln-", dir=there)).rmdir()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    return folder


def require_file(path: str | os.PathLike[str]) -> Path:
    """
    Return ``path`` if a file can be written there, see `require_folder`; one that is there may be
    replaced.

    Raises:
        OSError: it cannot, with the name that is in the way.
    """
    file = Path(path)
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    require_folder(file.absolute().parent)
    return file


def file_lock(path: str | os.PathLike[str]) -> FileLock:
    """
    Return a lock beside ``path``: while one process holds it (``with``), others that ask for the
    same wait, until it is given back or that process ends.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(final.with_name(f".{final.name}.lock"))


NAME_BYTES = 255
"""As long as one part of a path may be on the file systems in use."""


def one_name(text: str, what: str) -> str:
    """
    Return ``text``, which came out of a file or a message, if it can be one part of a path:
    ``what`` it is, for the sentence.

    Raises:
        InputError: it is empty, a dot or two, too long, or holds a slash or a character that no
            name has.
    """
    require(
        isinstance(text, str) and text not in ("", ".", "..") and "/" not in text,
        f"{what} is {text!r:.80}, which cannot name a file or a folder: it must be one name, "
        "without '/' and not '..'",
    )
    require(
        all(c.isprintable() for c in text) and len(text.encode()) <= NAME_BYTES,
        f"{what} is {text!r:.80}, which cannot name a file or a folder: at most {NAME_BYTES} "
        "bytes of characters that can be printed",
    )
    return text


def inside(folder: str | os.PathLike[str], name: str, what: str) -> Path:
    """
    Return ``folder / name``, where ``name`` came out of a file or a message: every such path is
    built here (or of `one_name`), so that none leaves its folder. Links on the way are followed,
    since they are the user's own.

    Args:
        folder: that must not be left.
        name: relative to it; of several parts if need be, such as ``mp3d/X/X.glb``.
        what: it is, for the sentence.

    Raises:
        InputError: ``name`` is absolute, or a part of it is '..' or no name at all.
    """
    require(
        isinstance(name, str) and name and not name.startswith("/"),
        f"{what} is {name!r:.80}: it must be the path of something within {folder}",
    )
    parts = [part for part in name.split("/") if part not in ("", ".")]
    require(
        parts and ".." not in parts,
        f"{what} is {name!r:.80}, which leaves {folder}: names with '..' are refused",
    )
    return Path(folder, *(one_name(part, f"a part of {what}") for part in parts))


def share_dir() -> Path:
    """
    The folder that holds ``config/`` and ``launch/``: the source tree, else the installed
    ``share/janusvln_ros``.

    Raises:
        InputError: neither is there, so the package is not completely installed.
    """
    prefixes = [sys.prefix, *os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    installed = [Path(prefix) / "share" / "janusvln_ros" for prefix in prefixes if prefix]
    candidates = [Path(__file__).resolve().parents[1], *installed]
    for candidate in candidates:
        if (candidate / "config").is_dir() and (candidate / "launch").is_dir():
            return candidate
    raise InputError(
        f"config/ and launch/ of janusvln_ros are in none of {[*map(str, candidates)]}: reinstall "
        "with 'pip install .' or source the workspace"
    )


HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*@[A-Za-z0-9][\w./-]*")
"""How something of the hub is named: it is other people's, so with its revision."""


def local_checkpoint(checkpoint: str | os.PathLike[str]) -> Path | None:
    """
    Return the folder of a checkpoint, None if it is named as one of the hub, which takes its
    revision: ``owner/name@revision``. Told without torch, so at once.

    Raises:
        InputError: there is no such folder, and it is no such name.
    """
    folder = Path(checkpoint)
    if folder.is_dir():
        return folder
    before = [*folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp.before")]
    if before and folder.name:
        raise InputError(
            f"{folder} was being replaced when its writer was ended: "
            f"rename {before[0]} to {folder.name}, which is what was there before"
        )
    require(
        HUB_NAME.fullmatch(str(checkpoint)),
        f"there is no checkpoint folder {str(checkpoint)!r}: give a folder with config.json and "
        "safetensors, or one of the hub with its revision, as 'owner/name@main' or, so that it "
        "stays the same, 'owner/name@COMMIT'",
    )
    return None


def user_data_dir() -> Path:
    """
    Return the folder for data that no other was named for: ``janusvln_ros`` in the user's own data
    folder (XDG base directories: ``XDG_DATA_HOME``, else ``~/.local/share``).
    """
    told = Path(os.environ.get("XDG_DATA_HOME", ""))
    # relative paths are to be ignored, says the specification
    return (told if told.is_absolute() else Path.home() / ".local" / "share") / "janusvln_ros"


@cache
def git_state() -> str:
    """
    Which commit of the source tree runs, with ``-dirty`` where files of it were changed; empty
    where the package runs from no checkout of its own.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
