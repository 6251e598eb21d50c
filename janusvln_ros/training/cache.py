"""
Pictures of a training set, resized once, and what frozen encoders make of them: arrays on disk,
mapped into memory.

Small networks train faster than pictures can be decoded, and frozen encoders give the same answer
every time; so both are computed once per set and kept beside it in ``<set>.cache/``. The name of
an array holds what it was made from (the text of the set, the content of its pictures, the weights
of the encoders), so nothing stale is ever read.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image
from tqdm import tqdm

from janusvln_ros.data.samples import TrajectorySet
from janusvln_ros.errors import FailedError, InputError, require
from janusvln_ros.files import atomic_path, file_lock, trouble
from janusvln_ros.limits import require_within
from janusvln_ros.policy.preprocess import resize


def array_on_disk(
    path: Path, shape: tuple[int, ...], dtype: np.dtype | type, fill: Callable[[np.ndarray], None]
) -> np.ndarray:
    """
    The array at ``path``, made with ``fill(array)`` where it is missing, by one process while
    others that want it wait; a kill while filling leaves nothing behind that could be read.

    Raises:
        FailedError: it cannot be written there.
        InputError: the file there is damaged, or of another shape.
    """
    if not path.is_file():  # else whole, and perhaps where nothing can be written
        try:
            _make(path, shape, dtype, fill)
        except OSError as error:
            sentence = trouble(error)
            if sentence is None:
                raise
            raise FailedError(f"{sentence}, or go on without: cache_features=false") from error
    anew = f"delete the folder {path.parent}, it is made anew"
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:  # as a copy that was cut off is
        raise InputError(f"{path} is damaged ({error}): {anew}") from error
    require(array.shape == shape, f"{path} is {array.shape} instead of {shape}: {anew}")
    return array


def _make(
    path: Path, shape: tuple[int, ...], dtype: np.dtype | type, fill: Callable[[np.ndarray], None]
) -> None:
    """Make the array of `array_on_disk`, unless another process did while this one waited."""
    with file_lock(path):
        if path.is_file():
            return
        with atomic_path(path) as temporary:
            array = open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
            _reserve(temporary)
            fill(array)
            array.flush()


def _reserve(path: Path) -> None:
    """
    Take the room on the disk that a file says it has; a disk that fills up under an array which is
    mapped into memory ends the process.
    """
    reserve = getattr(os, "posix_fallocate", None)
    if reserve is None:  # macOS
        return
    with open(path, "r+b") as file:
        try:
            reserve(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def read_picture(path: Path, image_width: int) -> np.ndarray:
    """A picture resized as for the encoders, uint8 [h, w, 3]. Raises InputError."""
    try:
        with Image.open(path) as picture:
            require_within(picture.width * picture.height, "PICTURE_PIXELS", f"{path} has")
            pixels = np.asarray(picture.convert("RGB"))
    except InputError:
        raise
    # what a decoder meets in damaged data is of many kinds
    except Exception as error:
        raise InputError(f"{path} cannot be read as a picture ({error}): {MEND}") from error
    try:
        return resize(pixels, image_width)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


MEND = "put the right picture there, or take its trajectory out of the set"


def read_pictures(paths: Sequence[Path], image_width: int) -> np.ndarray:
    """
    The pictures of a trajectory, as `read_picture`: uint8 [N, h, w, 3].

    Raises:
        InputError: one cannot be read, or has another shape than the first.
    """
    pictures = [read_picture(path, image_width) for path in paths]
    for k, (path, picture) in enumerate(zip(paths, pictures)):
        require_shape(path, picture, pictures[0].shape, f"frame {k} of {len(paths)}")
    return np.stack(pictures)


def require_shape(path: Path, picture: np.ndarray, shape: tuple[int, ...], which: str) -> None:
    """Raise InputError where a resized picture is not of the shape of those before it."""
    rows, columns = picture.shape[:2]
    require(
        picture.shape == shape,
        f"{path} ({which}) is {columns}x{rows} after resizing, the first {shape[1]}x{shape[0]}: "
        f"it was turned, cut, or comes from another camera; {MEND}",
    )


def size_and_time(path: Path) -> bytes:
    """By what a file that is not read is told from an earlier one of its name."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}".encode()


MOST_PICTURES = 200_000
"""So many pictures of a set are looked at at most, evenly chosen trajectories of it."""


def set_digest(
    trajectories: TrajectorySet, tell: Callable[[Path], bytes], most: int = MOST_PICTURES
) -> str:
    """
    SHA-256 over the text of a set and what ``tell`` says of its pictures; of a set of more than
    ``most``, of a part of them.

    Raises:
        InputError: a picture is missing.
    """
    digest = hashlib.sha256(trajectories.path.read_bytes())
    every = max(1, -(-int(trajectories.lengths.sum()) // most))
    for i in range(0, len(trajectories), every):
        for path in trajectories[i].frames:
            try:
                digest.update(tell(path))
            except OSError as error:
                raise InputError(f"{path} cannot be read ({error.strerror}): {MEND}") from error
    return digest.hexdigest()


class FrameCache:
    """
    All pictures of a set at ``image_width``: ``frames`` uint8 [N, h, w, 3]; those of trajectory i
    are ``start[i] : start[i + 1]``.

    Raises:
        InputError: a picture cannot be read, or has another shape than the first.
    """

    def __init__(self, trajectories: TrajectorySet, image_width: int) -> None:
        self.folder = trajectories.path.with_name(trajectories.path.name + ".cache")
        count = int(trajectories.lengths.sum())
        self.digest = set_digest(trajectories, Path.read_bytes, count)[:16]
        self.width = image_width
        self.start = np.concatenate([[0], np.cumsum(trajectories.lengths.astype(np.int64))])
        height, width = read_picture(trajectories[0].frames[0], image_width).shape[:2]

        def fill(array: np.ndarray) -> None:
            for i in tqdm(
                range(len(trajectories)),
                desc=f"pictures of {trajectories.path.name}",
                mininterval=5,
            ):
                for k, path in enumerate(trajectories[i].frames, self.start[i]):
                    picture = read_picture(path, image_width)
                    which = f"frame {k - self.start[i]} of trajectory {i}"
                    require_shape(path, picture, (height, width, 3), which)
                    array[k] = picture

        self.frames = array_on_disk(
            self.folder / f"frames-{self.digest}-{image_width}.npy",
            (int(self.start[-1]), height, width, 3),
            np.uint8,
            fill,
        )

    def features(
        self, name: str, shape: tuple[int, ...], encode: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """
        float16 [N, *shape]: ``encode`` (whole trajectory, uint8 [T, h, w, 3] -> [T, *shape]) of
        every trajectory; ``name`` must tell what ``encode`` is.
        """

        def fill(array: np.ndarray) -> None:
            spans = list(zip(self.start[:-1], self.start[1:]))
            for a, b in tqdm(spans, desc="frozen encoders", mininterval=5):
                array[a:b] = encode(np.asarray(self.frames[a:b]))

        return array_on_disk(
            self.folder / f"features-{self.digest}-{self.width}-{name}.npy",
            (len(self.frames), *shape),
            np.float16,
            fill,
        )
