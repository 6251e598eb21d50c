"""The bridge's world: the simulator and the episode in it, as the node asks for them. No ROS."""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from janusvln_ros.actions import Action
from janusvln_ros.camera.images import encode_jpeg
from janusvln_ros.data.episodes import Episode, episodes_path, read_episodes
from janusvln_ros.data.top_down_map import TopDownMap
from janusvln_ros.errors import require
from janusvln_ros.evaluation.drive import Drive, finite
from janusvln_ros.evaluation.metrics import Thresholds, measure
from janusvln_ros.files import user_data_dir
from sim_bridge.habitat_client import HabitatSettings
from sim_bridge.homes import check_generator, first_episodes
from sim_bridge.nav_env import MAX_DEPTH_M, NavEnv, Observation, parameter_names, record_place

M_MMAP_THRESHOLD = -3
"""Its number in glibc's ``malloc.h``."""


@dataclass
class Frame:
    """
    One rendered view with everything that is published of it.

    ``jpeg`` is empty where nobody asked for it; ``map`` comes with the first frame of an episode.
    """

    observation: Observation
    depth: NDArray[np.float32]
    jpeg: bytes
    map: TopDownMap | None = None


class World:
    """
    The simulator and the episode in it. Lives on the thread that made it.

    ``values``: the parameters of the node ``sim_bridge``; ``factory``: makes the simulator, as
    ``make_env`` does; ``tell`` gets a sentence about work that takes seconds.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        factory: Callable[..., NavEnv],
        tell: Callable[[str], None] = lambda sentence: None,
    ):
        map_large_arrays()
        self.values, self.tell = values, tell
        self.data_dir = Path(values["data_dir"] or user_data_dir())
        settings = {name: values[there] for name, there in parameter_names().items()}
        if values["backend"] == "habitat":
            settings |= {field.name: values[field.name] for field in fields(HabitatSettings)}
        self.env = factory(values["backend"], data_dir=self.data_dir, **settings)
        self.versions: dict[str, str] = getattr(self.env, "versions", {})
        self.episodes: dict[tuple[str, str], tuple[Episode, ...]] = {}
        self.current = ("", "", -1)
        self.drive = Drive()

    def close(self) -> None:
        """Release the simulator."""
        self.env.close()

    def reset(self, episode_id: str, dataset: str, split: str) -> tuple[Episode, Frame]:
        """
        Start an episode: the named one, else the next of the list (after the last comes the
        first). An empty data set or split is that of the parameters.

        Raises:
            InputError: there is no such episode, or the data or the scene cannot be used.
        """
        key = (dataset or self.values["dataset"], split or self.values["split"])
        going_on = self.current[2] + 1 if self.current[:2] == key else 0
        episodes = self._episodes(key, episode_id, going_on + 1)
        if episode_id:
            called = [i for i, e in enumerate(episodes) if e.episode_id == episode_id]
            require(
                len(called) < 2,
                f"{key[0]} {key[1]} has {len(called)} episodes {episode_id!r}, in several scenes "
                "or with several instructions: which is meant cannot be told by the id alone",
            )
            index = called[0] if called else -1
            require(
                index >= 0,
                f"{key[0]} {key[1]} has no episode {episode_id!r}: it has {len(episodes)}, "
                f"from {episodes[0].episode_id!r} to {episodes[-1].episode_id!r}",
            )
        else:
            index = going_on % len(episodes)
        observation = self.env.reset(episodes[index])
        give_back_freed_memory()
        self.current = (*key, index)
        self.drive = Drive()
        record_place(self.drive, self.env, observation)
        return episodes[index], self._frame(observation, self.env.top_down_map())

    def _episodes(self, key: tuple[str, str], episode_id: str, count: int) -> tuple[Episode, ...]:
        """
        The episodes of a data set and split: of houses that are not there yet only those up to the
        named one, or else the first ``count``; their homes are made.
        """
        dataset, split = key
        if key in self.episodes:
            return self.episodes[key]
        if dataset == "houses":
            check_generator(self.data_dir, split)
        if dataset != "houses" or episodes_path(self.data_dir, dataset, split).is_file():
            self.episodes[key] = read_episodes(self.data_dir, dataset, split).episodes
            return self.episodes[key]
        if episode_id:
            # a name that is no number of an episode is told of before sixty homes are made
            require(
                episode_id.isdecimal() and int(episode_id) > 0,
                f"{dataset} {split} has no episode {episode_id!r}: it counts from '1'",
            )
            count = int(episode_id)

        def tell(done: int, wanted: int) -> None:
            if done < wanted:
                self.tell(f"making house {done + 1} of {wanted} of {split} in {self.data_dir}")

        episodes, complete = first_episodes(self.data_dir, split, count, progress=tell)
        if complete:
            self.episodes[key] = episodes
        return episodes

    def step(self, action: Action) -> Frame:
        """Carry out one action of an episode that is not over."""
        observation = self.env.step(action)
        self.count(action)
        record_place(self.drive, self.env, observation)
        return self._frame(observation)

    def look_from(self, position: NDArray[np.float64], rotation: NDArray[np.float64]) -> Frame:
        """
        Put the agent at ``position`` [3] with ``rotation`` [4] and render; the way counts, since a
        moving base was really there.

        A base at rest adds nothing to the record.
        """
        self.env.set_state(position, rotation)
        observation = self.env.render()
        last = [*self.drive.positions[-1], *self.drive.rotations[-1]]
        if not np.allclose([*position, *rotation], last, atol=1e-4):
            record_place(self.drive, self.env, observation)
        return self._frame(observation)

    def count(self, action: int) -> None:
        """Note an action; `step` carries it out as well."""
        self.drive.actions.append(int(action))

    def metrics(self) -> dict[str, Any]:
        """
        Return the metrics of the episode so far and its record, as a JSON-ready object; a distance
        that is not finite is None.
        """
        assert self.env.episode is not None
        near = self.values["success_distance"]
        found = measure(self.drive, thresholds=Thresholds(success=near, oracle=near))
        return {
            "episode_id": self.env.episode.episode_id,
            "scene_id": self.env.episode.scene_id,
            "simulator": {"backend": self.values["backend"], **self.versions},
            "steps": len(self.drive.actions),
            "stop_called": self.drive.stopped,
            "success": found.success,
            "spl": found.spl,
            "oracle_success": found.os,
            "distance_to_goal": finite(found.ne),
            "start_distance_to_goal": finite(found.start_distance),
            "path_length": found.path_length,
            "collisions": found.collisions,
            **self.drive.as_json(),
        }

    def _frame(self, observation: Observation, floor: TopDownMap | None = None) -> Frame:
        wanted = self.values["publish_compressed"]
        jpeg = encode_jpeg(observation.rgb, self.values["jpeg_quality"]) if wanted else b""
        return Frame(observation, rep118_depth(observation.depth), jpeg, floor)


def map_large_arrays() -> None:
    """
    From now on what has a MiB or more is mapped by itself and goes back to the system as soon as
    it is freed. As it comes, glibc maps ever fewer: once 30 MiB were freed, 30 MiB are kept for
    later, among smaller pieces that hold them. Nothing where the C library has no ``mallopt``.
    """
    _call("mallopt", M_MMAP_THRESHOLD, 1 << 20)


def give_back_freed_memory() -> None:
    """
    Return to the system the freed pieces that reading a home has left, where the C library has
    ``malloc_trim``.
    """
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library, where it has one of that name."""
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)


def rep118_depth(depth_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    Return the simulator's depth (0: nothing hit, clipped at ``MAX_DEPTH_M``) as REP-118 has it:
    metres, +inf beyond the range.
    """
    hit_HW = (depth_HW > 0) & (depth_HW < MAX_DEPTH_M)
    return np.where(hit_HW, depth_HW, np.float32(np.inf)).astype(np.float32)
