"""
Recorded drives: which frames of a bag a policy would have decided on, and what the drive did
there.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from janusvln_ros.actions import Action, known_action
from janusvln_ros.camera.images import decode
from janusvln_ros.data.bags import IMAGE_TYPES, Bag, header_stamp
from janusvln_ros.data.odometry import odometry_from_poses, odometry_from_velocity
from janusvln_ros.errors import InputError, require
from janusvln_ros.protocol.choosing import Rule, cut_into_steps
from janusvln_ros.protocol.odometry import Sample, pose_of
from janusvln_ros.stamps import nanoseconds

DECISION_TYPE = "janusvln_msgs/msg/Decision"
REPORT_TYPE = "janusvln_msgs/msg/StepReport"
VELOCITY_TYPES = ("geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped")
MIN_INTERVAL_S = 1e-3

MAX_REORDERING_NS = 100_000_000
"""Messages may arrive this much out of order; a larger step back is a clock that was set back."""


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
    """Which topics of a bag to read; None finds the only one of its type."""

    image: str | None = None
    odom: str | None = None
    cmd_vel: str | None = None
    instruction: str | None = None


def camera_topic(bag: Bag, wanted: str | None) -> str:
    """
    The camera topic of a bag: ``wanted``, else the only one; depth and overlay pictures are no
    camera, raw goes before its compressed twin.

    Raises:
        InputError: none, or several cameras; the sentence lists them.
    """
    cameras = [
        t
        for t in bag.topics_of(IMAGE_TYPES)
        if not any(word in t for word in ("depth", "overlay"))
    ]
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


def recorded_moments(bag: Bag) -> list[Moment]:
    """
    The frames that the recorded policy decided on, from its decisions or, where none were
    recorded, from ``motion``'s step reports.

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
    return [moments[key] for key in sorted(moments)]


def odometry_moments(bag: Bag, topics: Topics, instruction: str | None) -> list[Moment]:
    """
    The frames at which a whole step of motion was over, by odometry or, where there is none, by
    dead reckoning of ``cmd_vel``.
    """
    return step_moments(drive_spans(bag, topics, instruction), read_odometry(bag, topics))


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
    The moments whose frame is in the bag, in order of recording, with it (uint8 [H, W, 3]).

    A stamp may stand in several episodes: of a frame that both decided on, or of one frame each
    where the clock was set back.
    """
    topic = camera_topic(bag, topics.image)
    due: dict[int, deque[Moment]] = {}
    for moment in moments:
        due.setdefault(moment.stamp, deque()).append(moment)
    copies: Counter[int] = Counter()
    if len(due) < len(moments):
        copies.update(header_stamp(message.cdr) for message in bag.messages([topic]))
    for message in bag.messages([topic]):
        stamp = header_stamp(message.cdr)
        if queue := due.get(stamp):
            frame = decode(bag.decode(message))
            for _ in range(-(-len(queue) // max(copies[stamp], 1))):
                yield queue.popleft(), frame
            copies[stamp] -= 1


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


def read_odometry(bag: Bag, topics: Topics) -> list[Sample]:
    """
    Odometry of a bag: ``nav_msgs/Odometry``, else ``cmd_vel`` integrated.

    Raises:
        InputError: the bag holds neither, or the topic named is not there.
    """
    if (
        topics.odom is not None
        or bag.topics_of(["nav_msgs/msg/Odometry"])
        or not bag.topics_of(VELOCITY_TYPES)
    ):
        topic = bag.topic_of_type(
            ["nav_msgs/msg/Odometry"], topics.odom, "odometry", "--odom-topic"
        )
        stamps, poses, unusable = [], [], []
        for message in bag.messages([topic]):
            stamps.append(header_stamp(message.cdr))
            try:
                poses.append(pose_of(bag.decode(message)))
            except InputError as error:
                unusable.append(f"at {stamps[-1] / 1e9:.3f} s: {error}")
        count, first = f"{len(unusable)} of {len(stamps)}", "".join(unusable[:1])
        require(
            not unusable,
            f"{bag.path}: {count} messages of {topic} cannot be used, the first {first}",
        )
        _refuse_backward(bag, topic, stamps)
        return odometry_from_poses(stamps, poses)
    topic = bag.topic_of_type(VELOCITY_TYPES, topics.cmd_vel, "velocity", "--cmd-vel-topic")
    stamps, velocities = [], []
    for message in bag.messages([topic]):
        body = bag.decode(message)
        stamped = hasattr(body, "header")
        twist = body.twist if stamped else body
        # A bare Twist has no stamp of its own; the time it was recorded is the best there is.
        stamps.append(header_stamp(message.cdr) if stamped else message.log_time)
        velocities.append((twist.linear.x, twist.angular.z))
    _refuse_backward(bag, topic, stamps)
    return odometry_from_velocity(stamps, velocities)


def drive_spans(bag: Bag, topics: Topics, instruction: str | None) -> list[tuple[str, list[int]]]:
    """
    Episodes of a drive as (instruction, frame stamps in nanoseconds): a new instruction or a clock
    that goes backwards begins one.

    Raises:
        InputError: no camera, or no words: neither ``instruction`` nor a topic of them.
    """
    image_topic = camera_topic(bag, topics.image)
    read = [image_topic]
    if instruction is None:
        try:
            words = ("instruction", "--instruction-topic")
            read.append(bag.topic_of_type(["std_msgs/msg/String"], topics.instruction, *words))
        except InputError as error:
            raise InputError(f"{error}; or give the words with --instruction") from None
    text = instruction
    spans: list[tuple[str, list[int]]] = []
    for message in bag.messages(read):
        if message.topic != image_topic:
            text = str(bag.decode(message).data)
            spans.append((text, []))
        elif text is not None:
            stamp = header_stamp(message.cdr)
            if not spans or (spans[-1][1] and stamp < spans[-1][1][-1]):
                spans.append((text, []))
            if not spans[-1][1] or stamp > spans[-1][1][-1]:
                spans[-1][1].append(stamp)
    spans = [span for span in spans if span[1]]
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
    back = np.flatnonzero(np.diff(np.asarray(stamps, np.int64)) < -MAX_REORDERING_NS)
    if len(back):
        raise InputError(
            f"{bag.path}: the clock of {topic} goes backwards {len(back)} times, first "
            f"after {stamps[back[0]] / 1e9:.3f} s; "
            "cut the bag there, or use --boundaries recorded or interval"
        )
