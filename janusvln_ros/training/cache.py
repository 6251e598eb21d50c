"""
Pictures of a training set, resized once, and what frozen encoders make of them: arrays on disk,
mapped into memory.

Small networks train faster than pictures can be decoded, and frozen encoders give the same answer
every time; so both are computed once per set and kept beside it in ``<set>.cache/``. The name of
an array holds what it was made from, so nothing stale is ever read.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from PIL import Image
from tqdm import tqdm

from janusvln_ros.data.samples import TrajectorySet
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_path, file_lock
from janusvln_ros.limits import require_within
from janusvln_ros.policy.preprocess import resize


def array_on_disk(
    path: Path, shape: tuple[int, ...], dtype: np.dtype | type, fill: Callable[[np.ndarray], None]
) -> np.ndarray:
    """
    The array at ``path``, made with ``fill(array)`` where it is missing, by one process while
    others that want it wait; a kill while filling leaves nothing behind that could be read.
    """
    with file_lock(path):
        if not path.is_file():
            with atomic_path(path) as temporary:
                array = open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
                fill(array)
                array.flush()
    array = np.load(path, mmap_mode="r")
    require(
        array.shape == shape,
        f"{path} is {array.shape} instead of {shape}: delete the folder "
        f"{path.parent}, it is made anew",
    )
    return array


def read_picture(path: Path, image_width: int) -> np.ndarray:
    """A picture resized as for the encoders, uint8 [h, w, 3]. Raises InputError."""
    try:
        with Image.open(path) as picture:
            require_within(picture.width * picture.height, "PICTURE_PIXELS", f"{path} has")
            return resize(np.asarray(picture.convert("RGB")), image_width)
    except InputError:
        raise
    # what a decoder meets in damaged data is of many kinds
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as a picture ({error}): make the training set "
            "anew, which leaves such trajectories out"
        ) from error


class FrameCache:
    """
    All pictures of a set at ``image_width``: ``frames`` uint8 [N, h, w, 3]; those of trajectory i
    are ``start[i] : start[i + 1]``.

    Raises:
        InputError: a picture cannot be read, or has another shape than the first.
    """

    def __init__(self, trajectories: TrajectorySet, image_width: int) -> None:
        self.folder = trajectories.path.with_name(trajectories.path.name + ".cache")
        # changes with the content of the set's file
        self.digest = hashlib.sha256(trajectories.path.read_bytes()).hexdigest()[:16]
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
                    require(
                        picture.shape[:2] == (height, width),
                        f"{path} is {picture.shape[1]}x{picture.shape[0]} after resizing, the "
                        f"set's first picture {width}x{height}: use pictures of one shape",
                    )
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
            self.folder / f"features-{self.digest}-{name}.npy",
            (len(self.frames), *shape),
            np.float16,
            fill,
        )
