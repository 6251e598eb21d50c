"""
What the doctor looks at in a graph: a check is a small function from what was seen of the graph to
a verdict. Pure; `janusvln_ros.graph.doctor` does the looking. Rules that a node itself goes by are
the node's own (`janusvln_ros.protocol`, `janusvln_ros.camera`), never a second one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from janusvln_ros.actions import FORWARD_STEP_M, TURN_STEP_DEG
from janusvln_ros.camera.images import blank, decode
from janusvln_ros.camera.view import (
    fitted,
    intrinsics_of,
    mounting_warning,
    plan_view,
    scaled_warning,
)
from janusvln_ros.data.drive_import import BLUR_LAPLACIAN, sharpness
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import relative
from janusvln_ros.protocol import moving
from janusvln_ros.protocol.health import InputRate
from janusvln_ros.protocol.odometry import Sample, sample_of, velocity_at
from janusvln_ros.protocol.trust import jumped
from janusvln_ros.protocol.wiring import Endpoint, heard_by, no_listener

PASS, WARN, FAIL, SKIP = "pass", "warn", "fail", "skip"

SLOWEST_CAMERA_HZ = 5.0
"""Frames per second below which a robot waits for its eyes."""

DARK, BRIGHT = 25.0, 230.0
"""Mean brightness of 255 outside which little is to be seen in a picture."""

LEVEL_DEG = 5.0
"""Degrees that a camera may be tilted; the model was trained with level ones."""

SAME_STEP = 1e-6


class Verdict(NamedTuple):
    """
    What a check came to: `PASS`, `WARN` (it will drive, worse), `FAIL` (it will not) or `SKIP`
    (it does not apply here), what was seen, and what to do about it.
    """

    status: str
    detail: str
    remedy: str = ""


class Finding(NamedTuple):
    """A verdict with the name of its check."""

    name: str
    status: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Source:
    """
    What came on a topic.

    Attributes:
        topic: its name in full.
        missing: why nothing can arrive, if so (`janusvln_ros.protocol.wiring.no_publisher`).
        arrivals: seconds on the steady clock.
        stamps: of the messages, ns.
        ages: seconds from a message's stamp to its arrival, on the nodes' clock.
        messages: the latest few.
    """

    topic: str
    missing: str | None = None
    arrivals: Sequence[float] = ()
    stamps: Sequence[int] = ()
    ages: Sequence[float] = ()
    messages: Sequence[Any] = ()

    @property
    def rate(self) -> float:
        """Messages per second, by the middle of the gaps: one that is late does not count."""
        gaps = [b - a for a, b in pairwise(self.arrivals)]
        return 1 / max(median(gaps), 1e-6) if gaps else 0.0


@dataclass(frozen=True)
class Velocity:
    """
    Where ``motion`` sends its commands: topic, type, who listens, and who else sends there.
    """

    topic: str
    kind: str
    listeners: Sequence[Endpoint] = ()
    others: Sequence[str] = ()


class Line(NamedTuple):
    """A line of diagnostics: level, sentence, figures."""

    level: int
    message: str
    figures: Mapping[str, str]


@dataclass(frozen=True)
class Seen:
    """
    A graph as it was seen while somebody listened.

    Attributes:
        seconds: for which topics were listened to.
        nodes: the life cycle's state by the node's name.
        twice: nodes of which there are several of one name.
        lockstep: the simulator takes the steps; there is no motion, and frames come when asked.
        policy, motion: parameters by name; empty where the node does not answer.
        about: what decisions depend on, of the policy.
        lines: diagnostics by node and name, as "motion: state".
        camera, camera_info, odom, ranges: the inputs; None where the graph has none such.
        velocity: the way to the base; None where motion does not tell.
        estop: topic of the e-stop and how many publish it.
        mount: height (m) and tilt (degrees down) of the camera, by TF; None: not told.
        definitions: types whose definition differs from ours, with the node that has the other.
        remedies: what to set for a base that takes another type of velocity.
    """

    seconds: float = 0.0
    nodes: Mapping[str, str] = field(default_factory=dict)
    twice: Sequence[str] = ()
    lockstep: bool = False
    policy: Mapping[str, Any] = field(default_factory=dict)
    motion: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, Line] = field(default_factory=dict)
    camera: Source | None = None
    camera_info: Source | None = None
    odom: Source | None = None
    ranges: Source | None = None
    velocity: Velocity | None = None
    estop: tuple[str, int] = ("", 0)
    mount: tuple[float, float] | None = None
    definitions: Mapping[str, str] | None = None
    remedies: Mapping[str, str] = field(default_factory=dict)


Check = Callable[[Seen], Verdict]


def camera_mount(
    transforms: Mapping[str, tuple[str, Sequence[float], Sequence[float]]],
    camera: str,
    base: str,
) -> tuple[float, float] | None:
    """
    Height (m) above the origin of ``base`` and tilt (degrees down) of an optical frame (z ahead);
    None where the transforms do not lead there.

    ``transforms``: by the child's name its parent, translation (x, y, z) in metres and rotation
    (x, y, z, w), as in ``geometry_msgs/TransformStamped``.
    """
    point, ahead, frame = np.zeros(3), np.array([0.0, 0.0, 1.0]), camera.lstrip("/")
    known = {name.lstrip("/"): told for name, told in transforms.items()}
    for _ in range(len(known) + 1):
        if frame == base.lstrip("/"):
            return float(point[2]), math.degrees(math.asin(float(np.clip(-ahead[2], -1, 1))))
        if frame not in known:
            return None
        parent, shift, turn = known[frame]
        point, ahead = _rotated(turn, point) + np.asarray(shift), _rotated(turn, ahead)
        frame = parent.lstrip("/")
    return None


def _rotated(quaternion: Sequence[float], vector: Any) -> Any:
    axis, w = np.asarray(quaternion[:3]), quaternion[3]
    return vector + 2 * np.cross(axis, np.cross(axis, vector) + w * vector)


# The nodes ------------------------------------------------------------------------------


def _nodes(seen: Seen) -> Verdict:
    wanted = ["policy"] if seen.lockstep or not _drives(seen) else ["motion", "policy"]
    if lost := [name for name in wanted if name not in seen.nodes]:
        told = f"{' and '.join(lost)} not running beside {', '.join(sorted(seen.nodes)) or 'none'}"
        return Verdict(FAIL, told, "start it: 'janusvln up robot', with the same --domain")
    idle = [f"{name} is {seen.nodes[name]}" for name in wanted if seen.nodes[name] != "active"]
    if idle:
        told = "; ".join(idle) + "".join(
            f"; {line.figures['last_error']}"
            for line in seen.lines.values()
            if line.figures.get("last_error")
        )
        return Verdict(FAIL, told, "wait until the model is loaded, or see the node's log")
    if seen.twice:
        told = f"there is more than one node of the name {', '.join(seen.twice)}"
        return Verdict(FAIL, told, "end all but one, or give each robot a --namespace")
    return Verdict(PASS, ", ".join(f"{name} is {state}" for name, state in seen.nodes.items()))


def _drives(seen: Seen) -> bool:
    return bool(seen.policy.get("execute", True))


def _definitions(seen: Seen) -> Verdict:
    if seen.definitions is None:
        return Verdict(SKIP, "this distribution does not tell the definitions of others")
    if seen.definitions:
        told = "; ".join(f"{node} has another {kind}" for kind, node in seen.definitions.items())
        return Verdict(FAIL, told, "build one version of the messages on every computer")
    return Verdict(PASS, "messages are defined alike in every node")


def _diagnostics(seen: Seen) -> Verdict:
    if not seen.lines:
        return Verdict(FAIL, f"no diagnostics within {seen.seconds:.0f} s", "is the node frozen?")
    wrong = {name: line for name, line in seen.lines.items() if line.level}
    told = "; ".join(f"{name}: {line.message}" for name, line in wrong.items())
    if any(line.level > 1 for line in wrong.values()):
        return Verdict(FAIL, told, "see the checks of that input, and the node's log")
    if wrong:
        return Verdict(WARN, told, "see the checks of that input, and the node's log")
    return Verdict(PASS, "no node warns of anything")


# Inputs ---------------------------------------------------------------------------------


def _needed(
    which: str, seen: Seen, judge: Callable[[Source, Seen], Verdict], asked: bool = True
) -> Verdict:
    """The verdict of ``judge`` over an input from which something came; else a skip."""
    source: Source | None = getattr(seen, which)
    if source is None:
        return Verdict(SKIP, "nothing here takes it")
    if seen.lockstep and asked:
        return Verdict(SKIP, "in lockstep it comes when a step is asked for")
    if not source.messages:
        return Verdict(SKIP, f"nothing came on {source.topic}")
    return judge(source, seen)


def _wired(which: str, what: str, seen: Seen) -> Verdict:
    """Whether an input has a publisher that matches, and something comes."""
    source: Source | None = getattr(seen, which)
    if source is None:
        if which == "ranges":
            if seen.lockstep or not _drives(seen):
                return Verdict(SKIP, "no velocity is sent")
            told = "nothing guards the way ahead (range_source: none)"
            return Verdict(WARN, told, "give a scanner or a depth camera: range:=scan or depth")
        if which == "odom" and (seen.lockstep or "motion" not in seen.nodes):
            return Verdict(SKIP, "nothing here takes it")
        told = f"no node takes {what}: is it active?"
        return Verdict(FAIL, told, "see the check of the nodes")
    if source.missing is not None:
        return Verdict(FAIL, source.missing, f"start the driver of {what}, or remap its topic")
    if not source.messages and not seen.lockstep:
        told = f"{source.topic} has a publisher, and nothing came within {seen.seconds:.0f} s"
        return Verdict(FAIL, told, "is the driver frozen? raw images need room: docs/robot.md")
    return Verdict(PASS, f"{source.topic} has a publisher that matches")


def _rate(least: float, expected: float, source: Source, remedy: str) -> Verdict:
    """A rate in Hz against the least that will do, and against what was told to expect."""
    watched = InputRate(source.topic, expected, silence=math.inf)
    for arrival in source.arrivals:
        watched.hit(arrival)
    told = watched.health(source.arrivals[-1])
    if source.rate < least:
        why = f"{source.topic} comes at {source.rate:.1f} Hz; {least:.3g} Hz is the least"
        return Verdict(FAIL, why, remedy)
    if told.level:
        return Verdict(WARN, told.message, remedy)
    return Verdict(PASS, f"{source.rate:.1f} Hz")


def _stamps(oldest: float, future: float, source: Source) -> Verdict:
    """Whether stamps lie near the clock of the nodes, and advance. Seconds."""
    remedy = "let the driver stamp when it measures; one clock on all computers (chrony)"
    if not all(source.stamps):
        return Verdict(FAIL, f"stamps of {source.topic} are zero", remedy)
    if len(source.stamps) > 1 and source.stamps[-1] <= source.stamps[0]:
        return Verdict(FAIL, f"stamps of {source.topic} do not advance", remedy)
    age = median(source.ages)
    if age < -future:
        told = f"stamps of {source.topic} lie {-age:.2f} s in the future"
        return Verdict(FAIL, told, remedy)
    if age > oldest:
        told = f"messages on {source.topic} are {age:.2f} s old when they come"
        return Verdict(FAIL, f"{told}; {oldest:g} s is the most", remedy)
    return Verdict(PASS, f"{1000 * age:.0f} ms from stamp to arrival")


# The camera -----------------------------------------------------------------------------


def _camera_rate(source: Source, seen: Seen) -> Verdict:
    expected = float(seen.policy.get("expected_image_rate", 0.0))
    return _rate(1.0, expected or SLOWEST_CAMERA_HZ / 0.7, source, "raise the driver's rate")


def _camera_stamps(source: Source, seen: Seen) -> Verdict:
    if not seen.policy.get("clock_checks", True):
        return Verdict(SKIP, "clock_checks is off")
    oldest = float(seen.policy.get("frame_max_age", 1.0))
    return _stamps(oldest, float(seen.policy.get("future_tolerance", 0.1)), source)


def _picture(source: Source, seen: Seen) -> Verdict:
    try:
        rgb = decode(source.messages[-1])
    except InputError as error:
        return Verdict(FAIL, str(error), "choose another encoding or transport of the driver")
    brightness, edges = float(rgb.mean()), sharpness(rgb)
    if blank(rgb) and seen.policy.get("refuse_blank", True):
        return Verdict(FAIL, "the picture is black", "take the cover off the lens")
    if not DARK <= brightness <= BRIGHT:
        word = "dark" if brightness < DARK else "bright"
        told = f"the picture is very {word} (mean {brightness:.0f} of 255)"
        return Verdict(WARN, told, "look at the driver's exposure, and at the light")
    if edges < BLUR_LAPLACIAN:
        told = f"the picture has no sharp edges (variance of its Laplacian {edges:.0f})"
        return Verdict(WARN, told, "clean and focus the lens; a bare wall looks like that too")
    height, width = rgb.shape[:2]
    return Verdict(PASS, f"{width} x {height}, brightness {brightness:.0f}, sharpness {edges:.0f}")


def _intrinsics(source: Source, seen: Seen) -> Verdict:
    """``source``: camera_info; its pictures are needed too."""
    if seen.camera is None or not seen.camera.messages:
        return Verdict(SKIP, "no picture came to compare it with")
    try:
        height, width = decode(seen.camera.messages[-1]).shape[:2]
    except InputError:
        return Verdict(SKIP, "the picture cannot be read")
    remedy = "calibrate the camera (camera_calibration), and publish the info of this stream"
    info = intrinsics_of(source.messages[-1])
    try:
        view = plan_view(fitted(info, width, height))
    except InputError as error:
        allowed = seen.policy.get("allow_uncalibrated_camera", False)
        return Verdict(WARN if allowed else FAIL, str(error), remedy)
    if warning := scaled_warning(info, width, height):
        return Verdict(WARN, warning, remedy)
    if view.warnings:
        return Verdict(WARN, view.warnings[0], "take a wider lens, or the driver's full sensor")
    return Verdict(PASS, f"{width} x {height}, {view.hfov_deg:.0f} degrees are taken")


def _mounting(seen: Seen) -> Verdict:
    told = float(seen.policy.get("camera_height", 0.0))
    height, tilt = seen.mount or (told, 0.0)
    remedy = "set camera_height (policy), or publish the camera's place on TF"
    if not height:
        return Verdict(SKIP, "neither TF nor camera_height tells where the camera is", remedy)
    if told and seen.mount and abs(told - height) > 0.05:
        why = f"camera_height is {told:g} m, TF says {height:.2f} m"
        return Verdict(WARN, why, "measure it, and correct the wrong one")
    if warning := mounting_warning(round(height, 2)):
        return Verdict(WARN, warning, "a mast helps more than any parameter")
    if abs(tilt) > LEVEL_DEG:
        why = f"the camera looks {abs(tilt):.0f} degrees {'down' if tilt > 0 else 'up'}"
        return Verdict(WARN, f"{why}; the model was trained level", "mount it level")
    return Verdict(PASS, f"{height:.2f} m above the floor, {tilt:.0f} degrees down")


# Odometry and range ---------------------------------------------------------------------


def _odom_rate(source: Source, seen: Seen) -> Verdict:
    timeout = moving.settings_of(seen.motion).odom_timeout
    expected = float(seen.motion.get("expected_odom_rate", 0.0))
    return _rate(2 / timeout, expected, source, "raise its rate: 20 Hz or more")


def _odom_stamps(source: Source, seen: Seen) -> Verdict:
    settings = moving.settings_of(seen.motion)
    oldest = min(settings.odom_timeout, settings.input_max_age)
    return _stamps(oldest, settings.future_tolerance, source)


def _odometry(source: Source, seen: Seen) -> Verdict:
    """Numbers, jumps, and the twist against the poses."""
    try:
        track: list[Sample] = [sample_of(message) for message in source.messages]
    except InputError as error:
        return Verdict(FAIL, str(error), "mend the driver of the base")
    settings = moving.settings_of(seen.motion)
    for n, sample in enumerate(track):
        if jump := jumped(track[:n], sample, 0.0, settings.odom_jump, moving.fastest(settings)):
            way = relative(jump[0].pose, sample.pose)
            told = (
                f"odometry jumps by {math.hypot(way.x, way.y):.2f} m and "
                f"{abs(math.degrees(way.yaw)):.0f} degrees, which the base cannot make"
            )
            return Verdict(FAIL, told, "take smooth odometry (REP-105), not a localisation's")
    last = track[-1]
    shown = velocity_at(track, last.stamp)
    if shown is not None and shown != (last.speed, last.rate):
        told = (
            f"its twist says {last.speed:.2f} m/s and {last.rate:.2f} rad/s, its poses "
            f"{shown[0]:.2f} and {shown[1]:.2f}"
        )
        remedy = "let the driver fill in the twist; until then the poses are believed"
        return Verdict(WARN, told, remedy)
    return Verdict(PASS, f"twist and poses agree at {last.speed:.2f} m/s")


def _frames(source: Source, seen: Seen) -> Verdict:
    message = source.messages[-1]
    parent, child = message.header.frame_id, message.child_frame_id
    wanted = seen.motion.get("odom_frame", "odom"), seen.motion.get("base_frame", "base_link")
    if not parent or not child or parent == child:
        told = f"odometry goes from frame '{parent}' to '{child}'"
        return Verdict(WARN, told, "name both in the driver, as REP-105 does: odom, base_link")
    strange = [f"'{a}' (told: '{b}')" for a, b in zip((parent, child), wanted) if a != b]
    if strange:
        told = f"odometry's frames are {' and '.join(strange)}"
        return Verdict(WARN, told, "set odom_frame and base_frame (motion) to the robot's names")
    return Verdict(PASS, f"{parent} to {child}")


def _range_rate(source: Source, seen: Seen) -> Verdict:
    timeout = moving.settings_of(seen.motion).range_timeout
    expected = float(seen.motion.get("expected_range_rate", 0.0))
    return _rate(1.2 / timeout, expected, source, "raise its rate, or range_timeout (motion)")


def _range_stamps(source: Source, seen: Seen) -> Verdict:
    settings = moving.settings_of(seen.motion)
    oldest = min(2 * settings.range_timeout, settings.input_max_age)
    return _stamps(oldest, settings.future_tolerance, source)


def _corridor(source: Source, seen: Seen) -> Verdict:
    """What motion makes of the range source: the way ahead as it sees it."""
    state = seen.lines.get("motion: state", Line(0, "", {}))
    least = float(seen.motion.get("min_known", 0.2))
    if "corridor_known" not in state.figures:
        remedy = "see 'range' and the log of motion; depth needs depth_info"
        return Verdict(FAIL, f"motion cannot use {source.topic}: {state.message}", remedy)
    known, ahead = (float(state.figures[name]) for name in ("corridor_known", "clearance"))
    if known < least:
        told = f"only {known:.0%} of the way ahead can be seen (min_known {least:g})"
        remedy = "clear the scanner's view; cut the robot's own parts out (laser_filters)"
        return Verdict(FAIL, told, remedy)
    return Verdict(PASS, f"{known:.0%} of the way ahead is seen, {ahead:.2f} m of it free")


# The base -------------------------------------------------------------------------------


def _moves(judge: Check, seen: Seen) -> Verdict:
    """The verdict of ``judge`` where ``motion`` is there and answers; else a skip."""
    if seen.lockstep or not _drives(seen):
        return Verdict(SKIP, "no velocity is sent")
    return judge(seen) if seen.motion else Verdict(SKIP, "motion does not answer")


def _velocity(seen: Seen) -> Verdict:
    way = seen.velocity
    if way is None:
        return Verdict(FAIL, "motion publishes no command", "see the check of the nodes")
    if wrong := no_listener(way.topic, way.kind, way.listeners, seen.remedies):
        return Verdict(FAIL, wrong, "remap it to the base or its chain: cmd_vel:=TOPIC")
    if way.others:
        told = f"{way.topic} is also sent by {', '.join(way.others)}"
        return Verdict(WARN, told, "let one speak at a time: twist_mux")
    return Verdict(PASS, heard_by(way.topic, way.kind, way.listeners))


def _base_timeout(seen: Seen) -> Verdict:
    fine = moving.State(active=True, estop=False, odom_at=0.0)
    declared = moving.settings_of(seen.motion).base_timeout
    settings = moving.Settings(base_timeout=declared)
    if wrong := moving.arming_problem(fine, 0.0, settings):
        return Verdict(FAIL, wrong, "measure it (docs/robot.md), and give base_timeout:=SECONDS")
    return Verdict(PASS, f"the base stops by itself after {declared:g} s")


ESTOP = {"True": True, "False": False}
"""How motion's diagnostics tell of the e-stop; anything else: it has never spoken."""


def _estop(seen: Seen) -> Verdict:
    told = seen.lines.get("motion: state", Line(0, "", {})).figures.get("estop", "")
    pressed, (topic, count) = ESTOP.get(told), seen.estop
    needed = bool(seen.motion.get("estop_required", False))
    state = moving.State(active=True, estop=pressed, odom_at=0.0)
    settings = moving.Settings(base_timeout=moving.DOWNSTREAM_TIMEOUT, estop_required=needed)
    if wrong := moving.arming_problem(state, 0.0, settings):
        return Verdict(FAIL, wrong, "release it, and let it publish false (std_msgs/Bool)")
    if needed and not count:
        why = f"the e-stop {topic} has no publisher any more, and estop_required is set"
        return Verdict(FAIL, why, "start its driver")
    if pressed is None and count:
        why = f"{topic} has {count} publishers, and none has ever spoken"
        return Verdict(WARN, why, "press and release it once: does motion's log tell?")
    if pressed is None:
        why = f"nobody publishes {topic}: the base's own e-stop must cut its power"
        return Verdict(SKIP, why, "or remap it: estop:=TOPIC")
    return Verdict(PASS, f"{topic} is heard, and released")


def _heartbeat(seen: Seen) -> Verdict:
    told = seen.lines.get("motion: state", Line(0, "", {})).figures.get("heartbeat_age")
    most = moving.settings_of(seen.motion).heartbeat_timeout
    if told is None:
        return Verdict(SKIP, "motion does not tell")
    if float(told) > most:
        age = f"for {float(told):.2f} s" if float(told) < 1e6 else "ever"
        why = f"motion has heard no heartbeat of policy {age}; {most:g} s is the most"
        return Verdict(FAIL, why, "is policy active, and in the same namespace? policy_node")
    return Verdict(PASS, f"motion hears policy, {1000 * float(told):.0f} ms ago")


def _arming(seen: Seen) -> Verdict:
    """As motion itself would answer, with what is known of its state from outside."""
    state = seen.lines.get("motion: state", Line(0, "", {}))
    heard = seen.odom is not None and bool(seen.odom.messages)
    way, wiring = seen.velocity, None
    if way is not None:
        wiring = no_listener(way.topic, way.kind, way.listeners, seen.remedies)
    machine = moving.State(
        active=seen.nodes.get("motion") == "active",
        estop=ESTOP.get(state.figures.get("estop", "")),
        odom_at=0.0 if heard else -math.inf,
    )
    if wrong := moving.arming_problem(machine, 0.0, moving.settings_of(seen.motion), wiring):
        return Verdict(FAIL, f"motion refuses to be armed: {wrong}", "see the check of that")
    armed = "is ARMED" if state.figures.get("armed") == "True" else "may be armed"
    return Verdict(PASS, f"motion {armed}")


# The model ------------------------------------------------------------------------------


def _checkpoint(seen: Seen) -> Verdict:
    if not seen.policy:
        return Verdict(SKIP, "policy does not answer")
    if seen.nodes.get("policy") != "active":
        error = seen.lines.get("policy: state", Line(0, "", {})).figures.get("last_error", "")
        named = seen.policy.get("checkpoint") or "the one that comes with the package"
        told = f"the checkpoint ({named}) is not loaded{': ' if error else ''}{error}"
        return Verdict(FAIL, told, "wait, or give another: checkpoint:=FOLDER")
    about = seen.about
    where = f"{about.get('memory')}, {about.get('dtype')} on {about.get('device')}"
    return Verdict(PASS, f"{about['checkpoint']} ({where})" if about else "it is loaded")


def _steps(seen: Seen) -> Verdict:
    if not seen.policy:
        return Verdict(SKIP, "policy does not answer")
    wrong = [
        f"{name} of {node} is {told[name]:g}, trained with {trained:g}"
        for node, told in (("policy", seen.policy), ("motion", seen.motion))
        for name, trained in (("forward_step", FORWARD_STEP_M), ("turn_step", TURN_STEP_DEG))
        if name in told and abs(told[name] - trained) > SAME_STEP
    ]
    if wrong:
        return Verdict(FAIL, "; ".join(wrong), "leave them as they are shipped, alike in both")
    return Verdict(PASS, f"{FORWARD_STEP_M:g} m and {TURN_STEP_DEG:g} degrees, as trained")


GRAPH_CHECKS: Mapping[str, Check] = {
    "nodes": _nodes,
    "message definitions": _definitions,
    "camera": partial(_wired, "camera", "the camera"),
    "camera rate": lambda seen: _needed("camera", seen, _camera_rate),
    "camera stamps": lambda seen: _needed("camera", seen, _camera_stamps),
    "picture": lambda seen: _needed("camera", seen, _picture, asked=False),
    "camera_info": partial(_wired, "camera_info", "camera_info"),
    "field of view": lambda seen: _needed("camera_info", seen, _intrinsics, asked=False),
    "camera mounting": _mounting,
    "odometry": partial(_wired, "odom", "odometry"),
    "odometry rate": lambda seen: _needed("odom", seen, _odom_rate),
    "odometry stamps": lambda seen: _needed("odom", seen, _odom_stamps),
    "odometry values": lambda seen: _needed("odom", seen, _odometry),
    "odometry frames": lambda seen: _needed("odom", seen, _frames),
    "range": partial(_wired, "ranges", "the range source"),
    "range rate": lambda seen: _needed("ranges", seen, _range_rate),
    "range stamps": lambda seen: _needed("ranges", seen, _range_stamps),
    "way ahead": lambda seen: _needed("ranges", seen, _corridor),
    "velocity": partial(_moves, _velocity),
    "base time-out": partial(_moves, _base_timeout),
    "e-stop": partial(_moves, _estop),
    "heartbeat": partial(_moves, _heartbeat),
    "arming": partial(_moves, _arming),
    "checkpoint": _checkpoint,
    "step sizes": _steps,
    "diagnostics": _diagnostics,
}
"""Every check of a graph, by the name under which it is told, in the order of a frame's way."""


def examine(seen: Seen) -> list[Finding]:
    """Every check's finding."""
    return [Finding(name, *check(seen)) for name, check in GRAPH_CHECKS.items()]
