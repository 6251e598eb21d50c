"""
A recorded drive run through the policy again, offline and exact: what it decides on which frame,
and how that agrees with the record.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from janusvln_ros.actions import Action
from janusvln_ros.camera.images import decode, encode_jpeg
from janusvln_ros.camera.view import fitted, intrinsics_of, plan_view, uncalibrated_view
from janusvln_ros.data.bags import Bag, BagWriter, message_types, open_bag
from janusvln_ros.data.drawing import camera_picture
from janusvln_ros.data.drives import (
    DECISION_TYPE,
    Moment,
    Topics,
    camera_info_topics,
    camera_topic,
    moment_frames,
    recorded_moments,
)
from janusvln_ros.errors import require
from janusvln_ros.policy import Decision, Navigator

NO_ACTION = 255

Camera = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""
What the policy node does to a camera picture before the model sees it: rectify and crop, uint8 [H,
W, 3] to uint8 [h, w, 3].
"""


@dataclass(frozen=True)
class Replayed:
    """
    One decision of a replay, beside the picture it was made on (uint8 [H, W, 3], as recorded).
    """

    moment: Moment
    rgb: NDArray[np.uint8]
    decision: Decision


def bag_camera(bag: Bag, topics: Topics, uncalibrated: bool) -> Camera:
    """
    How this bag's pictures become the model's: from its ``camera_info``, as the policy node does
    it.

    Args:
        bag: with a camera.
        topics: which topics to read.
        uncalibrated: go on without intrinsics; only the shape of the frame is then put right.

    Raises:
        InputError: no ``camera_info`` and not ``uncalibrated``, or one that is of no use.
    """
    camera = camera_topic(bag, topics.image)
    infos = camera_info_topics(bag, camera)
    height, width = decode(bag.decode(bag.first(camera))).shape[:2]
    if infos:
        intrinsics = intrinsics_of(bag.decode(bag.first(infos[0])))
        return plan_view(fitted(intrinsics, width, height)).apply
    require(
        uncalibrated,
        f"{bag.path} holds no camera_info, so the field of view of {camera} is "
        "unknown; give --uncalibrated to go on without",
    )
    return uncalibrated_view(width, height).apply


def replay(
    bag: Bag, navigator: Navigator, moments: Sequence[Moment], topics: Topics, camera: Camera
) -> Iterator[Replayed]:
    """
    Decide again at every moment whose frame is in the bag; each new episode empties the memories.

    The frames are found by their header stamps. One that the bag lacks is passed over: compare the
    number of results with ``len(moments)``.
    """
    episode: int | None = None
    for moment, rgb in moment_frames(bag, topics, moments):
        if moment.episode != episode:
            navigator.reset(moment.instruction)
            episode = moment.episode
        yield Replayed(moment, rgb, navigator.step(camera(rgb)))


def agreement(replayed: Sequence[tuple[Moment, Action | None]], parts: int = 10) -> dict[str, Any]:
    """
    How decisions agree with the record: overall, per action, over time and as a confusion matrix
    (rows recorded, columns decided).

    Args:
        replayed: the moments and what was decided there; moments of which the record says nothing
            are counted but not compared.
        parts: into how many equal parts of the drive ``over_time`` is cut.
    """
    pairs = [
        (moment.recorded, decided) for moment, decided in replayed if moment.recorded is not None
    ]
    names = [action.name for action in Action]
    confusion = {row.name: dict.fromkeys([*names, "NO_ACTION"], 0) for row in Action}
    for recorded, decided in pairs:
        confusion[recorded.name][decided.name if decided is not None else "NO_ACTION"] += 1
    equal = [recorded is decided for recorded, decided in pairs]
    return {
        "decisions": len(replayed),
        "compared": len(pairs),
        "agreement": sum(equal) / len(equal) if equal else None,
        "per_action": {
            name: {"recorded": sum(confusion[name].values()), "equal": confusion[name][name]}
            for name in names
        },
        "confusion": confusion,
        "over_time": [
            float(np.mean(part))
            for part in np.array_split(np.asarray(equal, float), min(parts, len(equal)))
        ]
        if equal
        else [],
    }


def decision_message(replayed: Replayed) -> Any:
    """
    The ``janusvln_msgs/Decision`` of one replayed decision.

    Timings are left 0, so that the same bag and checkpoint give the same bytes.
    """
    types = message_types().types
    moment, decision = replayed.moment, replayed.decision
    stamp = types["builtin_interfaces/msg/Time"](
        sec=moment.stamp // 10**9, nanosec=moment.stamp % 10**9
    )
    probabilities = (
        [decision.probabilities[a] for a in Action]
        if decision.probabilities
        else [float("nan")] * 4
    )
    return types[DECISION_TYPE](
        header=types["std_msgs/msg/Header"](stamp=stamp, frame_id=""),
        episode_id=moment.episode,
        step=moment.step,
        instruction=moment.instruction,
        action=NO_ACTION if decision.action is None else int(decision.action),
        status=0 if decision.action is not None else 1,
        text=decision.text,
        error_msg="",
        probabilities=np.asarray(probabilities, np.float32),
        executed=False,
        **dict.fromkeys(("preprocess", "spatial", "vision", "prefill", "decode", "total"), 0.0),
        **dict.fromkeys(
            ("spatial_frames", "semantic_frames", "memory_capacity", "memory_bytes"), 0
        ),
    )


def write_decision(writer: BagWriter, replayed: Replayed) -> None:
    """
    Append a decision to a bag, and its frame with the decision written on it as
    ``sensor_msgs/CompressedImage``.
    """
    message, moment, decision = decision_message(replayed), replayed.moment, replayed.decision
    writer.write_message("/policy/decision", moment.stamp, message)
    overlay = camera_picture(
        replayed.rgb, moment.instruction, moment.step, decision.action, decision.probabilities
    )
    picture = message_types().types["sensor_msgs/msg/CompressedImage"](
        header=message.header, format="jpeg", data=np.frombuffer(encode_jpeg(overlay), np.uint8)
    )
    writer.write_message("/policy/overlay/compressed", moment.stamp, picture)


def against(
    old: Path, replayed: Sequence[tuple[Moment, Action | None]]
) -> list[tuple[Moment, Action | None]]:
    """
    The same moments with the decisions of an older replay in the place of the record, so that
    ``agreement`` compares the two.

    Raises:
        InputError: the older file holds no decisions, or on none of these frames.
    """
    with open_bag(old) as bag:
        earlier = {(m.stamp, m.step): m.recorded for m in recorded_moments(bag)}
    pairs = [
        (replace(m, recorded=earlier[(m.stamp, m.step)]), decided)
        for m, decided in replayed
        if (m.stamp, m.step) in earlier
    ]
    require(
        pairs,
        f"{old} holds no decision on any of the {len(replayed)} frames of this "
        "replay: it is of another bag or of other --boundaries",
    )
    return pairs
