"""
The motion node's limits, each exactly: what still moves, arms or counts, and what is one beyond.
"""

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.exchange import Odometry
from janusvln_ros.protocol.ledger import Ledger, Sent, granted
from janusvln_ros.protocol.moving import (
    Activate,
    Arm,
    Cliff,
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
    at_rest,
    blind_turns,
    goal_problem,
    moved_on,
    obstacle,
    rest_distance,
    room,
    settings_of,
    stale,
    stale_sensor,
)
from janusvln_ros.protocol.odometry import Sample
from janusvln_ros.protocol.status import StepStatus

S = 10**9
NOW, ROS = 64.0, 64 * S
START = Pose2()
ALL = Settings(
    base_timeout=0.25,
    odom_timeout=0.25,
    range_timeout=0.25,
    heartbeat_timeout=0.25,
    input_max_age=0.5,
    future_tolerance=0.125,
    frame_max_age=8.0,
    stop_distance=0.25,
    min_known=0.25,
    rest_time=0.125,
    stop_time=1.0,
    stuck_time=1.5,
    step_deadline=8.0,
    tolerance=1 / 64,
    turn_tolerance=1 / 64,
    turn_step=0.25,
    latency=0.0,
    silence_test=False,
)
"""Times and lengths that floats have exactly, so that "just there" is a place."""
SCAN = replace(ALL, range_source="scan")
FREE = Ranges(NOW, ROS, 9.0, 1.0, 9.0)


def track(pose=START, speed=0.0, rate=0.0, stamp=ROS):
    """A second of odometry of a base that stands."""
    return tuple(Sample(stamp - i * S // 50, pose, speed, rate) for i in range(50, -1, -1))


READY = State(
    active=True,
    armed=True,
    estop=False,
    proven=True,
    track=track(),
    odom_at=NOW,
    clock=(NOW, ROS),
    heartbeats=(Heartbeat(NOW, 1),),
)


def goal(action=Action.MOVE_FORWARD, episode=1, step=0, *, now=NOW, frame=ROS, ros=ROS, life=1):
    return Goal(now, 7, episode, step, int(action), frame, ros, life)


def driving(action=Action.MOVE_FORWARD, settings=ALL, moved=START, **changes):
    """In a step that began just now and has come as far as ``moved``."""
    way = {1: (0.25, 0.0), 2: (0.0, 0.25), 3: (0.0, -0.25)}[int(action)]
    ledger = changes.pop("ledger", granted(Ledger(), way, settings))
    state = replace(
        READY,
        phase=Phase.DRIVING,
        goal=goal(action),
        settings=settings,
        since=NOW,
        moving_at=NOW,
        ledger=ledger,
        track=track(moved),
        seen=(moved, 0.0),
        last=((1, 1, 0),),
    )
    return replace(state, **changes)


def settling(action=Action.MOVE_FORWARD, settings=ALL, moved=START, **changes):
    """At rest after a step."""
    rested = {"phase": Phase.STOPPING, "stopping_since": NOW - 0.5, "rest": (NOW - 0.5, 5)}
    return driving(action, settings, moved, **rested | changes)


def tick(state, settings=ALL, now=NOW):
    return advance(state, Tick(now, round(now * S)), settings)


def result(state, settings=ALL, now=NOW):
    """What a step at rest ends with, if it ends now."""
    return next((c for c in tick(state, settings, now)[1] if isinstance(c, Done)), None)


def status(state, settings=ALL, now=NOW):
    return result(state, settings, now).status


# Settings


def test_without_parameters_the_machine_has_those_that_are_documented():
    told = yaml.safe_load(Path("config/motion.yaml").read_text())["/**"]["ros__parameters"]
    degrees = {"turn_step", "turn_tolerance"}
    for field in fields(Settings):
        if field.name in told:
            value = told[field.name]
            value = math.radians(value) if field.name in degrees else value
            assert getattr(Settings(), field.name) == value, field.name
    assert Settings().discrete is False and len(told.keys() & vars(Settings())) > 25


def test_a_machine_that_has_heard_nothing_is_disarmed_inactive_and_stale():
    state = State()
    assert not state.active and not state.armed and state.odom is None and state.estop is None
    assert state.heartbeat_at == -math.inf and state.heard(1) is None
    awake = replace(state, active=True)
    assert arming_problem(awake, 1e9, ALL) == "there is no fresh odometry"
    message = "no odometry for as long as this node has been up"
    assert stale_sensor(awake, 1e9, ALL) == (StepStatus.STALE, message)
    blind = stale_sensor(replace(awake, odom_at=1e9), 1e9, SCAN)
    assert blind == (StepStatus.STALE, "no scan for as long as this node has been up")


def test_the_newest_of_what_was_heard_counts():
    beats = tuple(Heartbeat(t, 1, life) for t, life in ((1.0, 5), (3.0, 6), (4.0, 7), (8.0, 8)))
    state = State(heartbeats=beats, track=tuple(Sample(i, Pose2(i)) for i in range(5)))
    assert state.heartbeat_at == 8.0 and state.heard(6).now == 3.0 and state.heard(9) is None
    assert state.odom.stamp == 4


# Arming


def test_a_machine_that_is_ready_may_be_armed():
    assert arming_problem(READY, NOW, ALL) is None
    assert arming_problem(READY, NOW, ALL, "nobody listens") == "nobody listens"


@pytest.mark.parametrize(
    ("timeout", "arms"),
    [(0.0, False), (-0.1, False), (0.01, True), (0.3, True), (0.301, False), (math.inf, False)],
)
def test_the_base_must_stop_by_itself_within_three_tenths_of_a_second(timeout, arms):
    told = arming_problem(READY, NOW, replace(ALL, base_timeout=timeout))
    assert (told is None) == arms and (arms or "base_timeout" in told)


def test_odometry_arms_up_to_its_time_out():
    late = replace(READY, clock=None)
    assert arming_problem(late, NOW + 0.25, ALL) is None
    assert "no fresh odometry" in arming_problem(late, NOW + 0.26, ALL)


@pytest.mark.parametrize(
    ("age", "words"), [(0.5, None), (0.6, "0.60 s old"), (-0.125, None), (-0.2, "0.20 s in the")]
)
def test_stamps_of_odometry_arm_within_their_limits(age, words):
    state = replace(READY, track=track(stamp=ROS - round(age * S)))
    told = arming_problem(state, NOW, ALL)
    assert told is None if words is None else words in told
    again = stale_sensor(state, NOW, ALL)
    assert again is None if words is None else words in again[1]
    # time goes on between two ticks
    assert arming_problem(replace(state, clock=(NOW - 2.0, ROS - 2 * S)), NOW, ALL) == told


@pytest.mark.parametrize(("source", "refused"), [("none", False), ("scan", True)])
def test_range_data_that_cannot_be_read_only_counts_where_it_is_used(source, refused):
    state = replace(READY, ranges_problem="no angles")
    told = arming_problem(state, NOW, replace(ALL, range_source=source))
    assert (told == "scan cannot be used: no angles") if refused else told is None


@pytest.mark.parametrize(("silent", "told"), [(0.25, "scan is 5.00 s old"), (0.26, None)])
def test_stamps_of_range_data_count_for_as_long_as_it_speaks(silent, told):
    old = Ranges(NOW, ROS - 5 * S, 9.0, 1.0)
    state = replace(READY, ranges=old, ranges_at=NOW - silent)
    wrong = arming_problem(state, NOW, SCAN)
    assert wrong is None if told is None else told in wrong


@pytest.mark.parametrize("known", [False, True])
def test_arming_again_in_a_step_forgets_all_but_its_own_number_and_trusts_on(known):
    lives = ((1, 1, 0), (2, 5, 5))
    busy = driving(last=lives) if known else replace(READY, last=lives)
    state, commands = advance(busy, Arm(NOW, True), ALL)
    assert state.last == (((1, 1, 0),) if known else ()) and state.proven and commands == ()
    assert not advance(replace(busy, armed=False), Arm(NOW, True), ALL)[0].proven


# Goals


def test_a_goal_is_accepted_by_a_machine_that_is_ready():
    assert goal_problem(READY, goal(), ALL) is None
    assert goal_problem(READY, goal(episode=0), ALL) is not None  # policy is at 1
    calm = replace(READY, heartbeats=(Heartbeat(NOW, 0),))
    assert goal_problem(calm, goal(episode=0, step=0), ALL) is None


def refusal(state, asked, settings=ALL):
    told = goal_problem(state, asked, settings)
    return told and told[1]


@pytest.mark.parametrize(("action", "known"), [(-1, False), (0, True), (3, True), (4, False)])
def test_actions_are_zero_to_three(action, known):
    told = refusal(READY, replace(goal(), action=action))
    assert told is None if known else "none of 0 to 3" in told


def test_an_episode_is_out_of_reach_from_2_to_the_63_on():
    assert refusal(READY, goal(episode=2**63 - 1)) is None
    assert "out of reach" in refusal(READY, goal(episode=2**63))


@pytest.mark.parametrize(
    ("episode", "step", "newer"),
    [(3, 5, False), (3, 4, False), (3, 6, True), (2, 9, False), (4, 0, True)],
)
def test_a_goal_is_newer_by_its_episode_and_then_by_its_step(episode, step, newer):
    state = replace(READY, last=((8, 9, 9), (1, 3, 5)), heartbeats=(Heartbeat(NOW, 1),))
    told = refusal(state, goal(episode=episode, step=step))
    assert told is None if newer else "not newer than step 5 of episode 3" in told


def test_a_stop_needs_neither_arms_nor_a_frame():
    state = replace(READY, armed=False, estop=True)
    assert refusal(state, goal(Action.STOP, frame=0)) is None
    assert "life is 0" in refusal(state, goal(Action.STOP, life=0))


def test_a_pressed_e_stop_is_told_before_what_is_armed():
    pressed = replace(READY, estop=True)
    assert goal_problem(pressed, goal(), ALL) == (StepStatus.DISARMED, "the e-stop is pressed")
    assert "motion/arm" in refusal(replace(READY, armed=False), goal())


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (0, "is zero"),
        (1, None),
        (ROS - 8 * S, None),
        (ROS - 8 * S - S // 10, "8.10 s old (frame_max_age 8)"),
        (ROS + S // 8, None),
        (ROS + S // 5, "0.20 s in the future"),
    ],
)
def test_the_frame_of_a_decision_is_stamped_and_of_now(frame, words):
    asked = replace(goal(), frame_stamp=frame, ros_now=5 * S if frame == 1 else ROS)
    told = refusal(READY, asked)
    assert told is None if words is None else words in told


@pytest.mark.parametrize(
    ("at", "silent", "refused"), [(5, 0.25, True), (5, 0.26, False), (6, 0.0, False)]
)
def test_another_policy_is_waited_for_until_its_episode_is_over_or_it_is_silent(
    at, silent, refused
):
    beats = (Heartbeat(NOW, 1), Heartbeat(NOW - silent, at, 8))
    state = replace(READY, last=((8, 5, 0), (1, 1, 0)), heartbeats=beats)
    told = refusal(state, goal(step=1))
    assert told == (
        "another policy (life 8) is in the middle of its episode 5" if refused else None
    )
    assert refusal(replace(state, last=((1, 1, 0), (8, 5, 0))), goal(step=1)) is None
    unheard = replace(state, heartbeats=beats[:1])
    assert refusal(unheard, goal(step=1)) is None


def test_a_goal_of_an_episode_that_its_policy_has_left_is_refused():
    beats = (Heartbeat(NOW, 3),)
    state = replace(READY, heartbeats=beats)
    assert refusal(state, goal(episode=3)) is None
    assert goal_problem(state, goal(episode=2), ALL) == (
        StepStatus.REFUSED,
        "policy is already at episode 3",
    )


def test_a_policy_that_went_on_and_fell_silent_is_told_as_silent():
    silent = replace(READY, heartbeats=(Heartbeat(NOW - 1, 3),))
    assert goal_problem(silent, goal(episode=2), ALL)[0] == StepStatus.STALE


def test_a_sender_that_was_never_heard_is_refused_for_stale_sensors_only():
    unheard = replace(READY, heartbeats=())
    assert goal_problem(unheard, goal(), ALL) is None
    assert "no odometry" in refusal(replace(unheard, odom_at=0.0), goal())


def test_of_seventeen_senders_the_sixteen_newest_are_told_apart():
    state = replace(READY, armed=False)
    for life in range(1, 18):
        state, _ = advance(state, goal(Action.STOP, life=life), ALL)
        state = replace(state, goal=None, phase=Phase.IDLE)
    assert [life for life, *_ in state.last] == list(range(17, 1, -1))
    state, _ = advance(state, goal(Action.STOP, step=3, life=9), ALL)
    assert state.last[0] == (9, 1, 3) and len({life for life, *_ in state.last}) == 16


# What goes stale


@pytest.mark.parametrize(
    ("late", "words"), [(0.25, None), (0.26, "no odometry for 0.26 s"), (1e6, "as long as")]
)
def test_odometry_goes_stale_after_its_time_out(late, words):
    told = stale_sensor(replace(READY, clock=None, odom_at=NOW - late), NOW, ALL)
    assert told is None if words is None else words in told[1]


@pytest.mark.parametrize("late", [999_999.0, 600_000.0])
def test_a_long_silence_is_told_in_seconds(late):
    state = replace(READY, clock=None, odom_at=NOW - late)
    assert f"for {late:.2f} s" in stale_sensor(state, NOW, ALL)[1]


@pytest.mark.parametrize(("late", "words"), [(0.25, None), (0.26, "no scan for 0.26 s: torn")])
def test_range_data_goes_stale_after_its_time_out_where_it_is_used(late, words):
    state = replace(READY, clock=None, ranges=FREE, ranges_at=NOW - late, ranges_problem="torn")
    told = stale_sensor(state, NOW, SCAN)
    assert told is None if words is None else words in told[1]
    assert stale_sensor(state, NOW, ALL) is None


@pytest.mark.parametrize(("late", "words"), [(0.25, None), (0.26, "of policy for 0.26 s")])
def test_the_heartbeat_of_the_sender_goes_stale_after_its_time_out(late, words):
    state = replace(READY, heartbeats=(Heartbeat(NOW - late, 1), Heartbeat(NOW, 1, 8)))
    told = stale(state, NOW, 1, ALL)
    assert told is None if words is None else words in told[1]
    assert "(life 5) was heard" in stale(state, NOW, 5, ALL)[1]


# The way ahead


def test_the_base_rests_before_what_is_blind():
    assert rest_distance(replace(FREE, blind=0.5), ALL) == 0.5
    assert rest_distance(replace(FREE, blind=0.125), ALL) == 0.25


def test_there_is_all_the_room_without_range_data():
    assert room(replace(READY, ranges=FREE), NOW, ALL) == math.inf
    assert room(READY, NOW, SCAN) == math.inf


@pytest.mark.parametrize(
    ("arrived", "stamped", "latency", "gone"),
    [
        (0.0, 0.0, 0.0, 0.0),
        (0.125, 0.0, 0.0, 0.0625),
        (0.0, 0.125, 0.0, 0.0625),  # the older of both
        (0.0625, 0.125, 0.0, 0.0625),
        (0.0, 0.0, 0.125, 0.0625),
        (0.125, 0.125, 0.125, 0.125),
    ],
)
def test_what_the_base_has_gone_since_the_reading_is_behind_it(arrived, stamped, latency, gone):
    ledger = Ledger((9, 9), (9, 9), tuple(Sent(NOW - 0.5 + i / 16, 0.5) for i in range(9)))
    seen = Ranges(NOW, ROS - round(stamped * S), 2.0, 1.0)
    state = replace(READY, ledger=ledger, ranges=seen, ranges_at=NOW - arrived)
    assert room(state, NOW, replace(SCAN, latency=latency)) == 2.0 - 0.25 - gone
    behind = replace(ledger, sent=tuple(sent._replace(speed=-0.5) for sent in ledger.sent))
    # a way back, which no step goes, makes no room
    assert room(replace(state, ledger=behind), NOW, replace(SCAN, latency=latency)) == 1.75


def ahead(settings=SCAN, action=Action.MOVE_FORWARD, cliff=None, **seen):
    ranges = replace(FREE, **seen) if seen else FREE
    return obstacle(driving(action, ranges=ranges, ranges_at=NOW, cliff=cliff), NOW, settings)


def test_the_corridor_must_be_known_by_its_least_share():
    assert ahead(known=0.25) is None
    assert "only 24% of the corridor ahead can be seen (min_known 0.25)" in ahead(known=0.24)
    assert ahead(ALL, known=0.0) is None


def test_a_thing_at_the_distance_of_rest_is_in_the_way_and_one_beyond_is_not():
    assert ahead(clearance=0.26) is None
    assert ahead(clearance=0.25) == "something is 0.25 m ahead (stop_distance 0.25)"
    assert "0.00 m ahead" in ahead(clearance=0.0)
    assert ahead(blind=0.25, clearance=0.25).endswith("(stop_distance 0.25)")
    unseen = "something is 0.25 m ahead, out of the camera's view now (stop_distance 0.25)"
    assert ahead(clearance=0.25, out_of_view=True) == unseen
    assert "nearer than 0.5 m scan cannot measure" in ahead(blind=0.5, clearance=0.25)


def test_an_edge_is_in_the_way_of_every_motion_and_of_no_stop():
    edge, floor = Cliff(NOW, True), Cliff(NOW, False)
    for action in (Action.MOVE_FORWARD, Action.TURN_LEFT, Action.TURN_RIGHT):
        assert ahead(action=action, cliff=edge) == "the cliff sensor sees an edge"
        assert ahead(action=action, cliff=floor) is None
    stopping = replace(driving(), goal=goal(Action.STOP), cliff=edge)
    assert obstacle(stopping, NOW, ALL) is None
    assert obstacle(replace(READY, cliff=edge), NOW, ALL) is None


AROUND = replace(SCAN, turn_clearance=0.5)


def test_a_turn_needs_its_clearance_and_no_room_ahead():
    turn = {"action": Action.TURN_LEFT, "clearance": 0.0, "known": 0.0}
    assert ahead(**turn) is None and ahead(AROUND, **turn) is None
    assert ahead(AROUND, **turn, nearest=0.5) is None
    assert "0.49 m away (turn_clearance 0.5)" in ahead(AROUND, **turn, nearest=0.49)
    assert ahead(AROUND, **turn, around=0.25) is None
    assert "only 24% of a part around" in ahead(AROUND, **turn, around=0.24)
    assert ahead(SCAN, **turn, nearest=0.0, around=0.0) is None
    unseen = driving(Action.TURN_LEFT)
    assert obstacle(unseen, NOW, AROUND) is None  # `stale_sensor` stops that


def test_what_says_nothing_of_around_knows_all_of_it():
    assert Ranges(NOW, ROS, 9.0, 1.0).around == 1.0 and Ranges(NOW, ROS, 9.0, 1.0).blind == 0.0


@pytest.mark.parametrize("source", ["none", "depth"])
def test_a_turn_clearance_that_nothing_sees_is_no_clearance(source):
    blind = replace(AROUND, range_source=source)
    assert "turn_clearance is 0.5" in blind_turns(blind)
    assert "turn_clearance is 0.5" in ahead(blind, action=Action.TURN_RIGHT)
    assert blind_turns(AROUND) is None and blind_turns(replace(blind, turn_clearance=0)) is None


# The e-stop and the edge


@pytest.mark.parametrize(
    ("after", "sent", "still"),
    [
        (1.0, 5, True),
        (1.01, 5, False),
        (0.0, 6, False),
        (0.0, 7, False),
        (0.0, 0, False),
        (0.0, 1, True),
    ],
)
def test_word_sent_before_the_press_is_overtaken_for_a_second(after, sent, still):
    state, _ = advance(READY, EmergencyStop(NOW, True, 6), ALL)
    state, _ = advance(state, EmergencyStop(NOW + after, False, sent), ALL)
    assert state.estop is still
    state, _ = advance(READY, Cliff(NOW, True, 6), ALL)
    state, _ = advance(state, Cliff(NOW + after, False, sent), ALL)
    assert state.cliff.seen is still


def test_word_without_a_stamp_counts_as_it_comes():
    for kind in (EmergencyStop, Cliff):
        state, _ = advance(READY, kind(NOW, True, 6), ALL)
        state, _ = advance(state, kind(NOW, False), ALL)
        assert not state.estop and not (state.cliff and state.cliff.seen)


def test_a_late_copy_does_not_press_what_was_released():
    state, _ = advance(READY, EmergencyStop(NOW, True, 6), ALL)
    state, _ = advance(state, EmergencyStop(NOW, False, 7), ALL)
    state, _ = advance(state, EmergencyStop(NOW, False, 5), ALL)
    assert state.estop is False


def test_an_edge_that_was_sent_before_word_of_none_counts():
    state, _ = advance(READY, Cliff(NOW, False, 6), ALL)
    state, _ = advance(state, Cliff(NOW, True, 5), ALL)
    assert state.cliff.seen


@pytest.mark.parametrize("phase", Phase)
def test_an_edge_ends_a_step_that_drives_or_waits_and_nothing_else(phase):
    state = driving(phase=phase, goal=None if phase is Phase.IDLE else goal())
    after, commands = advance(state, Cliff(NOW, True), ALL)
    ends = phase in (Phase.DRIVING, Phase.WAITING)
    assert commands == ((Drive(0.0, 0.0),) if ends else ())
    assert (after.outcome[0] == StepStatus.BLOCKED) == ends and after.armed
    assert advance(state, Cliff(NOW, False), ALL)[1] == ()


# How a step ends early


def test_the_first_reason_to_stop_is_told_and_any_reason_is_told_before_success():
    after, _ = advance(driving(), Stop(NOW, StepStatus.CANCELED, "by the client"), ALL)
    after, _ = advance(after, EmergencyStop(NOW, True), ALL)
    assert after.outcome == (StepStatus.CANCELED, "by the client") and not after.armed
    after, _ = advance(settling(), EmergencyStop(NOW, True), ALL)
    assert after.outcome == (StepStatus.DISARMED, "the e-stop was pressed")


def test_stopping_again_does_not_begin_the_stop_anew():
    state = settling(rest=None)
    after, commands = advance(state, Stop(NOW, StepStatus.CANCELED, ""), ALL)
    assert after.stopping_since == state.stopping_since and commands == (Drive(0.0, 0.0),)
    begun, _ = advance(driving(rest=(1.0, 1)), Stop(NOW + 1, StepStatus.CANCELED, ""), ALL)
    assert begun.stopping_since == NOW + 1 and begun.rest is None


@pytest.mark.parametrize(
    "event", [Arm(NOW, False), Activate(NOW, False), EmergencyStop(NOW, True)]
)
def test_without_a_step_what_disarms_sends_zero(event):
    after, commands = advance(READY, event, ALL)
    assert commands == (Drive(0.0, 0.0),) and not after.armed and after.goal is None
    discrete = replace(ALL, discrete=True)
    assert advance(READY, event, discrete)[1] == (Discrete(Action.STOP),)


def test_activation_disarms_and_keeps_quiet():
    after, commands = advance(READY, Activate(NOW), ALL)
    assert after.active and not after.armed and commands == ()


@pytest.mark.parametrize("source", ["odom", "scan"])
@pytest.mark.parametrize("phase", [Phase.DRIVING, Phase.STOPPING, Phase.WAITING])
def test_input_that_cannot_be_read_ends_a_step_that_drives(source, phase):
    after, commands = advance(driving(phase=phase), Unusable(NOW, source, "torn"), ALL)
    ends = phase is Phase.DRIVING
    assert commands == ((Drive(0.0, 0.0),) if ends else ())
    told = "torn" if source == "odom" else "scan cannot be used: torn"
    assert after.outcome == ((StepStatus.STALE, told) if ends else (StepStatus.SUCCEEDED, ""))
    assert (after.odom_problem, after.ranges_problem) == (
        ("torn", "") if source == "odom" else ("", "torn")
    )


@pytest.mark.parametrize(
    ("state", "settings", "words"),
    [
        (driving(odom_at=NOW - 0.26), ALL, "no odometry"),
        (driving(heartbeats=(Heartbeat(NOW, 2),)), ALL, "already at episode 2"),
        (driving(heartbeats=(Heartbeat(NOW - 0.26, 1),)), ALL, "no heartbeat"),
        (driving(cliff=Cliff(NOW, True)), ALL, "edge"),
        (driving(since=NOW - 8.01), ALL, "not done within 8 s"),
        (driving(since=NOW - 8.0), ALL, None),
        (driving(moving_at=NOW - 1.51), ALL, "has not moved for 1.5 s"),
        (driving(moving_at=NOW - 1.5), ALL, None),
        (driving(moved=Pose2(0, 0.11, 0)), ALL, "sideways"),
    ],
)
def test_a_step_goes_on_up_to_each_limit_and_no_further(state, settings, words):
    after, commands = tick(state, settings)
    if words is None:
        assert commands[0].speed > 0 and after.phase is Phase.DRIVING
    else:
        assert words in after.outcome[1] and commands[0] == Drive(0.0, 0.0)


@pytest.mark.parametrize(
    ("speed", "rate", "doubted"),
    [(0.02, 0.05, False), (0.021, 0.0, True), (-0.021, 0.0, True), (0.0, 0.051, True)],
)
def test_a_pose_that_stands_is_a_collision_unless_the_twist_moves(speed, rate, doubted):
    stuck = driving(moving_at=NOW - 1.6, track=track(Pose2(), speed, rate))
    after, _ = tick(stuck)
    assert after.outcome[0] == (StepStatus.UNTRUSTED if doubted else StepStatus.BLOCKED)
    assert after.armed != doubted and after.collided != doubted


# Odometry


def hear(state, pose, after=S // 50, settings=ALL, speed=0.0, rate=0.0):
    sample = Sample(state.odom.stamp + after, pose, speed, rate)
    return advance(state, Odometry(NOW + after / S, sample), settings)[0]


def test_a_stamp_of_before_is_no_news_in_a_step_and_a_clock_set_back_between_steps():
    for state in (driving(), READY):
        assert hear(state, Pose2(), 0).odom_at == NOW  # the same stamp, heard at the same time
        again = advance(state, Odometry(NOW + 0.1, state.odom), ALL)[0]
        assert again.odom_at == NOW and again.odom_problem == ""
        back = advance(state, Odometry(NOW + 0.1, Sample(ROS - S, Pose2())), ALL)[0]
        assert back.odom_at == (NOW if state.goal else NOW + 0.1)
        seen = replace(state, ranges=FREE, ranges_at=NOW)
        same = advance(seen, replace(FREE, now=NOW + 0.1), SCAN)[0]
        assert same.ranges_at == NOW and same.ranges_problem == ""
        old = advance(seen, replace(FREE, now=NOW + 0.1, stamp=ROS - S), SCAN)[0]
        assert old.ranges_at == (NOW if state.goal else NOW + 0.1)


@pytest.mark.parametrize(("late", "told"), [(0.25, ""), (0.26, "its stamps do not advance")])
def test_stamps_that_stand_are_named_once_nothing_else_has_come_for_too_long(late, told):
    frozen = advance(READY, Odometry(NOW + late, READY.odom), ALL)[0]
    assert (frozen.odom_problem, frozen.ranges_problem) == (told, "")
    seen = replace(READY, ranges=FREE, ranges_at=NOW)
    frozen = advance(seen, replace(FREE, now=NOW + late), SCAN)[0]
    assert (frozen.odom_problem, frozen.ranges_problem) == ("", told)


def test_news_forgets_what_was_wrong():
    state = replace(READY, odom_problem="torn", ranges_problem="torn", ranges=FREE)
    assert hear(state, Pose2()).odom_problem == ""
    after = advance(state, replace(FREE, stamp=ROS + 1), SCAN)[0]
    assert after.ranges_problem == "" and after.ranges.stamp == ROS + 1


def test_standstill_is_as_old_as_its_first_message():
    state = hear(READY, Pose2())
    assert state.rest == (NOW + 0.02, ROS + S // 50)
    assert hear(state, Pose2()).rest == state.rest
    assert hear(state, Pose2(0.03), speed=1.0).rest is None


@pytest.mark.parametrize(
    ("speed", "rate", "rests"),
    [
        (0.02, 0.05, True),
        (-0.02, -0.05, True),
        (0.0201, 0.0, False),
        (-0.0201, 0.0, False),
        (0.0, 0.0501, False),
        (0.0, -0.0501, False),
    ],
)
def test_rest_is_up_to_its_speed_and_rate(speed, rate, rests):
    step = 0.02
    poses = [(speed * step * i, 0.0, rate * step * i) for i in range(51)]
    seen = tuple(Sample(i * S // 50, Pose2(*p), speed, rate) for i, p in enumerate(poses))
    assert at_rest(seen, ALL) is rests


def test_rest_is_told_by_the_newest_message():
    fast = [0.0] * 30
    for i in (1, 28):
        fast[i] = 0.03
    seen = tuple(Sample(i * S // 50, Pose2(), v) for i, v in enumerate(fast))
    assert at_rest(seen, ALL) and not at_rest(seen[:-1], ALL) and not at_rest(seen[:3], ALL)
    assert not at_rest(seen[:1], ALL)


def test_motion_is_half_of_the_speed_of_rest_over_the_time_of_a_stuck_base():
    far, turned = 0.5 * 1.5 * 0.02, 0.5 * 1.5 * 0.05
    still = replace(ALL, rest_speed=0.02, rest_rate=0.05)
    for sign in (1, -1):
        assert moved_on(Pose2(), Pose2(sign * (far + 1e-6)), still)
        assert moved_on(Pose2(), Pose2(0, sign * (far + 1e-6)), still)
        assert moved_on(Pose2(0, 0, math.pi), Pose2(0, 0, math.pi + sign * (turned + 1e-6)), still)
        assert not moved_on(Pose2(), Pose2(sign * (far - 1e-6), 0, sign * (turned - 1e-6)), still)
    whole = replace(ALL, stuck_time=2.0, rest_speed=0.25, rest_rate=0.25)
    assert not moved_on(Pose2(), Pose2(0.25, 0, 0.25), whole)


def test_a_base_that_moves_on_is_remembered_where_and_when():
    state = hear(driving(), Pose2(0.02))
    assert (state.moving_at, state.moving_from) == (NOW + 0.02, Pose2(0.02))
    still = hear(driving(), Pose2(0.01))
    assert (still.moving_at, still.moving_from) == (NOW, Pose2())


@pytest.mark.parametrize(
    ("pose", "seen"),
    [
        (Pose2(0.0091), True),
        (Pose2(0, -0.0091), True),
        (Pose2(0.009), False),
        (Pose2(0, 0, math.radians(0.51)), True),
        (Pose2(0, 0, -math.radians(0.51)), True),
        (Pose2(0, 0, math.radians(0.49)), False),
    ],
)
def test_odometry_sees_a_step_beyond_its_jitter_and_what_was_commanded_by_then(pose, seen):
    ledger = Ledger((1.0, 1.0), (0.75, 0.875))
    for action, used in ((Action.MOVE_FORWARD, 0.25), (Action.TURN_LEFT, 0.125)):
        state = hear(driving(action, ledger=ledger), pose)
        assert state.seen == ((pose, used) if seen else (Pose2(), 0.0))
    assert hear(READY, pose).seen == READY.seen


@pytest.mark.parametrize("start", [Pose2(0, 0, 1.0), Pose2(1.0), Pose2(0, -2.0)])
def test_where_a_robot_stands_is_no_motion_that_odometry_sees(start):
    ledger = Ledger((1.0, 1.0), (0.75, 0.875))
    for action in (Action.MOVE_FORWARD, Action.TURN_LEFT):
        assert hear(driving(action, moved=start, ledger=ledger), start).seen == (start, 0.0)


def test_a_base_that_steps_by_itself_is_told_by_the_type_of_its_commands():
    assert settings_of({"output": "discrete"}).discrete
    assert not settings_of({"output": "twist"}).discrete and not settings_of({}).discrete


@pytest.mark.parametrize(
    ("pose", "jumped"),
    [
        (Pose2(0.45), False),
        (Pose2(0.5), True),
        (Pose2(0, 0, 0.54), False),
        (Pose2(0, 0, 0.6), True),
    ],
)
def test_a_base_that_steps_by_itself_makes_a_step_in_a_quarter_of_a_second(pose, jumped):
    discrete = replace(ALL, discrete=True)
    state = driving(settings=discrete, track=(Sample(ROS, Pose2()),))
    after = hear(state, pose, S // 4, discrete)
    assert (after.phase is Phase.STOPPING) == jumped


def test_a_jump_in_a_step_keeps_the_way_it_has_made():
    after = hear(driving(moved=Pose2(0.125), start=Pose2()), Pose2(5.0, 1.0, 0.0))
    assert after.outcome[0] == StepStatus.STALE and after.start == pytest.approx((4.875, 1.0, 0.0))
    assert len(after.track) == 1 and after.odom_at == NOW + 0.02


# Waiting


@pytest.mark.parametrize(("waited", "ends"), [(2.0, False), (2.01, True)])
def test_a_first_heartbeat_is_waited_for_two_seconds(waited, ends):
    state = driving(phase=Phase.WAITING, since=NOW - waited, heartbeats=())
    after, commands = tick(state)
    assert (after.phase is Phase.STOPPING) == ends and bool(commands) == ends


def test_only_the_heartbeat_of_the_sender_lets_a_waiting_step_begin():
    waiting = driving(phase=Phase.WAITING, heartbeats=(), since=NOW - 1, nudges=2)
    other, _ = advance(waiting, Heartbeat(NOW, 1, 8), ALL)
    assert other.phase is Phase.WAITING
    begun, commands = advance(waiting, Heartbeat(NOW, 1), ALL)
    assert begun.phase is Phase.DRIVING and begun.since == NOW and commands == ()
    assert begun.nudges == 0
    moved_away, _ = advance(waiting, Heartbeat(NOW, 2), ALL)
    assert moved_away.outcome[0] == StepStatus.CANCELED


# At rest


def test_a_step_ends_once_it_has_rested_long_enough():
    moved = Pose2(0.25)
    done = result(settling(moved=moved, rest=(NOW - 0.125, 5)))
    assert (done.status, done.end_stamp, done.moved) == (StepStatus.SUCCEEDED, 5, moved)
    assert done.commanded == 0.0 and not done.collided
    early = settling(moved=moved, rest=(NOW - 0.12, 5))
    assert result(early) is None and tick(early)[1] == (Drive(0.0, 0.0),)


@pytest.mark.parametrize(("waited", "ends"), [(1.0, True), (0.99, False)])
def test_rest_is_waited_for_no_longer_than_the_time_to_stop(waited, ends):
    state = settling(moved=Pose2(0.25), rest=None, stopping_since=NOW - waited)
    done = result(state)
    assert (done is not None) == ends
    if done:
        assert (done.status, done.end_stamp) == (StepStatus.TIMEOUT, ROS)
        assert done.message == "the base did not come to rest"


@pytest.mark.parametrize(("late", "fresh"), [(0.25, True), (0.26, False)])
def test_rest_that_stale_odometry_shows_is_none(late, fresh):
    state = settling(moved=Pose2(0.25), odom_at=NOW - late, stopping_since=NOW - 2.0)
    done = result(state)
    assert done.status == (StepStatus.SUCCEEDED if fresh else StepStatus.STALE)
    assert fresh or "stale before standstill" in done.message


def test_another_reason_is_told_at_rest_whatever_the_way():
    state = settling(outcome=(StepStatus.CANCELED, "by the client"), collided=True)
    done = result(state)
    assert (done.status, done.message, done.collided) == (
        StepStatus.CANCELED,
        "by the client",
        True,
    )
    after, _ = tick(state)
    assert (after.goal, after.settings, after.phase) == (None, None, Phase.IDLE)


@pytest.mark.parametrize(
    ("nudges", "since", "goes_on"),
    [(2, 0.0, True), (3, 0.0, False), (0, 7.9, True), (0, 8.0, False)],
)
def test_a_step_that_came_short_goes_on_three_times_within_its_deadline(nudges, since, goes_on):
    state = settling(moved=Pose2(0.2), nudges=nudges, since=NOW - since, moving_at=0.0)
    after, commands = tick(state)
    assert (after.phase is Phase.DRIVING) == goes_on and commands[0] == Drive(0.0, 0.0)
    if goes_on:
        assert after.nudges == nudges + 1 and len(commands) == 1
        assert (after.moving_at, after.moving_from) == (NOW, Pose2(0.2))


def test_a_step_within_its_tolerance_is_done_and_one_beyond_is_not():
    assert status(settling(moved=Pose2(0.25 - 1 / 64))) == StepStatus.SUCCEEDED
    assert result(settling(moved=Pose2(0.25 - 1 / 64 - 1e-6))) is None
    assert status(settling(Action.TURN_LEFT, moved=Pose2(0, 0, 0.25 + 1 / 64))) == (
        StepStatus.SUCCEEDED
    )
    assert result(settling(Action.TURN_LEFT, moved=Pose2(0, 0, 0.25 + 1 / 64 + 1e-6))) is None


def test_a_discrete_base_is_not_nudged_nor_sent_a_velocity():
    discrete = replace(ALL, discrete=True)
    done = result(settling(settings=discrete, moved=Pose2(0.1)), discrete)
    assert done.status == StepStatus.SUCCEEDED
    assert tick(settling(settings=discrete, moved=Pose2(0.1)), discrete)[1] == (done,)


def test_a_discrete_base_has_stepped_once_it_is_there_and_at_rest():
    discrete = replace(ALL, discrete=True)
    for moved, rest, there in (
        (Pose2(0.25), (NOW, 5), True),
        (Pose2(0.25), None, False),
        (Pose2(0.1), (NOW, 5), False),
    ):
        after, commands = tick(driving(settings=discrete, moved=moved, rest=rest), discrete)
        assert (after.phase is Phase.STOPPING) == there
        assert commands == (Progress(7, moved.x / 0.25),)
        assert not there or after.stopping_since == NOW


@pytest.mark.parametrize(
    ("x", "clearance", "blocked"),
    [(0.124, 9.0, True), (0.125, 9.0, False), (0.2, 0.28, True), (0.2, 9.0, False)],
)
def test_a_step_that_stays_short_is_blocked_before_half_of_it_or_by_what_stands_ahead(
    x, clearance, blocked
):
    seen = replace(FREE, clearance=clearance)
    state = settling(settings=SCAN, moved=Pose2(x), nudges=3, ranges=seen, ranges_at=NOW)
    done = result(state, SCAN)
    assert done.status == (StepStatus.BLOCKED if blocked else StepStatus.TIMEOUT)
    assert f"came to rest at {x:.3f} m and 0.0 degrees" in done.message
    assert ("from where the way ahead ends" in done.message) == (clearance < 1)


def test_what_ends_just_where_the_rest_of_the_step_would_is_not_in_the_way():
    seen = replace(FREE, clearance=0.25 + 0.0625 - 1 / 64)
    state = settling(settings=SCAN, moved=Pose2(0.1875), nudges=3, ranges=seen, ranges_at=NOW)
    assert status(state, SCAN) == StepStatus.TIMEOUT


def test_a_turn_that_stays_short_is_not_blocked():
    done = result(settling(Action.TURN_LEFT, moved=Pose2(0, 0, 0.1), nudges=3))
    assert done.status == StepStatus.TIMEOUT and "5.7 degrees" in done.message


# Spent


def used(share, whole=1.0):
    return Ledger((whole, whole), (whole - share, whole - share))


@pytest.mark.parametrize(
    ("x", "share", "trusted"),
    [
        (0.25 + 1 / 64, 1.0, True),
        (0.25 + 1 / 64 + 1e-6, 0.95, True),
        (0.25 + 1 / 64 + 1e-6, 0.951, False),
    ],
)
def test_a_step_that_went_too_far_on_nearly_all_of_its_budget_is_not_trusted(x, share, trusted):
    done = result(settling(moved=Pose2(x), ledger=used(share)))
    assert (done.status == StepStatus.SUCCEEDED) == trusted
    assert done.commanded == pytest.approx(share)


def test_a_step_at_its_tolerance_has_not_gone_too_far():
    state = settling(moved=Pose2(0.25 + 1 / 64), ledger=used(1.0), rest=None)
    assert status(replace(state, stopping_since=NOW - 2)) == StepStatus.TIMEOUT


HALT = Sample(ROS, Pose2())


def judged(action=Action.MOVE_FORWARD, moved=START, share=1.0, **changes):
    at = changes.pop("spent", HALT)
    return settling(action, moved=moved, ledger=used(share), spent=at, **changes)


@pytest.mark.parametrize(
    ("action", "moved", "done"),
    [
        (Action.MOVE_FORWARD, Pose2(0.25 - 1 / 64), True),
        (Action.MOVE_FORWARD, Pose2(0.25 + 1 / 64), True),
        (Action.MOVE_FORWARD, Pose2(0.25 - 1 / 64 - 1e-6), False),
        (Action.MOVE_FORWARD, Pose2(0.25 + 1 / 64 + 1e-6), False),
        (Action.TURN_LEFT, Pose2(0, 0, 0.25 + 1 / 64), True),
        (Action.TURN_LEFT, Pose2(0, 0, 0.25 - 1 / 64 - 1e-6), False),
        (Action.TURN_RIGHT, Pose2(0, 0, -0.25 + 1 / 64), True),
        (Action.TURN_RIGHT, Pose2(0, 0, 0.25), False),
    ],
)
def test_a_spent_step_succeeds_within_its_tolerance(action, moved, done):
    state = judged(action, moved, seen=(moved, 1.0))
    told = result(state)
    assert told.status == (StepStatus.SUCCEEDED if done else StepStatus.UNTRUSTED)
    assert tick(state)[0].armed == done and not told.collided


def test_a_spent_step_that_finds_no_standstill_is_not_trusted():
    done = result(judged(moved=Pose2(0.25), rest=None, stopping_since=NOW - 2))
    assert done.status == StepStatus.UNTRUSTED
    assert done.message == "1.00 m commanded, odometry saw 0.25 and no standstill"


@pytest.mark.parametrize(
    ("moved", "stood"),
    [
        (Pose2(0.0149), True),
        (Pose2(0.0151), False),
        (Pose2(0, 0.0151), False),
        (Pose2(0, 0, math.radians(1.49)), True),
        (Pose2(0, 0, -math.radians(1.51)), False),
    ],
)
def test_a_spent_step_of_which_odometry_saw_nothing_is_blocked(moved, stood):
    state = judged(moved=moved, seen=(moved, 1.0))
    done = result(state)
    assert done.status == (StepStatus.BLOCKED if stood else StepStatus.UNTRUSTED)
    assert done.collided == stood and tick(state)[0].armed == stood


@pytest.mark.parametrize(
    ("action", "moved"),
    [
        (Action.MOVE_FORWARD, Pose2(0.125)),
        (Action.TURN_LEFT, Pose2(0, 0, 0.125)),
        (Action.TURN_RIGHT, Pose2(0, 0, -0.125)),
    ],
)
def test_a_spent_step_that_agreed_until_it_stood_met_something(action, moved):
    assert status(judged(action, moved, seen=(moved, 0.125))) == StepStatus.BLOCKED
    assert status(judged(action, moved, seen=(moved, 0.9))) == StepStatus.UNTRUSTED
    back = Pose2(-moved.x, 0, -moved.yaw)
    assert status(judged(action, back, seen=(back, 0.125))) == StepStatus.UNTRUSTED


@pytest.mark.parametrize(
    ("speed", "rate", "doubted"),
    [
        (0.02, 0.05, False),
        (-0.02, -0.05, False),
        (0.021, 0.0, True),
        (-0.021, 0.0, True),
        (0.0, 0.051, True),
        (0.0, -0.051, True),
    ],
)
def test_a_base_that_stood_while_its_twist_moved_is_not_trusted(speed, rate, doubted):
    done = result(judged(spent=Sample(ROS, Pose2(), speed, rate)))
    assert done.status == (StepStatus.UNTRUSTED if doubted else StepStatus.BLOCKED)
    assert ("its twist said" in done.message) == doubted


def test_a_spent_step_of_stale_odometry_is_stale():
    state = judged(moved=Pose2(0.25), odom_at=NOW - 0.3, stopping_since=NOW - 2)
    assert status(state) == StepStatus.STALE


def test_a_step_whose_budget_is_spent_stops_and_remembers_what_odometry_said():
    state = driving(moved=Pose2(0.1), ledger=Ledger((1.0, 1.0), (0.0, 1.0)))
    after, commands = tick(state)
    assert after.phase is Phase.STOPPING and after.spent == state.odom
    assert commands[0] == Drive(0.0, 0.0) and after.stopping_since == NOW


def test_a_step_that_has_arrived_begins_to_stop():
    after, commands = tick(driving(moved=Pose2(0.25), rest=(1.0, 1)))
    assert after.phase is Phase.STOPPING and commands == (Drive(0.0, 0.0), Progress(7, 1.0))
    assert (after.stopping_since, after.rest) == (NOW, None)


# Velocities


def rolling(speed=0.0, rate=0.0, end=START):
    """A second of odometry of a base that comes to ``end`` at a steady pace."""
    return tuple(
        Sample(
            ROS - i * S // 50,
            Pose2(end.x - speed * i / 50, end.y, end.yaw - rate * i / 50),
            speed,
            rate,
        )
        for i in range(50, -1, -1)
    )


def wide(*sent):
    """A ledger that bounds nothing here."""
    return Ledger((9.0, 9.0), (9.0, 9.0), tuple(Sent(*one) for one in sent))


def commanded(state, settings=ALL):
    return next(c for c in tick(state, settings)[1] if isinstance(c, Drive))


@pytest.mark.parametrize("action", [Action.MOVE_FORWARD, Action.TURN_LEFT])
@pytest.mark.parametrize(("late", "latency"), [(0.125, 0.0), (0.0, 0.125), (0.0625, 0.0625)])
def test_what_odometry_cannot_show_yet_counts_as_gone(action, late, latency):
    fast = replace(ALL, speed=2.0, rate=2.0)
    turns = action is Action.TURN_LEFT
    sent = wide(*((NOW - 0.5 + i / 64, 0.5, 0.5) for i in range(32)))
    gone = Pose2(0.0, 0.0, 0.1625) if turns else Pose2(0.1625)
    fresh = driving(action, fast, gone, ledger=wide((NOW - 1 / 64, 0.5, 0.5)))
    before = Pose2(0.0, 0.0, 0.1) if turns else Pose2(0.1)
    old = driving(action, fast, before, ledger=sent, odom_at=NOW - late)
    told = commanded(replace(old, settings=replace(fast, latency=latency)))
    expected = commanded(fresh)
    assert (told.rate if turns else told.speed) == pytest.approx(
        expected.rate if turns else expected.speed
    )


def test_a_command_goes_on_from_the_last_one():
    told = commanded(driving(ledger=wide((NOW - 0.03125, 0.125, 0.0))))
    assert told == Drive(0.125 + 0.5 * 0.03125, 0.0)


def test_after_a_stall_a_command_goes_on_from_what_the_newest_odometry_shows():
    seen = (*rolling(0.1)[:-1], Sample(ROS, Pose2(), 0.09))
    stalled = driving(ledger=wide((NOW - 0.5, 0.3, 0.0)), track=seen)
    assert commanded(stalled).speed == pytest.approx(0.09 + 0.5 * 0.02)
    unknown = replace(stalled, track=seen[-1:])
    assert commanded(unknown).speed == pytest.approx(0.5 * 0.02)


def test_a_step_forward_slows_down_for_what_stands_ahead():
    seen = replace(FREE, clearance=0.25 + 0.0625)
    near = driving(settings=SCAN, ranges=seen, ranges_at=NOW, ledger=wide((NOW - 1 / 64, 0.3)))
    assert commanded(near, SCAN).speed == pytest.approx(math.sqrt(2 * 0.5 * 0.0625))


# The silence test

TRY = replace(ALL, silence_test=True)
MOTIONS = [
    (Action.MOVE_FORWARD, 0, 0.1, 1),
    (Action.TURN_LEFT, 1, 0.3, 1),
    (Action.TURN_RIGHT, 1, 0.3, -1),
]


def trying(action, turns, measured, gone=0.0, last=None, settings=TRY, **changes):
    """In a first step that has gone so far at the pace that odometry shows."""
    end = Pose2(0, 0, gone) if turns else Pose2(gone)
    seen = rolling(rate=measured, end=end) if turns else rolling(measured, end=end)
    last = measured if last is None else last
    sent = wide((NOW - 1 / 64, 0.0, last) if turns else (NOW - 1 / 64, last, 0.0))
    return driving(
        action,
        settings,
        **{"track": seen, "proven": False, "ledger": sent, "moved": end} | changes,
    )


@pytest.mark.parametrize(("action", "turns", "pace", "sign"), MOTIONS)
def test_a_base_that_is_not_proven_is_tried_at_a_slow_pace(action, turns, pace, sign):
    slow = trying(action, turns, 0.0, last=sign * pace)
    told = commanded(slow, TRY)
    assert (told.rate if turns else told.speed) == sign * pace
    for free in (replace(slow, proven=True), replace(slow, settings=ALL)):
        told = commanded(free, TRY)
        assert abs(told.rate if turns else told.speed) > pace


@pytest.mark.parametrize(("action", "turns", "pace", "sign"), MOTIONS)
def test_commands_fall_silent_at_six_tenths_of_the_pace(action, turns, pace, sign):
    begun, commands = tick(trying(action, turns, sign * (0.6 * pace + 1e-6)), TRY)
    assert [type(c) for c in commands] == [Progress] and begun.silent.stamp == ROS
    assert begun.silent[2:][turns] == pytest.approx(sign * 0.6 * pace, abs=1e-5)
    assert begun.silent.pose == begun.odom.pose and not begun.proven
    early, commands = tick(trying(action, turns, sign * (0.6 * pace - 1e-6)), TRY)
    assert isinstance(commands[0], Drive) and early.silent is None


@pytest.mark.parametrize(
    ("action", "turns", "fits", "sign", "pace"),
    [
        (Action.MOVE_FORWARD, 0, 0.055, 1, 0.1),
        (Action.TURN_LEFT, 1, 0.165, 1, 0.3),
        (Action.TURN_RIGHT, 1, 0.165, -1, 0.3),
    ],
)
def test_a_step_whose_rest_is_too_short_for_the_trial_goes_on_without(
    action, turns, fits, sign, pace
):
    for rest, tried in ((fits + 1e-3, True), (fits - 1e-3, False)):
        state = trying(action, turns, sign * pace, sign * (0.25 - rest))
        after, commands = tick(state, TRY)
        assert (after.silent is not None) == tried
        assert any(isinstance(c, Drive) for c in commands) != tried


@pytest.mark.parametrize(("free", "tried"), [(0.056, True), (0.054, False)])
def test_room_ahead_that_is_too_short_for_the_trial_puts_it_off(free, tried):
    settings = replace(TRY, range_source="scan")
    seen = {"ranges": replace(FREE, clearance=0.25 + free), "ranges_at": NOW}
    state = trying(Action.MOVE_FORWARD, 0, 0.1, settings=settings, **seen, last=0.0)
    assert (tick(state, settings)[0].silent is not None) == tried
    turn = trying(Action.TURN_LEFT, 1, 0.3, settings=settings, **seen)
    assert tick(turn, settings)[0].silent is not None  # a turn needs none


@pytest.mark.parametrize(("action", "turns", "pace", "sign"), MOTIONS)
@pytest.mark.parametrize(
    ("share", "seconds", "verdict"),
    [(0.4, 0.1, True), (0.4, 9.0, True), (0.9, 0.55, None), (0.9, 0.56, False)],
)
def test_a_silent_base_is_judged_by_its_own_motion(
    action, turns, pace, sign, share, seconds, verdict
):
    was = (0.0, sign * pace) if turns else (sign * pace, 0.0)
    begun = Sample(ROS - round(seconds * S), Pose2(), *was)
    state = trying(action, turns, sign * share * pace, silent=begun, last=0.0)
    after, commands = tick(state, TRY)
    assert after.proven == (verdict is True) and isinstance(commands[-1], Progress)
    if verdict is None:
        assert len(commands) == 1 and after.silent is begun
    elif verdict:
        assert after.silent is None and commands[0] != Drive(0.0, 0.0)
    else:
        assert after.outcome[0] == StepStatus.UNTRUSTED and not after.armed
        assert "goes on 0.56 s after the last command" in after.outcome[1]
        assert commands[0] == Drive(0.0, 0.0)


# What is left


def test_a_turn_that_stays_short_is_not_blocked_by_what_stands_ahead():
    seen = {"ranges": replace(FREE, clearance=0.1), "ranges_at": NOW}
    short = settling(Action.TURN_LEFT, SCAN, Pose2(0, 0, 0.1), nudges=3, **seen)
    assert status(short, SCAN) == StepStatus.TIMEOUT


def test_a_turn_that_slipped_forward_is_nudged_like_any_other():
    state = settling(Action.TURN_LEFT, moved=Pose2(0.05, 0, 0.1), ledger=used(1.0))
    assert tick(state)[0].phase is Phase.DRIVING


def test_a_spent_step_arms_nobody_and_a_collision_stays_one():
    state = judged(moved=Pose2(0.25), armed=False, collided=True)
    assert result(state).collided and not tick(state)[0].armed
    assert not result(judged(moved=Pose2(0.25))).collided


def test_another_reason_is_told_of_a_spent_step_too():
    state = judged(outcome=(StepStatus.CANCELED, "by the client"))
    assert status(state) == StepStatus.CANCELED


def test_a_stop_without_odometry_says_that_nothing_shows_standstill():
    state, _ = advance(State(active=True), goal(Action.STOP), ALL)
    done = result(state, now=NOW + 1.0)
    assert (done.status, done.moved) == (StepStatus.STALE, Pose2())


def test_a_goal_without_a_heartbeat_waits_and_one_with_it_sets_off():
    waiting, commands = advance(replace(READY, heartbeats=()), goal(), ALL)
    assert waiting.phase is Phase.WAITING and commands == ()
    begun, commands = advance(READY, goal(), ALL)
    assert (begun.phase, begun.since, begun.start) == (Phase.DRIVING, NOW, Pose2())
    assert commands == () and begun.ledger.left[0] == pytest.approx(0.3375)
    discrete = replace(ALL, discrete=True)
    assert advance(READY, goal(Action.TURN_LEFT), discrete)[1] == (Discrete(Action.TURN_LEFT),)
    blocked, commands = advance(replace(READY, cliff=Cliff(NOW, True)), goal(), ALL)
    assert blocked.outcome[0] == StepStatus.BLOCKED and commands == (Drive(0.0, 0.0),)
