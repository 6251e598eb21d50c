"""
Recorded drives: which frames of a bag a policy would have decided on, and what the drive did
there.
"""

import heapq
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from janusvln_ros.actions import Action, known_action
from janusvln_ros.camera.images import decode
from janusvln_ros.data.bags import IMAGE_TYPES, Bag, header_stamp
from janusvln_ros.data.odometry import (
    CMD_VEL_TIMEOUT_S,
    odometry_from_poses,
    odometry_from_velocity,
)
from janusvln_ros.errors import InputError, require
from janusvln_ros.geometry import Pose2, yaw_of
from janusvln_ros.protocol.choosing import JUMP_BACK_NS, Rule, cut_into_steps
from janusvln_ros.protocol.odometry import Sample, pose_of
from janusvln_ros.stamps import nanoseconds

DECISION_TYPE = "janusvln_msgs/msg/Decision"
REPORT_TYPE = "janusvln_msgs/msg/StepReport"
ODOMETRY_TYPE = "nav_msgs/msg/Odometry"
TEXT_TYPE = "std_msgs/msg/String"
VELOCITY_TYPES = ("geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped")
MOTION_TYPES = (ODOMETRY_TYPE, *VELOCITY_TYPES)
MIN_INTERVAL_S = 1e-3
TOGETHER = 0.5
"""Share of the frames that must lie within the odometry, or the two are of different clocks."""


@dataclass(frozen=True)
class Moment:
    """
    A frame to decide on.

    ``stamp``: its header stamp, nanoseconds. ``recorded``: what the record did there, None where
    it does not say.
    """

    stamp: int
    episode: int
    step: int
    instruction: str
    recorded: Action | None


@dataclass(frozen=True)
class Topics:
    """
    Which topics of a bag to read; None finds the only one of its type.

    ``cmd_vel_timeout``: seconds after which the base stops by itself where no command comes.
    """

    image: str | None = None
    odom: str | None = None
    cmd_vel: str | None = None
    instruction: str | None = None
    cmd_vel_timeout: float = CMD_VEL_TIMEOUT_S


def camera_topics(bag: Bag) -> list[str]:
    """The topics with pictures; depth and overlay pictures are of no camera."""
    return [
        t
        for t in bag.topics_of(IMAGE_TYPES)
        if not any(word in t for word in ("depth", "overlay"))
    ]


def camera_info_topics(bag: Bag, camera: str) -> list[str]:
    """
    The topics with intrinsics, those beside the ``camera`` first: there they stand by the
    convention of image pipelines.
    """
    folder = camera.removesuffix("/compressed").rpartition("/")[0]
    infos = bag.topics_of(["sensor_msgs/msg/CameraInfo"])
    return sorted(infos, key=lambda topic: topic.rpartition("/")[0] != folder)


def camera_topic(bag: Bag, wanted: str | None) -> str:
    """
    The camera topic of a bag: ``wanted``, else the only one; depth and overlay pictures are no
    camera, raw goes before its compressed twin.

    Raises:
        InputError: none, or several cameras; the sentence lists them.
    """
    cameras = camera_topics(bag)
    if (
        wanted is None
        and len(cameras) == 2
        and cameras[0].removesuffix("/compressed") == cameras[1].removesuffix("/compressed")
    ):
        return min(cameras, key=len)
    return bag.topic_of_type(
        IMAGE_TYPES,
        wanted if wanted is not None else cameras[0] if len(cameras) == 1 else None,
        "camera",
        "--image-topic",
    )


def recorded_moments(bag: Bag, image: str | None = None) -> list[Moment]:
    """
    The frames that the recorded policy decided on, from its decisions or, where none were
    recorded, from ``motion``'s step reports; ``image``: the camera topic, see `camera_topic`.

    A step report alone is no decision: a STOP at the step limit is executed without the policy.

    Raises:
        InputError: the bag holds neither.
    """
    topics = bag.topics_of([DECISION_TYPE]) or bag.topics_of([REPORT_TYPE])
    require(
        topics,
        f"{bag.path} holds no decisions and no step reports (it holds "
        f"{', '.join(sorted(bag.topics)) or 'nothing'}); use --boundaries odom or interval",
    )
    moments: dict[tuple[int, int], Moment] = {}
    for message in bag.messages(topics):
        decided = message.msgtype == DECISION_TYPE
        body = bag.decode(message)
        stamp = body.header.stamp if decided else body.frame_stamp
        episode, step = int(body.episode_id), int(body.step)
        moments[episode, step] = Moment(
            nanoseconds(stamp),
            episode,
            step,
            body.instruction if decided else "",
            known_action(body.action),
        )
    ordered = [moments[key] for key in sorted(moments)]
    if bag.time == "header" or not bag.topics_of(IMAGE_TYPES):
        return ordered
    frames = bag.messages([camera_topic(bag, image)])
    times = {header_stamp(frame.cdr): bag.stamp(frame) for frame in frames}
    return [replace(moment, stamp=times.get(moment.stamp, moment.stamp)) for moment in ordered]


def driven_moments(bag: Bag, topics: Topics, instruction: str | None) -> list[Moment]:
    """
    The steps that the recorded policy decided and drove; none where it only watched, or where the
    bag does not tell.

    The words are ``instruction``, else those of the decisions, else those on a topic.

    Raises:
        InputError: steps were driven, and no words are known for them.
    """
    executed = {
        (int(body.episode_id), int(body.step))
        for body in _bodies(bag, DECISION_TYPE)
        if body.executed
    }
    if bag.topics_of([DECISION_TYPE]) and not executed:
        return []
    if not bag.topics_of([DECISION_TYPE, REPORT_TYPE]):
        return []
    moments = [
        moment
        for moment in recorded_moments(bag, topics.image)
        if moment.recorded is not None
        and (not executed or (moment.episode, moment.step) in executed)
    ]
    if instruction is not None:
        return [replace(moment, instruction=instruction) for moment in moments]
    if all(moment.instruction for moment in moments):
        return moments
    spans = drive_spans(bag, topics, None)
    told = {stamp: text for text, stamps in spans for stamp in stamps}
    return [replace(m, instruction=m.instruction or told.get(m.stamp, "")) for m in moments]


def reported_steps(bag: Bag) -> dict[tuple[int, int], Pose2]:
    """
    The motion of the steps (by episode and step) as ``motion`` or the simulator reported it: one
    that slides along a wall ends elsewhere than its action says.
    """
    return {
        (int(body.episode_id), int(body.step)): _pose2(body.pose_change)
        for body in _bodies(bag, REPORT_TYPE)
    }


def _bodies(bag: Bag, msgtype: str) -> Iterator[Any]:
    topics = bag.topics_of([msgtype])
    return (bag.decode(message) for message in bag.messages(topics)) if topics else iter(())


def _pose2(pose: Any) -> Pose2:
    q = pose.orientation
    return Pose2(pose.position.x, pose.position.y, yaw_of(q.x, q.y, q.z, q.w))


def frame_stamps(bag: Bag, topics: Topics) -> list[int]:
    """The stamps of all frames of the camera, rising, ns."""
    return sorted({bag.stamp(m) for m in bag.messages([camera_topic(bag, topics.image)])})


def odometry_moments(bag: Bag, topics: Topics, instruction: str | None) -> list[Moment]:
    """
    The frames at which a whole step of motion was over, by odometry or, where there is none, by
    dead reckoning of ``cmd_vel``.

    Raises:
        InputError: the bag lacks a camera, motion or words, or their stamps are of different
            clocks.
    """
    return step_moments(*spans_and_odometry(bag, topics, instruction))


def spans_and_odometry(
    bag: Bag, topics: Topics, instruction: str | None
) -> tuple[list[tuple[str, list[int]]], list[Sample]]:
    """
    The episodes of a drive (`drive_spans`) and its odometry (`read_odometry`), of one clock.

    Raises:
        InputError: as both, or their stamps are of different clocks.
    """
    spans, odometry = drive_spans(bag, topics, instruction), read_odometry(bag, topics)
    check_clocks(bag, topics, [stamp for _, stamps in spans for stamp in stamps], odometry)
    return spans, odometry


def check_clocks(
    bag: Bag, topics: Topics, frames: Sequence[int], odometry: Sequence[Sample]
) -> None:
    """
    Refuse frames (stamps, ns) and odometry that do not belong together in time.

    Raises:
        InputError: they do not; with both ranges and the way out.
    """
    camera, motion = camera_topic(bag, topics.image), motion_topic(bag, topics)
    seen, moved = (min(frames), max(frames)), (odometry[0].stamp, odometry[-1].stamp)
    share = np.mean([moved[0] <= stamp <= moved[1] for stamp in frames])
    if share >= TOGETHER or (share and not _recorded_together(bag, camera, motion)):
        return
    way_out = (
        "they were not recorded together: choose another topic of motion"
        if bag.time == "log"
        else "they are of different clocks: give --time log to go by the times of recording"
    )
    raise InputError(
        f"{bag.path}: {camera} has stamps {_range(seen)}, {motion} has stamps {_range(moved)}; "
        f"{way_out}"
    )


def _recorded_together(bag: Bag, camera: str, motion: str) -> bool:
    """Whether most frames were recorded while motion was."""
    moved = [message.log_time for message in bag.messages([motion])]
    frames = [message.log_time for message in bag.messages([camera])]
    inside = [min(moved) <= time <= max(moved) for time in frames]
    return bool(np.mean(inside) >= TOGETHER)


def _range(ends: tuple[int, int]) -> str:
    return f"from {ends[0] / 1e9:.3f} to {ends[1] / 1e9:.3f} s"


def step_moments(
    spans: Sequence[tuple[str, list[int]]], odometry: Sequence[Sample]
) -> list[Moment]:
    """The frames of episodes (`drive_spans`) at which a whole step of odometry was over."""
    return [
        Moment(stamps[frame], episode, n, text, action)
        for episode, (text, stamps) in enumerate(spans)
        for n, (frame, action) in enumerate(cut_into_steps(stamps, odometry, Rule()))
    ]


def moment_frames(
    bag: Bag, topics: Topics, moments: Sequence[Moment]
) -> Iterator[tuple[Moment, NDArray[np.uint8]]]:
    """
    The moments whose frame is in the bag, in order, with it (uint8 [H, W, 3]).

    A stamp may stand in several episodes: of a frame that both decided on, or of one frame each
    where the clock was set back. A frame may have been recorded a little after a later one.
    """
    topic = camera_topic(bag, topics.image)
    due: dict[int, deque[tuple[int, Moment]]] = {}
    for place, moment in enumerate(moments):
        due.setdefault(moment.stamp, deque()).append((place, moment))
    copies: Counter[int] = Counter()
    if len(due) < len(moments):
        copies.update(bag.stamp(message) for message in bag.messages([topic]))
    held: list[tuple[int, Moment, NDArray[np.uint8]]] = []
    newest = 0
    for message in bag.messages([topic]):
        stamp = bag.stamp(message)
        jumped = stamp < newest - JUMP_BACK_NS
        while held and (jumped or held[0][1].stamp < newest - JUMP_BACK_NS):
            yield heapq.heappop(held)[1:]
        newest = stamp if jumped else max(newest, stamp)
        if queue := due.get(stamp):
            frame = decode(bag.decode(message))
            for _ in range(-(-len(queue) // max(copies[stamp], 1))):
                heapq.heappush(held, (*queue.popleft(), frame))
            copies[stamp] -= 1
    while held:
        yield heapq.heappop(held)[1:]


def interval_moments(
    bag: Bag, topics: Topics, instruction: str | None, seconds: float
) -> list[Moment]:
    """
    A frame every ``seconds`` of header time; the record says nothing of what was done there.

    Raises:
        InputError: ``seconds`` is not positive.
    """
    require(
        seconds >= MIN_INTERVAL_S,
        f"interval is {seconds} s; it must be at least {MIN_INTERVAL_S}",
    )
    moments: list[Moment] = []
    for episode, (text, stamps) in enumerate(drive_spans(bag, topics, instruction)):
        due, step = stamps[0], 0
        for stamp in stamps:
            if stamp >= due:
                moments.append(Moment(stamp, episode, step, text, None))
                due, step = stamp + int(seconds * 1e9), step + 1
    return moments


def motion_topic(bag: Bag, topics: Topics) -> str:
    """
    The topic that tells how the base moved: odometry, else ``cmd_vel``.

    Raises:
        InputError: the bag holds neither, or the topic named is not there.
    """
    if (
        topics.odom is not None
        or bag.topics_of([ODOMETRY_TYPE])
        or not bag.topics_of(VELOCITY_TYPES)
    ):
        return bag.topic_of_type([ODOMETRY_TYPE], topics.odom, "odometry", "--odom-topic")
    return bag.topic_of_type(VELOCITY_TYPES, topics.cmd_vel, "velocity", "--cmd-vel-topic")


def read_odometry(bag: Bag, topics: Topics) -> list[Sample]:
    """
    Odometry of a bag: ``nav_msgs/Odometry``, else ``cmd_vel`` integrated; stamps of zero are left
    out.

    Raises:
        InputError: as `motion_topic`, or its stamps stand still or go back.
    """
    topic = motion_topic(bag, topics)
    stamps: list[int] = []
    values: list[tuple[float, ...]] = []
    logged: list[int] = []
    unusable: list[str] = []
    stamped = bag.topics[topic] != VELOCITY_TYPES[0]
    for message in bag.messages([topic]):
        body = bag.decode(message)
        # A bare Twist has no stamp of its own; the time it was recorded is the best there is.
        stamp = bag.stamp(message) if stamped else message.log_time
        try:
            values.append(_motion_of(body))
        except InputError as error:
            unusable.append(f"at {stamp / 1e9:.3f} s: {error}")
            continue
        logged.append(message.log_time)
        stamps.append(stamp)
    require(
        not unusable,
        f"{bag.path}: {len(unusable)} of {len(unusable) + len(stamps)} messages of {topic} cannot "
        f"be used, the first {''.join(unusable[:1])}",
    )
    known = [not stamped or not _unset(stamps, i) for i in range(len(stamps))]
    stamps, values = [*compress(stamps, known)], [*compress(values, known)]
    require_stamps(bag, topic, stamps, logged)
    _refuse_backward(bag, topic, stamps)
    if bag.topics[topic] == ODOMETRY_TYPE:
        return odometry_from_poses(stamps, [(x, y, yaw) for x, y, yaw in values])
    velocities = [(forward, turn) for forward, turn in values]
    return odometry_from_velocity(stamps, velocities, topics.cmd_vel_timeout)


def _unset(stamps: Sequence[int], i: int) -> bool:
    """Whether a stamp is none: zero, unless a simulation began with it."""
    begins = i == 0 and len(stamps) > 1 and 0 < stamps[1] <= JUMP_BACK_NS
    return stamps[i] <= 0 and not begins


def _motion_of(body: Any) -> tuple[float, ...]:
    """Pose (x, y, yaw) of odometry, velocity (forward, turn) of a command."""
    if hasattr(body, "pose"):
        return pose_of(body)
    twist = body.twist if hasattr(body, "twist") else body
    return twist.linear.x, twist.angular.z


def require_stamps(bag: Bag, topic: str, stamps: Sequence[int], logged: Sequence[int]) -> None:
    """
    Refuse stamps (ns, those above zero) that tell nothing of ``logged``, the times of recording.

    Raises:
        InputError: they stand still, or are all zero.
    """
    if len(logged) > 1 and len(set(stamps)) < 2 and bag.time == "header":
        seen = (min(stamps, default=0), max(stamps, default=0))
        raise InputError(
            f"{bag.path}: {topic} has stamps {_range(seen)} and was recorded "
            f"{_range((min(logged), max(logged)))}; its clock stands still: give --time log to go "
            "by the times of recording"
        )


def instruction_topics(bag: Bag) -> list[str]:
    """The topics that tell where to go: texts that are called ``instruction``, wherever."""
    return [t for t in bag.topics_of([TEXT_TYPE]) if t.rpartition("/")[2] == "instruction"]


def instruction_topic(bag: Bag, wanted: str | None) -> str | None:
    """
    The topic that tells where to go: ``wanted``, else the only text that is called
    ``instruction``, in whichever namespace; other texts (a robot's description, a log) never are.

    None: there is none.

    Raises:
        InputError: ``wanted`` is not there, or there are several.
    """
    if wanted is not None:
        return bag.topic_of_type([TEXT_TYPE], wanted, "instruction", "--instruction-topic")
    found = instruction_topics(bag)
    require(
        len(found) < 2,
        f"{bag.path} has several instruction topics: {', '.join(sorted(found))}; choose one, for "
        f"example --instruction-topic {min(found, default='')}",
    )
    return found[0] if found else None


def _spoken_to(bag: Bag, image: str | None) -> list[tuple[int, str]]:
    """When each episode of the recorded policy began (ns), and the words that it followed."""
    if not bag.topics_of([DECISION_TYPE]):
        return []
    told: dict[int, tuple[int, str]] = {}
    for moment in recorded_moments(bag, image):
        told.setdefault(moment.episode, (moment.stamp, moment.instruction))
    return sorted(told.values())


def drive_spans(bag: Bag, topics: Topics, instruction: str | None) -> list[tuple[str, list[int]]]:
    """
    Episodes of a drive as (instruction, rising frame stamps in nanoseconds): a new instruction or
    a clock that goes backwards begins one. Frames without a stamp are left out.

    The words are ``instruction``, else those on a topic (`instruction_topic`), else those that the
    recorded policy followed.

    Raises:
        InputError: no camera, no words, or stamps that stand still.
    """
    image_topic = camera_topic(bag, topics.image)
    words = instruction_topic(bag, topics.instruction) if instruction is None else None
    told = _spoken_to(bag, topics.image) if instruction is None and words is None else []
    require(
        instruction is not None or words or told,
        f"{bag.path} has no instruction topic; it holds {bag.held}; name one with "
        "--instruction-topic, or give the words with --instruction",
    )
    text = instruction
    stamped: list[int] = []
    logged: list[int] = []
    spans: list[tuple[str, list[int]]] = []
    for message in bag.messages([image_topic, words] if words else [image_topic]):
        if message.topic == words:
            text = str(bag.decode(message).data)
            spans.append((text, []))
            continue
        stamp = bag.stamp(message)
        logged.append(message.log_time)
        stamped += [stamp] * (stamp > 0)
        while told and stamp >= told[0][0]:
            text = told.pop(0)[1]
            spans.append((text, []))
        if text is None or (stamp <= 0 and stamped):
            continue
        if not spans or (spans[-1][1] and stamp < spans[-1][1][-1] - JUMP_BACK_NS):
            spans.append((text, []))
        stamps = spans[-1][1]
        place = bisect_left(stamps, stamp)
        if stamps[place : place + 1] != [stamp]:
            stamps.insert(place, stamp)
    for _, stamps in spans:
        del stamps[: bool(stamps) and _unset(stamps, 0)]
    spans = [span for span in spans if span[1]]
    require_stamps(bag, image_topic, stamped, logged)
    require(
        spans,
        f"{bag.path}: no frame of {image_topic} follows an instruction; give the "
        "words with --instruction",
    )
    return spans


def _refuse_backward(bag: Bag, topic: str, stamps: list[int]) -> None:
    """
    Poses from before and after a clock that was set back cannot be told apart by their stamps.
    """
    back = np.flatnonzero(np.diff(np.asarray(stamps, np.int64)) < -JUMP_BACK_NS)
    if len(back):
        raise InputError(
            f"{bag.path}: the clock of {topic} goes backwards {len(back)} times, first "
            f"after {stamps[back[0]] / 1e9:.3f} s; "
            "cut the bag there, or use --boundaries recorded or interval"
        )
