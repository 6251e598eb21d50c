"""When a bag around an instruction is open, and the last seconds before it. No ROS."""

import time
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path

from janusvln_ros.data.bags import Message
from janusvln_ros.protocol.choosing import JUMP_BACK_NS


@dataclass
class Ring:
    """
    The last ``seconds`` of messages, at most ``limit`` bytes; times are nanoseconds.

    A clock that goes back empties it.
    """

    seconds: float
    limit: int
    messages: deque[Message] = field(default_factory=deque)
    size: int = 0

    def add(self, message: Message) -> None:
        """Append, and drop what is too old or too much."""
        if self.messages and message.log_time < self.messages[-1].log_time - JUMP_BACK_NS:
            self.messages.clear()
            self.size = 0
        self.messages.append(message)
        self.size += len(message.cdr)
        while self.messages and (
            self.size > self.limit
            or message.log_time - self.messages[0].log_time > self.seconds * 1e9
        ):
            self.size -= len(self.messages.popleft().cdr)

    def last(self, seconds: float) -> list[Message]:
        """The messages of the last ``seconds``."""
        return [
            m for m in self.messages if m.log_time >= self.messages[-1].log_time - seconds * 1e9
        ]


@dataclass
class Latched:
    """
    The newest messages of topics that are published once and kept for late-comers: every bag holds
    them, whenever they came.
    """

    messages: dict[str, list[Message]] = field(default_factory=dict)

    def add(self, message: Message, publishers: int) -> None:
        """Keep a message in the place of the oldest, one for each publisher of its topic."""
        kept = [*self.messages.get(message.topic, ()), message]
        self.messages[message.topic] = kept[-max(1, publishers) :]

    def before(self, start: int) -> list[Message]:
        """Those that came before a bag that begins at ``start`` (ns), as if they came then."""
        return [
            replace(message, log_time=start)
            for kept in self.messages.values()
            for message in kept
            if message.log_time < start
        ]


@dataclass
class Trigger:
    """
    When a bag is open: from an instruction or a goal until ``idle`` seconds after the last goal
    and decision. Times: steady clock, seconds.
    """

    idle: float
    active_goal: bool = False
    last_sign: float = -float("inf")

    def goal(self, active: bool, now: float) -> None:
        """Note whether a goal of follow_instruction is under way."""
        if active or self.active_goal:
            self.last_sign = now
        self.active_goal = active

    def sign(self, now: float) -> None:
        """Note an instruction or a decision."""
        self.last_sign = now

    def recording(self, now: float) -> bool:
        """Whether a bag should be open at ``now``."""
        return self.active_goal or now - self.last_sign < self.idle


def bag_name(kind: str, folder: Path) -> Path:
    """A new file in ``folder``, named by ``kind`` and local time; never one that exists."""
    stem = f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = [folder / f"{stem}.mcap", *(folder / f"{stem}-{n}.mcap" for n in range(2, 1000))]
    return next(path for path in candidates if not path.exists())
