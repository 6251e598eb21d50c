"""A rosbag as a stream in time: what is played, under which name, and when. No ROS."""

from dataclasses import dataclass

from janusvln_ros.data.bags import Bag, Message, message_types
from janusvln_ros.data.drives import DECISION_TYPE, recorded_moments

INSTRUCTION_LEAD_NS = 300_000_000
"""
Words that come from recorded decisions are played this long before the first frame, so that they
are there when it comes.
"""

NOT_PLAYED = ("/clock", "/rosout", "/parameter_events")


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
    return f"/recorded{topic}" if msgtype == DECISION_TYPE or "/overlay" in topic else topic


def spoken(bag: Bag) -> list[Message]:
    """
    The words of each recorded episode as messages on ``/instruction``, a little before its first
    frame: a goal's words are in no topic of their own.

    Empty where the bag has an instruction topic, or no decisions.
    """
    if "std_msgs/msg/String" in bag.topics.values() or DECISION_TYPE not in bag.topics.values():
        return []
    types = message_types()
    kind = types.types["std_msgs/msg/String"]
    first = {
        moment.episode: moment for moment in reversed(recorded_moments(bag)) if moment.instruction
    }
    return [
        Message(
            "/instruction",
            kind.__msgtype__,
            moment.stamp - INSTRUCTION_LEAD_NS,
            bytes(types.serialize_cdr(kind(data=moment.instruction), kind.__msgtype__)),
        )
        for moment in sorted(first.values(), key=lambda moment: moment.stamp)
    ]
