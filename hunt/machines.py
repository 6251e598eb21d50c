"""
Events of any content in any order, to both machines: whatever comes, no promise is broken.

Events are made from the annotations of their classes, so that a new field or a new event is
hunted as soon as it is there.
"""

import dataclasses
import math
import typing
from dataclasses import replace
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from hunt.families import family
from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol import driving, exchange, moving
from janusvln_ros.protocol.odometry import Sample

S = 1_000_000_000
TICK_S = 0.02

# Any value of the type of a field, as JSON has it ---------------------------------------------

FLOATS = st.one_of(st.floats(-1, 1), st.floats(0, 30), st.floats())
INTEGERS = st.one_of(st.integers(-2, 9), st.integers(-(2**63), 2**64 - 1))
RAW: dict[Any, st.SearchStrategy[Any]] = {
    int: INTEGERS,
    float: FLOATS,
    bool: st.booleans(),
    str: st.text(max_size=8),
    Pose2: st.lists(FLOATS, min_size=3, max_size=3),
    Sample: st.tuples(INTEGERS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS).map(list),
}
NOW = {"now", "ros_now"}
"""Fields that say when: the steady clock and ROS time, which the rig has."""


def revived(kind: Any, raw: Any) -> Any:
    """The value of a field from its raw form."""
    if kind is Pose2:
        return Pose2(*raw)
    if kind is Sample:
        return Sample(raw[0], Pose2(*raw[1:4]), *raw[4:])
    return raw


def known_type(kind: Any) -> Any:
    """The type in ``RAW`` that a field takes, None where there is none."""
    options = [option for option in (kind, *typing.get_args(kind)) if isinstance(option, type)]
    return next((option for option in options if option in RAW), None)


def fields_of(event: type) -> dict[str, Any]:
    """The fields of an event that are drawn, with their types."""
    kinds = typing.get_type_hints(event)
    named = {f.name: known_type(kinds[f.name]) for f in dataclasses.fields(event)}
    return {name: kind for name, kind in named.items() if kind and name not in NOW}


def events_of(*modules: ModuleType) -> dict[str, type]:
    """The events that modules define, by name."""
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, exchange.Event)
        and value is not exchange.Event
        and value.__module__ == module.__name__
    }


def any_event(events: dict[str, type]) -> st.SearchStrategy[list[Any]]:
    """One of some events with any values."""
    return st.one_of(
        *(
            st.fixed_dictionaries({f: RAW[kind] for f, kind in fields_of(event).items()}).map(
                lambda values, name=name: ["event", name, values]
            )
            for name, event in events.items()
        )
    )


def make_event(event: type, values: dict[str, Any], now: float, ros: int) -> Any:
    """An event of raw values that happens now."""
    kinds = fields_of(event)
    told = {name: revived(kinds[name], raw) for name, raw in values.items() if name in kinds}
    names = {f.name for f in dataclasses.fields(event)}
    told |= {name: value for name, value in (("now", now), ("ros_now", ros)) if name in names}
    for field in dataclasses.fields(event):
        if field.name not in told and field.default is dataclasses.MISSING:
            told[field.name] = None
    return event(**told)


def clock(seconds: float) -> int:
    """ROS time at a steady time: both begin together, 100 s apart."""
    return round((seconds + 100) * S)


# motion ---------------------------------------------------------------------------------------

MOTION_EVENTS = {**events_of(moving), "Odometry": exchange.Odometry}
MOTION_MOVES = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 80)).map(list),
    st.tuples(st.just("goal"), st.sampled_from([1, 1, 2, 3, 0])).map(list),
    st.sampled_from([["ready"], ["ready"], ["arm", False], ["estop", True], ["estop", False]]),
    st.tuples(st.just("watch"), st.sampled_from(["odom", "life", "ranges"]), st.booleans()).map(
        list
    ),
    any_event(MOTION_EVENTS),
)


class Base:
    """A motion machine with a base that does what it is told, on one pretended clock."""

    def __init__(self) -> None:
        self.settings = moving.Settings(range_source="scan", base_timeout=0.2)
        self.state, self.now, self.pose = moving.State(), 1.0, Pose2()
        self.command = (0.0, 0.0)
        self.watched = {"odom": True, "life": True, "ranges": True}
        self.asked: list[int] = []
        self.answered: list[int] = []
        self.do(moving.Activate(self.now))
        self.wait(20)

    def event(self, kind: type, **values: Any) -> Any:
        """An event that happens now; what it has beyond ``values`` has its default."""
        names = {f.name: f for f in dataclasses.fields(kind)}
        told = {"now": self.now, "ros_now": clock(self.now), **values}
        return kind(**{name: value for name, value in told.items() if name in names})

    def do(self, event: Any) -> None:
        """Let the machine take an event, and hold its promises to it."""
        if isinstance(event, moving.Goal):
            self.asked.append(event.key)
        self.state, commands = moving.advance(self.state, event, self.settings)
        for command in commands:
            if isinstance(command, moving.Drive):
                self.command = (command.speed, command.rate)
                self.hold()
            elif isinstance(command, moving.Done):
                self.answered.append(command.goal.key)

    def hold(self) -> None:
        """What holds of every velocity that is sent."""
        speed, rate = self.command
        assert math.isfinite(speed) and math.isfinite(rate), "a velocity that is no number"
        assert abs(speed) <= self.settings.speed and abs(rate) <= self.settings.rate
        if speed or rate:
            state = self.state
            assert state.armed and state.active and not state.estop, "it drives, not allowed to"
            assert state.phase is moving.Phase.DRIVING, "it drives without a step"

    def wait(self, ticks: int) -> None:
        """Some ticks of an ordinary life."""
        for _ in range(ticks):
            self.now += TICK_S
            speed, rate = self.command
            turned, ahead = self.pose.yaw + rate * TICK_S, speed * TICK_S
            self.pose = Pose2(
                self.pose.x + ahead * math.cos(turned),
                self.pose.y + ahead * math.sin(turned),
                turned,
            )
            ros = clock(self.now)
            if self.watched["odom"]:
                self.do(exchange.Odometry(self.now, Sample(ros, self.pose, speed, rate)))
            if self.watched["life"]:
                self.do(self.event(moving.Heartbeat, episode_id=1))
            if self.watched["ranges"]:
                self.do(self.event(moving.Ranges, stamp=ros, clearance=9.0, known=1.0))
            self.do(self.event(moving.Tick))

    def goal(self, action: int) -> None:
        """A step as ``policy`` asks for it."""
        _, episode, step = self.state.last[0] if self.state.last else (0, 0, 0)
        newer = {"episode_id": max(episode, 1), "step": step + 1, "frame_stamp": clock(self.now)}
        self.do(self.event(moving.Goal, key=10_000 + len(self.asked), action=action, **newer))

    def move(self, move: list[Any]) -> None:
        """Do a move of a case."""
        kind, *rest = move
        if kind == "wait":
            self.wait(rest[0])
        elif kind == "goal":
            self.goal(rest[0])
        elif kind == "watch":
            self.watched[rest[0]] = rest[1]
        elif kind == "ready":
            self.do(self.event(moving.Activate))
            self.do(self.event(moving.EmergencyStop, pressed=False))
            self.do(self.event(moving.Arm, armed=True))
        elif kind == "arm":
            self.do(self.event(moving.Arm, armed=rest[0]))
        elif kind == "estop":
            self.do(self.event(moving.EmergencyStop, pressed=rest[0]))
        else:
            name, values = rest
            ros = clock(self.now)
            self.do(make_event(MOTION_EVENTS[name], values, self.now, ros))


@family("motion-machine", st.lists(MOTION_MOVES, max_size=40))
def check_motion(case: list[list[Any]]) -> None:
    """Every goal is answered once, and nothing moves that may not."""
    base = Base()
    for move in case:
        base.move(move)
    base.watched = dict.fromkeys(base.watched, True)
    base.wait(600)  # past every deadline
    assert sorted(base.asked) == sorted(base.answered), "a goal is answered twice, or never"


# policy ---------------------------------------------------------------------------------------

POLICY_EVENTS = events_of(exchange)
POLICY_MOVES = st.one_of(
    st.tuples(st.just("wait"), st.floats(0, 3)).map(list),
    st.sampled_from(
        [["start"], ["frame"], ["frame"], ["decide", 1], ["decide", 0], ["result", 0]]
    ),
    st.tuples(st.just("result"), st.integers(0, 8)).map(list),
    any_event({k: v for k, v in POLICY_EVENTS.items() if k not in ("StepEnded",)}),
)
PIPELINES = ("none", "settle")


class World:
    """A driving machine on a pretended clock."""

    def __init__(self, pipeline: str) -> None:
        self.settings = driving.Settings(pipeline=pipeline, frame_timeout=0.5)
        self.state, self.now = driving.State(episode_id=10), 1.0
        self.asked: list[int] = []
        self.answered: list[int] = []
        self.flying: tuple[int, int] | None = None
        self.do(exchange.Activate(self.now))

    def do(self, event: Any) -> None:
        """Let the machine take an event, and hold its promises to it."""
        if isinstance(event, exchange.Start):
            event = replace(event, key=1000 + len(self.asked))
            self.asked.append(event.key)
        before = self.state
        self.state, commands = driving.advance(self.state, event, self.settings)
        for command in commands:
            if isinstance(command, exchange.SendGoal):
                assert before.active and self.flying is None, "a second motion while one runs"
                assert isinstance(command.action, Action), "a motion that is no action"
                self.flying = (command.episode_id, command.step)
            elif isinstance(command, exchange.Finish):
                self.answered.append(command.key)
                assert math.isfinite(command.path_length) and math.isfinite(command.elapsed)
        if self.state.goal is None:
            self.flying = None
        assert self.state.episode_id >= before.episode_id, "an episode comes back"

    def move(self, move: list[Any]) -> None:
        """Do a move of a case."""
        kind, *rest = move
        ros = clock(self.now)
        if kind == "wait":
            self.now += rest[0]
            self.do(exchange.Tick(self.now, clock(self.now)))
        elif kind == "start":
            self.do(exchange.Start(self.now, 0, "go", ros))
        elif kind == "frame":
            self.now += 0.05
            self.do(exchange.Frame(self.now, clock(self.now), clock(self.now)))
        elif kind == "decide":
            self.do(exchange.Decided(self.now, self.state.ticket, Action(rest[0])))
        elif kind == "result":
            goal = self.state.goal or (self.state.episode_id, self.state.step)
            moved = Pose2(0.25, 0.0, 0.0)
            self.do(exchange.StepResult(self.now, *goal, rest[0], "", ros, moved, ros))
        else:
            name, values = rest
            self.do(make_event(POLICY_EVENTS[name], values, self.now, ros))


def _policy_cases() -> st.SearchStrategy[list[Any]]:
    return st.tuples(st.sampled_from(PIPELINES), st.lists(POLICY_MOVES, max_size=60)).map(list)


@family("policy-machine", _policy_cases())
def check_policy(case: list[Any]) -> None:
    """Everybody is answered once, one motion is under way at a time."""
    pipeline, moves = case
    world = World(pipeline)
    for move in moves:
        world.move(move)
    world.do(exchange.Cancel(world.now, None, 0, "the end"))
    for _ in range(3):
        world.now += 1000
        world.do(exchange.Tick(world.now, clock(world.now)))
    assert sorted(world.asked) == sorted(world.answered), "somebody is answered twice, or never"
