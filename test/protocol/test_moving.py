"""
The motion node's decisions: profiles, corridor, arming, and zero velocity whenever anything is
wrong. Without ROS and without a clock.
"""

import itertools
import math
import random
from collections import deque

import pytest

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2, wrap
from janusvln_ros.protocol.exchange import Event, Odometry
from janusvln_ros.protocol.moving import (
    Activate,
    Arm,
    Discrete,
    Done,
    Drive,
    EmergencyStop,
    Goal,
    Heartbeat,
    Phase,
    Progress,
    Ranges,
    Settings,
    State,
    Stop,
    Tick,
    Unusable,
    advance,
    arming_problem,
)
from janusvln_ros.protocol.odometry import Sample
from janusvln_ros.protocol.status import StepStatus

S = 1_000_000_000
DT = 0.02


class Rig:
    """
    A state machine driving a simulated base: acceleration limits, odometry with relative noise and
    latency, all on one pretended clock.
    """

    def __init__(self, noise=0.0, latency=0.0, seed=0, yaw=0.0, **settings):
        self.settings = Settings(
            **{"base_timeout": 0.2, "latency": latency + DT, "silence_test": False, **settings}
        )
        self.dice = random.Random(seed)
        self.noise, self.latency = noise, latency
        self.now = 100.0
        self.x = self.y = self.v = self.w = 0.0
        self.yaw = yaw
        self.measured = [0.0, 0.0, yaw]
        self.command = (0.0, 0.0)
        self.queue = deque()
        self.state = State()
        self.log, self.done, self.speeds = [], [], []
        self.watch = {"odom": True, "heartbeat": True, "ranges": True}
        self.episode_id, self.clearance, self.known = 1, 10.0, 1.0
        self.stuck = False
        self.blind = 0.0
        self.twist = lambda v, w: (v, w)  # what odometry says of the velocity
        self.jitter = 0.0  # of the measured pose, metres and radians
        self.do(Activate(self.now))
        for _ in range(20):
            self.tick()
        self.do(Arm(self.now, True))

    @property
    def ros(self):
        return round(self.now * S)

    def do(self, event):
        self.state, commands = advance(self.state, event, self.settings)
        for command in commands:
            if isinstance(command, Drive):
                self.command = (command.speed, command.rate)
            elif isinstance(command, Done):
                self.done.append(command)
        self.log += [(self.now, c) for c in commands]
        return commands

    def feed(self):
        if self.watch["heartbeat"]:
            self.do(Heartbeat(self.now, self.episode_id))
        if self.watch["ranges"]:
            ahead = self.clearance - self.x
            self.do(Ranges(self.now, self.ros, ahead, self.known, blind=self.blind))
        x, y, yaw = (value + self.dice.gauss(0, self.jitter) for value in self.measured)
        sample = Sample(self.ros, Pose2(x, y, wrap(yaw)), *self.twist(self.v, self.w))
        self.queue.append((self.now + self.latency, sample))
        while self.queue and self.queue[0][0] <= self.now:
            sample = self.queue.popleft()[1]
            if self.watch["odom"]:
                self.do(Odometry(self.now, sample))

    def tick(self):
        self.now += DT
        v, w = (0.0, 0.0) if self.stuck else self.command
        self.v += max(-1.5 * DT, min(1.5 * DT, v - self.v))
        self.w += max(-4.0 * DT, min(4.0 * DT, w - self.w))
        ds, da = self.v * DT, self.w * DT
        self.x += ds * math.cos(self.yaw)
        self.y += ds * math.sin(self.yaw)
        self.yaw += da
        ds, da = (v * self.dice.gauss(1, self.noise) for v in (ds, da))
        self.measured[0] += ds * math.cos(self.measured[2])
        self.measured[1] += ds * math.sin(self.measured[2])
        self.measured[2] += da
        self.speeds.append((self.v, self.w))
        self.feed()
        self.do(Tick(self.now, self.ros))

    def goal(self, action, episode_id=1, step=None, frame_stamp=None):
        step = len(self.done) if step is None else step
        return self.do(
            Goal(
                self.now,
                len(self.done),
                episode_id,
                step,
                int(action),
                self.ros if frame_stamp is None else frame_stamp,
                self.ros,
            )
        )

    def run(self, action, seconds=30.0, **options):
        """A whole step; its result."""
        before = len(self.done)
        self.goal(action, **options)
        return self.finish(before, seconds)

    def finish(self, before=0, seconds=30.0):
        for _ in range(int(seconds / DT)):
            if len(self.done) > before:
                return self.done[-1]
            self.tick()
        raise AssertionError("no result")

    def driving(self, action=Action.MOVE_FORWARD, seconds=0.4):
        """In the middle of a step."""
        self.goal(action)
        for _ in range(int(seconds / DT)):
            self.tick()
        assert abs(self.v) + abs(self.w) > 0.05
        return self


def test_forward_goes_a_quarter_of_a_metre_and_rests():
    rig = Rig()
    done = rig.run(Action.MOVE_FORWARD)
    assert (
        done.status == StepStatus.SUCCEEDED
        and rig.x == pytest.approx(0.25, abs=0.02)
        and abs(rig.v) < 0.02
    )
    assert done.moved.x == pytest.approx(rig.x, abs=0.005) and done.end_stamp <= rig.ros


@pytest.mark.parametrize(("action", "sign"), [(Action.TURN_LEFT, 1), (Action.TURN_RIGHT, -1)])
@pytest.mark.parametrize("heading", [0.0, 3.0, math.pi, -3.1, 100.0])
def test_turns_are_fifteen_degrees_across_the_wrap_of_the_angle(action, sign, heading):
    rig = Rig(yaw=heading)
    done = rig.run(action)
    assert done.status == StepStatus.SUCCEEDED
    assert math.degrees(rig.yaw - heading) == pytest.approx(15 * sign, abs=1.5)
    assert math.degrees(done.moved.yaw) == pytest.approx(15 * sign, abs=1.5)


@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_LEFT, Action.TURN_RIGHT])
def test_with_2_percent_noise_and_50_ms_latency_95_percent_of_steps_are_within_the_bar(
    action,
):
    errors = []
    for seed in range(40):
        rig = Rig(noise=0.02, latency=0.05, seed=seed)
        assert rig.run(action).status == StepStatus.SUCCEEDED
        errors.append(
            abs(rig.x - 0.25) / 0.02
            if action is Action.MOVE_FORWARD
            else abs(math.degrees(abs(rig.yaw)) - 15) / 1.5
        )
    assert sorted(errors)[37] <= 1.0  # 38 of 40


def test_latency_that_the_settings_do_not_know_of_is_still_within_tolerance_in_the_end():
    rig = Rig(latency=0.1)
    rig.settings = Settings(base_timeout=0.2, latency=0.0, silence_test=False)
    assert rig.run(Action.TURN_LEFT).status == StepStatus.SUCCEEDED
    assert math.degrees(rig.yaw) == pytest.approx(15, abs=1.5)


def test_speed_and_acceleration_stay_within_the_limits():
    rig = Rig(speed=0.2, acceleration=0.4, rate=0.5, rate_acceleration=1.0)
    rig.run(Action.MOVE_FORWARD)
    rig.run(Action.TURN_RIGHT)
    drives = [(t, c) for t, c in rig.log if isinstance(c, Drive)]
    assert max(c.speed for _, c in drives) <= 0.2 and max(abs(c.rate) for _, c in drives) <= 0.5
    for (t0, a), (t1, b) in itertools.pairwise(drives):
        assert abs(b.speed) - abs(a.speed) <= 0.4 * max(t1 - t0, DT) + 1e-6


def test_a_step_forward_holds_its_heading():
    rig = Rig()
    rig.goal(Action.MOVE_FORWARD)
    for _ in range(20):
        rig.tick()
    rig.yaw += 0.1
    rig.measured[2] += 0.1
    rig.finish()
    assert abs(rig.yaw) < 0.1 and abs(rig.y) < 0.03


# What a robot must never do


def test_never_moves_when_disarmed():
    rig = Rig()
    rig.do(Arm(rig.now, False))
    done = rig.run(Action.MOVE_FORWARD)
    assert done.status == StepStatus.DISARMED and rig.x == 0 and "motion/arm" in done.message


def test_is_disarmed_at_start_and_after_deactivation():
    assert not State().armed
    rig = Rig()
    rig.do(Activate(rig.now, active=False))
    rig.do(Activate(rig.now))
    assert not rig.state.armed and rig.run(Action.TURN_LEFT).status == StepStatus.DISARMED


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": Settings(base_timeout=0.0)}, "base_timeout"),
        ({"settings": Settings(base_timeout=0.31)}, "at most 0.3"),
        ({"settings": Settings(base_timeout=math.nan)}, "base_timeout"),
        ({"late": 1.0}, "no fresh odometry"),
        ({"estop": True}, "e-stop"),
        ({"inactive": True}, "not active"),
    ],
)
def test_arming_is_refused(change, words):
    rig = Rig()
    state = rig.state
    if change.get("estop"):
        state, _ = advance(state, EmergencyStop(rig.now, True), rig.settings)
    if change.get("inactive"):
        state, _ = advance(state, Activate(rig.now, False), rig.settings)
    assert words in arming_problem(
        state, rig.now + change.get("late", 0.0), change.get("settings", rig.settings)
    )
    assert arming_problem(rig.state, rig.now, rig.settings) is None


def zero_after(rig, seconds):
    """Seconds until zero velocity was sent, with everything in between."""
    begun = rig.now
    while rig.command != (0.0, 0.0):
        assert rig.now - begun < seconds, f"still {rig.command} after {rig.now - begun:.2f} s"
        rig.tick()
    return rig.now - begun


@pytest.mark.parametrize(
    ("source", "words"), [("odom", "odometry"), ("heartbeat", "heartbeat"), ("ranges", "scan")]
)
@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_LEFT])
def test_zero_velocity_soon_after_a_watched_input_goes_stale(source, words, action):
    rig = Rig(range_source="scan").driving(action, 0.2)
    rig.watch[source] = False
    zero_after(rig, 0.35 - DT)
    done = rig.finish()
    assert done.status == StepStatus.STALE and words in done.message
    rig.watch[source] = True
    rig.tick()
    assert rig.run(Action.TURN_LEFT).status == StepStatus.SUCCEEDED  # and it recovers by itself


@pytest.mark.parametrize("source", ["odom", "heartbeat", "ranges"])
def test_no_motion_begins_on_a_stale_input(source):
    rig = Rig(range_source="scan")
    rig.watch[source] = False
    for _ in range(20):
        rig.tick()
    assert rig.run(Action.MOVE_FORWARD).status == StepStatus.STALE and rig.x == 0


def test_odometry_whose_stamps_do_not_advance_is_stale():
    rig = Rig().driving()
    frozen = rig.state.odom
    rig.watch["odom"] = False
    for _ in range(80):
        rig.do(Odometry(rig.now, frozen))
        rig.tick()
    assert rig.done[-1].status == StepStatus.STALE


@pytest.mark.parametrize(
    "sample", [Pose2(math.nan, 0, 0), Pose2(0, math.inf, 0), Pose2(0, 0, math.nan)]
)
def test_odometry_that_is_not_a_number_stops_at_once(sample):
    rig = Rig().driving()
    rig.do(Odometry(rig.now, Sample(rig.ros + 1, sample)))
    assert rig.command == (0.0, 0.0) and "not a number" in rig.finish().message


def test_odometry_that_jumps_stops_at_once():
    rig = Rig().driving()
    rig.do(Odometry(rig.now, Sample(rig.ros + 1, Pose2(5.0, 0, 0), 0.2)))
    assert rig.command == (0.0, 0.0)
    assert rig.finish().status == StepStatus.STALE


def test_a_clock_that_jumps_back_stops_and_the_next_step_runs_on_the_new_time():
    rig = Rig().driving()
    sample = rig.state.odom
    for _ in range(80):
        rig.watch["odom"] = False
        rig.do(Odometry(rig.now, sample._replace(stamp=sample.stamp - 100 * S)))
        rig.tick()
    assert rig.done[-1].status == StepStatus.STALE
    rig.state, _ = advance(
        rig.state, Odometry(rig.now, sample._replace(stamp=sample.stamp - 99 * S)), rig.settings
    )
    assert rig.state.odom.stamp == sample.stamp - 99 * S


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (lambda now: Arm(now, False), StepStatus.DISARMED),
        (lambda now: EmergencyStop(now, True), StepStatus.DISARMED),
        (lambda now: Activate(now, False), StepStatus.DISARMED),
        (lambda now: Stop(now, StepStatus.CANCELED, "by the client"), StepStatus.CANCELED),
    ],
    ids=["disarm", "e-stop", "deactivate", "cancel"],
)
def test_zero_velocity_at_once_and_a_result_at_standstill(event, status):
    rig = Rig().driving()
    rig.do(event(rig.now))
    assert rig.command == (0.0, 0.0) and not rig.done
    assert rig.finish().status == status and abs(rig.v) <= 0.02


def test_releasing_the_emergency_stop_does_not_arm():
    rig = Rig()
    rig.do(EmergencyStop(rig.now, True))
    rig.do(EmergencyStop(rig.now, False))
    assert rig.run(Action.MOVE_FORWARD).status == StepStatus.DISARMED and rig.x == 0


def test_a_newer_episode_of_policy_stops_the_step_of_the_old_one():
    rig = Rig().driving()
    rig.episode_id = 2
    zero_after(rig, 0.1)
    assert rig.finish().status == StepStatus.CANCELED


def test_a_decision_for_an_old_instruction_is_refused():
    rig = Rig()
    rig.episode_id = 5
    rig.tick()
    assert rig.run(Action.MOVE_FORWARD, episode_id=4).status == StepStatus.REFUSED and rig.x == 0


@pytest.mark.parametrize(("episode_id", "step"), [(1, 0), (0, 5)])
def test_an_episode_or_step_that_is_not_newer_is_refused(episode_id, step):
    rig = Rig()
    rig.run(Action.TURN_LEFT, episode_id=1, step=0)
    yaw = rig.yaw
    assert rig.run(
        Action.TURN_LEFT, episode_id=episode_id, step=step
    ).status == StepStatus.REFUSED and rig.yaw == pytest.approx(yaw, abs=1e-3)


def test_a_second_goal_during_a_step_is_refused_and_the_step_goes_on():
    rig = Rig().driving()
    rig.goal(Action.TURN_LEFT, step=7)
    assert rig.done[-1].status == StepStatus.REFUSED and "under way" in rig.done[-1].message
    assert rig.finish(1).status == StepStatus.SUCCEEDED


@pytest.mark.parametrize(("age", "words"), [(11.0, "old"), (-0.5, "future"), (None, "zero")])
def test_a_decision_on_an_old_future_or_unstamped_frame_is_refused(age, words):
    rig = Rig()
    done = rig.run(Action.MOVE_FORWARD, frame_stamp=0 if age is None else rig.ros - round(age * S))
    assert (
        done.status in (StepStatus.STALE, StepStatus.REFUSED)
        and words in done.message
        and rig.x == 0
    )


@pytest.mark.parametrize("action", [4, 255])
def test_a_number_that_is_no_action_is_refused(action):
    rig = Rig()
    assert rig.run(action).status == StepStatus.REFUSED and rig.x == 0


def test_stop_is_answered_at_standstill_even_when_disarmed():
    rig = Rig()
    rig.do(Arm(rig.now, False))
    done = rig.run(Action.STOP)
    assert done.status == StepStatus.SUCCEEDED and rig.x == 0


def test_arming_forgets_which_episodes_went_before():
    rig = Rig()
    rig.run(Action.TURN_LEFT, episode_id=900)
    rig.do(Arm(rig.now, False))
    rig.do(Arm(rig.now, True))
    assert rig.run(Action.TURN_LEFT, episode_id=3, step=0).status == StepStatus.SUCCEEDED


# Obstacles


def test_stops_before_an_obstacle_that_appears():
    rig = Rig(range_source="scan").driving()
    rig.clearance = rig.x + 0.3
    zero_after(rig, 0.1)
    done = rig.finish()
    assert done.status == StepStatus.BLOCKED and "ahead" in done.message and rig.x < 0.25


def test_slows_down_for_an_obstacle_and_rests_before_it():
    rig = Rig(range_source="scan", stop_distance=0.35)
    rig.clearance = 0.45
    done = rig.run(Action.MOVE_FORWARD)
    assert done.status == StepStatus.BLOCKED and rig.x == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("free", [0.05, 0.15, 0.2])
def test_a_step_that_an_obstacle_cuts_short_is_blocked_however_far_it_came(free):
    rig = Rig(range_source="scan", stop_distance=0.35)
    rig.clearance = 0.35 + free
    done = rig.run(Action.MOVE_FORWARD)
    assert done.status == StepStatus.BLOCKED and rig.x == pytest.approx(free, abs=0.02)


def test_does_not_go_forward_where_nothing_can_be_seen():
    rig = Rig(range_source="scan")
    rig.known = 0.0
    rig.tick()
    done = rig.run(Action.MOVE_FORWARD)
    assert (
        done.status == StepStatus.BLOCKED and rig.x == 0 and "0% of the corridor" in done.message
    )
    assert rig.run(Action.TURN_LEFT).status == StepStatus.SUCCEEDED


def test_a_base_that_does_not_move_is_blocked():
    rig = Rig()
    rig.stuck = True
    done = rig.run(Action.MOVE_FORWARD)
    assert done.status == StepStatus.BLOCKED and done.collided


def test_a_step_that_does_not_end_is_ended_by_its_deadline():
    rig = Rig(step_deadline=1.0, speed=0.03)
    done = rig.run(Action.MOVE_FORWARD)
    assert done.status == StepStatus.TIMEOUT and 0 < rig.x < 0.1 and abs(rig.v) <= 0.02


def test_a_base_that_does_not_come_to_rest_is_told():
    rig = Rig().driving()
    rig.do(Stop(rig.now, StepStatus.SUCCEEDED, ""))
    rig.tick = lambda: None
    for i in range(80):
        rig.now += DT
        rig.do(Odometry(rig.now, Sample(rig.ros, Pose2(0.1 + 0.004 * i, 0, 0), 0.2)))
        rig.do(Tick(rig.now, rig.ros))
    assert rig.done[-1].status == StepStatus.TIMEOUT and "rest" in rig.done[-1].message


def test_progress_is_told_from_zero_to_one():
    rig = Rig()
    rig.run(Action.MOVE_FORWARD)
    shares = [c.share for _, c in rig.log if isinstance(c, Progress)]
    assert shares[0] == 0 and shares == sorted(shares) and shares[-1] > 0.9


def test_a_discrete_base_gets_one_command_and_its_motion_is_waited_for():
    rig = Rig(discrete=True)
    assert rig.goal(Action.TURN_LEFT) == (Discrete(Action.TURN_LEFT),)
    rig.command = (0.0, 0.5)  # the base steps by itself
    while rig.yaw < math.radians(14):
        rig.tick()
    rig.command = (0.0, 0.0)
    assert rig.finish().status == StepStatus.SUCCEEDED
    assert [c for _, c in rig.log if isinstance(c, Drive)] == [] and [
        c for _, c in rig.log if isinstance(c, Discrete)
    ] == [Discrete(Action.TURN_LEFT)]


def test_a_discrete_base_is_told_to_stop_when_something_goes_wrong():
    rig = Rig(discrete=True)
    rig.goal(Action.MOVE_FORWARD)
    rig.do(EmergencyStop(rig.now, True))
    assert [c for _, c in rig.log if isinstance(c, Discrete)][-1] == Discrete(Action.STOP)
    assert rig.finish().status == StepStatus.DISARMED


@pytest.mark.parametrize("ahead", [0.5, 0.1])
def test_what_is_nearer_than_the_sensor_can_measure_blocks_although_its_distance_is_not_told(
    ahead,
):
    rig = Rig(range_source="depth", stop_distance=0.2)
    rig.blind, rig.clearance = 0.5, ahead
    rig.tick()
    done = rig.run(Action.MOVE_FORWARD)
    assert done.status == StepStatus.BLOCKED and rig.x == 0 and "cannot measure" in done.message


def test_the_base_rests_before_it_comes_so_near_that_the_sensor_cannot_measure():
    rig = Rig(range_source="depth", stop_distance=0.2)
    rig.blind, rig.clearance = 0.5, 0.6
    assert rig.run(Action.MOVE_FORWARD).status == StepStatus.BLOCKED
    assert rig.x == pytest.approx(0.1, abs=0.02)


# Odometry whose twist is not to be believed

TWISTS = {
    "always zero": lambda v, w: (0.0, 0.0),
    "a tenth": lambda v, w: (0.1 * v, 0.1 * w),
    "tenfold": lambda v, w: (10 * v, 10 * w),
    "degrees": lambda v, w: (v, math.degrees(w)),
    "reversed": lambda v, w: (-v, -w),
    "stuck": lambda v, w: (0.4, 0.3),
}


@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_LEFT])
@pytest.mark.parametrize("twist", TWISTS.values(), ids=TWISTS)
def test_a_step_succeeds_on_the_poses_alone_and_ends_at_true_standstill(twist, action):
    rig = Rig()
    rig.twist = twist
    done = rig.run(action)
    assert (done.status, done.collided) == (StepStatus.SUCCEEDED, False)
    assert abs(rig.v) <= 0.02 and abs(rig.w) <= 0.05
    turns = action is Action.TURN_LEFT
    assert rig.x == pytest.approx(0.0 if turns else 0.25, abs=0.02)
    assert math.degrees(rig.yaw) == pytest.approx(15 if turns else 0, abs=1.5)


def test_no_result_while_a_base_with_a_twist_of_zero_still_rolls():
    rig = Rig()
    rig.twist = TWISTS["always zero"]
    rig.driving()
    rig.do(Stop(rig.now, StepStatus.CANCELED, ""))
    rig.stuck = False
    for _ in range(20):  # brakes that do not hold
        rig.command = (0.2, 0.0)
        rig.tick()
        assert not rig.done
    rig.command = (0.0, 0.0)
    assert rig.finish().status == StepStatus.CANCELED and abs(rig.v) <= 0.02


def test_a_base_that_does_not_move_is_blocked_also_where_its_twist_is_always_zero():
    rig = Rig()
    rig.twist, rig.stuck, rig.jitter = TWISTS["always zero"], True, 0.002
    done = rig.run(Action.MOVE_FORWARD)
    assert done.status == StepStatus.BLOCKED and done.collided


@pytest.mark.parametrize("seed", range(10))
def test_poses_that_jitter_by_millimetres_change_nothing(seed):
    rig = Rig(seed=seed)
    rig.jitter = 0.002
    done = rig.run(Action.MOVE_FORWARD)
    assert done.status == StepStatus.SUCCEEDED and rig.x == pytest.approx(0.25, abs=0.03)


def test_a_pose_that_stands_while_the_twist_moves_ends_the_step_and_is_no_collision():
    rig = Rig().driving()
    rig.feed = lambda: None
    frozen = rig.state.odom.pose
    for _ in range(200):
        rig.now += DT
        rig.do(Heartbeat(rig.now, 1))
        rig.do(Odometry(rig.now, Sample(rig.ros, frozen, 0.3)))
        rig.do(Tick(rig.now, rig.ros))
    done = rig.done[-1]
    assert done.status == StepStatus.UNTRUSTED and not done.collided and not rig.state.armed
    assert "stood still while its twist said 0.30 m/s" in done.message


def test_odometry_that_cannot_be_used_stops_at_once_and_is_named_when_arming():
    rig = Rig().driving()
    rig.do(Unusable(rig.now, "odom", "a quaternion of zeros"))
    assert rig.command == (0.0, 0.0) and rig.finish().message == "a quaternion of zeros"
    rig.watch["odom"] = False
    for _ in range(30):
        rig.do(Unusable(rig.now, "odom", "a quaternion of zeros"))
        rig.tick()
    assert "a quaternion of zeros" in arming_problem(rig.state, rig.now, rig.settings)
    rig.watch["odom"] = True
    rig.tick()
    assert arming_problem(rig.state, rig.now, rig.settings) is None


def test_range_data_that_cannot_be_used_is_named_when_arming_and_by_the_step():
    rig = Rig(range_source="depth")
    rig.watch["ranges"] = False
    for _ in range(30):
        rig.do(Unusable(rig.now, "depth", "depth_info is for 640 x 480"))
        rig.tick()
    assert "640 x 480" in arming_problem(rig.state, rig.now, rig.settings)
    done = rig.run(Action.MOVE_FORWARD)
    assert done.status == StepStatus.STALE and "640 x 480" in done.message and rig.x == 0


# The e-stop


def heard(*messages, settings=None):
    """The state after e-stop messages, each (seconds, pressed, sent)."""
    settings = settings or Settings(base_timeout=0.2)
    state, _ = advance(State(), Activate(0.0), settings)
    state, _ = advance(state, Odometry(0.0, Sample(1, Pose2())), settings)
    for now, pressed, sent in messages:
        state, _ = advance(state, EmergencyStop(now, pressed, sent), settings)
    return state


@pytest.mark.parametrize(
    ("messages", "pressed"),
    [
        ([(0, True, 5)], True),
        ([(0, True, 5), (0, False, 6)], False),
        ([(0, True, 5), (9, False, 6)], False),
        ([(0, True, 5), (0, False, 6), (0, True, 5), (0, False, 6)], False),  # copies
        ([(0, False, 5), (0, True, 6), (0.1, False, 5)], True),  # a copy, late
        ([(0, True, 6), (0.5, False, 5)], True),  # sent before, and overtaken
        ([(0, True, 6), (5.0, False, 5)], False),  # another publisher's clock
        ([(0, False, 6), (0.5, True, 5)], True),  # a press always counts
        ([(0, True, 0), (0, False, 0)], False),  # no stamps
    ],
)
def test_the_emergency_stop_is_as_it_was_said_last(messages, pressed):
    assert heard(*messages).estop is pressed


def test_a_pressed_emergency_stop_stays_pressed_until_somebody_says_that_it_is_not():
    state = heard((0, True, 5))
    settings = Settings(base_timeout=0.2)
    for now in range(1, 1000):
        state, _ = advance(state, Tick(now, now * S), settings)
    assert "e-stop" in arming_problem(state, 1000.0, settings)


@pytest.mark.parametrize("required", [False, True])
def test_an_emergency_stop_that_has_never_spoken_may_be_required_to(required):
    settings = Settings(base_timeout=0.2, estop_required=required)
    silent, released = heard(settings=settings), heard((0, False, 5), settings=settings)
    assert silent.estop is None
    told = arming_problem(silent, 0.0, settings)
    assert ("estop_required" in told) if required else told is None
    assert arming_problem(released, 0.0, settings) is None


def test_arming_is_refused_where_no_command_would_reach_the_base():
    rig = Rig()
    assert arming_problem(rig.state, rig.now, rig.settings, "nobody listens") == "nobody listens"


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_the_base_only_moves_while_armed_and_every_goal_is_answered_once(seed):
    dice = random.Random(seed)
    rig = Rig(range_source="scan", step_deadline=2.0, stop_time=0.5)
    asked = 0
    for _ in range(600):
        happening = dice.random()
        if happening < 0.04:
            rig.do(
                Goal(
                    rig.now,
                    asked,
                    dice.choice([1, 1, 1, 2]),
                    asked,
                    dice.choice([0, 1, 2, 3, 9]),
                    rig.ros - dice.choice([0, 0, 30 * S]),
                    rig.ros,
                )
            )
            asked += 1
        elif happening < 0.05:
            rig.do(
                dice.choice(
                    [
                        Arm(rig.now, False),
                        EmergencyStop(rig.now, True),
                        Activate(rig.now, False),
                        Stop(rig.now, StepStatus.CANCELED, ""),
                    ]
                )
            )
        elif happening < 0.08:
            rig.do(EmergencyStop(rig.now, False))
            rig.do(Activate(rig.now))
            rig.do(Arm(rig.now, True))
        elif happening < 0.12:
            rig.watch[dice.choice(list(rig.watch))] = dice.random() < 0.7
        elif happening < 0.14:
            rig.clearance = rig.x + dice.choice([0.2, 5.0])
        rig.tick()
        if rig.command != (0.0, 0.0):
            assert (
                rig.state.armed
                and rig.state.active
                and not rig.state.estop
                and rig.state.phase is Phase.DRIVING
            )
            assert (
                rig.now - rig.state.odom_at <= 0.2 + DT
                and rig.now - rig.state.heartbeat_at <= 0.25 + DT
            )
            assert (
                all(map(math.isfinite, rig.command))
                and abs(rig.command[0]) <= 0.3
                and abs(rig.command[1]) <= 0.8
            )
    for _ in range(300):
        rig.tick()
    assert sorted(d.goal.key for d in rig.done) == list(range(asked))


def test_unknown_events_are_refused_by_name():
    with pytest.raises(TypeError, match="no such event"):
        advance(State(), Event(0.0), Settings())
