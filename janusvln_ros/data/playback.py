"""A rosbag as a stream in time: what is played, under which name, and when. No ROS."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rosbags.interfaces import Qos, QosDurability

from janusvln_ros.data.bags import Bag, Message, message_types
from janusvln_ros.data.drives import (
    DECISION_TYPE,
    ODOMETRY_TYPE,
    REPORT_TYPE,
    TEXT_TYPE,
    camera_info_topics,
    camera_topics,
    instruction_topics,
    recorded_moments,
)

INSTRUCTION_LEAD_NS = 300_000_000
"""
Words that come from recorded decisions are played this long before the first frame, so that they
are there when it comes.
"""

NOT_PLAYED = ("/clock", "/rosout", "/parameter_events")
COMMAND_TYPES = (
    "geometry_msgs/msg/Twist",
    "geometry_msgs/msg/TwistStamped",
    "ackermann_msgs/msg/AckermannDrive",
    "ackermann_msgs/msg/AckermannDriveStamped",
    "trajectory_msgs/msg/JointTrajectory",
)
COMMANDS = ("step_command", "goal_pose")
"""
Types, and last names of topics (ours, Nav2's), by which a robot is told to move: one that is in
the domain where a bag is played would.
"""
LATCHED = ("tf_static", "robot_description", "map")
"""
Last names of topics that are latched by convention (tf2, robot_state_publisher, map_server), for
bags that do not tell what was offered.
"""
MOST_LATCHED = 50
"""Messages of a latched topic that a late-comer gets where the bag does not tell their number."""


@dataclass
class PlayClock:
    """
    Time of the bag as a function of the steady clock.

    Pure: every method takes ``now``, seconds on the steady clock; bag times are nanoseconds.
    """

    bag_time: int
    since: float
    rate: float = 1.0
    paused: bool = False

    def at(self, now: float) -> int:
        """Bag time at ``now``."""
        return (
            self.bag_time
            if self.paused
            else self.bag_time + int((now - self.since) * self.rate * 1e9)
        )

    def wait(self, bag_time: int, now: float) -> float:
        """
        Seconds until ``bag_time`` is due; infinite while paused, not positive when it is due.
        """
        return float("inf") if self.paused else (bag_time - self.at(now)) / 1e9 / self.rate

    def change(
        self,
        now: float,
        *,
        rate: float | None = None,
        paused: bool | None = None,
        bag_time: int | None = None,
    ) -> None:
        """Change rate, pause or jump at ``now``, without moving what was played before."""
        self.bag_time, self.since = self.at(now) if bag_time is None else bag_time, now
        self.rate = self.rate if rate is None else rate
        self.paused = self.paused if paused is None else paused


def played_name(topic: str, msgtype: str) -> str | None:
    """The name under which a recorded topic is played, or None for one that is not."""
    if topic in NOT_PLAYED:
        return None
    decided = msgtype == DECISION_TYPE or "/overlay" in topic
    moves = msgtype in COMMAND_TYPES or topic.rpartition("/")[2] in COMMANDS
    return f"/recorded{topic}" if decided or moves else topic


def latched_depth(topic: str, offered: Collection[Qos]) -> int:
    """
    How many messages of a topic a late-comer gets: as many as its publishers kept together, as
    recorded; 0 for a topic that was not kept.
    """
    if not offered:
        return MOST_LATCHED if topic.rpartition("/")[2] in LATCHED else 0
    kept = [q.depth for q in offered if q.durability is QosDurability.TRANSIENT_LOCAL]
    # what publishers of other programs keep is not told on the wire: 0
    return sum(kept) if kept and all(kept) else MOST_LATCHED if kept else 0


def spoken(bag: Bag, words: str = "") -> list[Message]:
    """
    The words of each recorded episode as messages on ``/instruction``, a little before its first
    frame: a goal's words are in no topic of their own. ``words`` are said instead at the start.

    Empty where the bag has an instruction topic, or no decisions.
    """
    if words:
        return [_said(words, bag.start)]
    if instruction_topics(bag) or not bag.topics_of([DECISION_TYPE]):
        return []
    first = {
        moment.episode: moment for moment in reversed(recorded_moments(bag)) if moment.instruction
    }
    one_clock = all(bag.start <= moment.stamp <= bag.end for moment in first.values())
    logged = {} if one_clock else _frame_times(bag)
    return [
        _said(moment.instruction, logged.get(moment.stamp, moment.stamp))
        for moment in sorted(first.values(), key=lambda moment: moment.stamp)
    ]


def _frame_times(bag: Bag) -> dict[int, int]:
    """When each frame was recorded, by its stamp: a simulation's stamps are of another clock."""
    return {
        bag.stamp(m): m.log_time for topic in camera_topics(bag) for m in bag.messages([topic])
    }


def _said(words: str, frame: int) -> Message:
    types = message_types()
    body = types.types[TEXT_TYPE](data=words)
    cdr = bytes(types.serialize_cdr(body, TEXT_TYPE))
    return Message("/instruction", TEXT_TYPE, frame - INSTRUCTION_LEAD_NS, cdr)


def suggested(bag: Bag, names: Mapping[str, str]) -> dict[str, str]:
    """
    How a policy should watch a bag: the arguments of the graph ``replay`` that it decides.

    Args:
        bag: to be played.
        names: of the topics ``image``, ``camera_info`` and ``odom``; one that the bag does not
            hold is replaced by the only one that it does.
    """
    told = {}
    cameras = {topic.removesuffix("/compressed") for topic in camera_topics(bag)}
    image = _absolute(names["image"])
    if image not in cameras and len(cameras) == 1:
        (image,) = cameras
        told["image"] = image
    if image in cameras:
        told["transport"] = "raw" if image in bag.topics else "compressed"
        infos = camera_info_topics(bag, image)
        if infos and _absolute(names["camera_info"]) not in infos:
            told["camera_info"] = infos[0]
    odometry = bag.topics_of([ODOMETRY_TYPE])
    if len(odometry) == 1 and _absolute(names["odom"]) not in odometry:
        told["odom"] = odometry[0]
    told["frames"] = (
        "recorded" if bag.topics_of([REPORT_TYPE]) else "odom" if odometry else "interval"
    )
    return told


def _absolute(name: str) -> str:
    return f"/{name.lstrip('/')}"


def nothing_decided(bag_held: str, has_words: bool, cameras: Mapping[str, bool]) -> str:
    """
    Why a policy that runs has decided on nothing of a bag.

    Args:
        bag_held: what the bag holds, as a sentence has it.
        has_words: whether words are played.
        cameras: the camera topics that are played, and whether anybody listens.
    """
    reasons = []
    if not cameras:
        reasons.append("it holds no camera")
    elif not any(cameras.values()):
        reasons.append(
            f"nobody listens to {', '.join(cameras)}: give image:= and transport:= (raw or "
            "compressed)"
        )
    if not has_words:
        reasons.append("it holds no instruction: give the words with instruction:=")
    why = "; ".join(reasons) or "its frames are not used: see what policy says"
    return f"nothing of the bag has been decided on: {why}; it holds {bag_held}"
