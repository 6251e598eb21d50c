"""The policy node's state machine: every way an episode goes, without ROS and without a clock."""

import itertools
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.driving import REMEMBERED, Settings, State, advance, no_progress
from janusvln_ros.protocol.exchange import (
    Activate,
    Calibration,
    Cancel,
    CancelGoal,
    ClientHeard,
    Commit,
    Decided,
    Failed,
    Feedback,
    Finish,
    Frame,
    Heard,
    Infer,
    Loading,
    MotionHeard,
    Odometry,
    Phase,
    Publish,
    Resend,
    Reset,
    ResetFailed,
    SendGoal,
    Start,
    StepResult,
    Tick,
    Warn,
)
from janusvln_ros.protocol.odometry import Sample
from janusvln_ros.protocol.status import Code, StepStatus

S = 1_000_000_000


class World:
    """A state machine with a clock: ros time is steady time + 100 s."""

    def __init__(self, **settings):
        self.settings = Settings(**{"settle_time": 0.0, **settings})
        self.now = 0.0
        self.state = State(episode_id=10)
        self.log = []
        self.keys = itertools.count(1)
        self.do(Activate(self.now))

    @property
    def ros(self):
        return round((self.now + 100) * S)

    def do(self, event):
        self.state, commands = advance(self.state, event, self.settings)
        self.log += commands
        return commands

    def only(self, commands, kind):
        found = [c for c in commands if isinstance(c, kind)]
        assert len(found) == 1, (kind, commands)
        return found[0]

    def start(self, text="go", **options):
        key = next(self.keys)
        commands = self.do(Start(self.now, key, text, self.ros, **options))
        return key, commands + self.do(Tick(self.now, self.ros))

    def frame(self, stamp=None):
        return self.do(Frame(self.now, self.ros if stamp is None else stamp, self.ros))

    def decide(self, action=Action.MOVE_FORWARD, ticket=None, text=""):
        return self.do(
            Decided(self.now, self.state.ticket if ticket is None else ticket, action, text)
        )

    def result(
        self, status=StepStatus.SUCCEEDED, dx=0.25, dyaw=0.0, end=None, goal=None, message=""
    ):
        moved, end = Pose2(dx, 0.0, dyaw), self.ros if end is None else end
        goal = goal or self.state.goal
        return self.do(StepResult(self.now, *goal, status, message, end, moved, self.ros))

    def step(
        self,
        action=Action.MOVE_FORWARD,
        status=StepStatus.SUCCEEDED,
        dx=0.25,
        dyaw=0.0,
        seconds=1.0,
    ):
        """One whole step: frame, decision, motion."""
        self.now += 0.01
        self.only(self.frame(), Infer)
        self.only(self.decide(action), SendGoal)
        self.now += seconds
        return self.result(status, dx, dyaw)

    def tick(self, seconds=0.0, ready=True):
        self.now += seconds
        return self.do(Tick(self.now, self.ros, ready))


@pytest.fixture
def world():
    return World()


def test_one_step_goes_from_frame_to_decision_to_motion_to_the_next_frame(world):
    key, commands = world.start("walk to the door")
    assert world.only(commands, Reset) == Reset(11, "walk to the door")
    world.now += 0.1
    infer = world.only(world.frame(), Infer)
    assert infer.frame.stamp == world.ros and world.state.phase is Phase.DECIDING
    commands = world.decide(Action.TURN_LEFT)
    assert world.only(commands, SendGoal) == SendGoal(11, 0, Action.TURN_LEFT, infer.frame.stamp)
    assert world.only(commands, Publish).executed and world.only(commands, Feedback).key == key
    world.now += 1
    assert world.result(dx=0, dyaw=0.26) == () and world.state.phase is Phase.WAIT_FRAME
    assert world.frame(world.ros - 1) == ()  # taken before the motion ended
    assert world.only(world.frame(world.ros), Infer)
    assert world.only(world.decide(Action.STOP), SendGoal).action is Action.STOP
    finish = world.only(world.result(dx=0), Finish)
    assert (finish.key, finish.code, finish.steps) == (
        key,
        Code.NONE,
        2,
    ) and world.state.phase is Phase.IDLE


def test_instruction_is_refused_while_not_active():
    state, commands = advance(State(), Start(0.0, 7, "go", 0), Settings())
    assert (
        commands == (Finish(7, Code.NOT_ACTIVE, "the policy node is not active"),)
        and state == State()
    )


def test_words_that_cannot_be_followed_are_refused_and_disturb_nothing(world):
    world.start()
    world.frame()
    before = world.state
    key, commands = world.start("", problem="the instruction is empty")
    finish = world.only(commands, Finish)
    assert (finish.key, finish.code) == (key, Code.INVALID_INSTRUCTION)
    assert finish.message == "the instruction is empty" and world.state == before


@pytest.mark.parametrize(
    ("stamp", "why"),
    [(0, "zero"), (-5, "zero"), (99 * S, "older"), (103 * S, "future"), (None, "")],
    ids=["zero", "negative", "before the start", "future", "good"],
)
def test_frames_that_may_not_be_used(world, stamp, why):
    world.start()
    commands = world.frame(stamp)
    assert bool(commands) is (why == "") and (not why or why in world.state.refusal[1])


def test_a_frame_that_grew_too_old_is_refused():
    world = World(frame_max_age=0.5)
    world.start()
    stamp = world.ros
    world.now += 0.6
    assert world.frame(stamp) == () and "0.600 s old" in world.state.refusal[1]


def test_frames_wait_for_settle_time_after_the_motion():
    world = World(settle_time=0.3)
    world.start()
    assert world.frame() == ()
    world.now += 0.3
    assert world.frame()


def test_a_stamp_that_does_not_advance_is_not_used_twice(world):
    world.start()
    stamp = world.ros
    world.frame(stamp)
    world.decide()
    world.result(end=stamp)
    assert world.frame(stamp) == () and "does not advance" in world.state.refusal[1]


def test_the_newest_frame_that_came_during_the_motion_is_used_when_its_end_is_known(world):
    world.start()
    world.frame()
    world.decide()
    world.now += 1
    end = world.ros
    world.now += 0.05
    assert world.frame() == ()
    newest = world.ros
    assert world.only(world.result(end=end), Infer).frame.stamp == newest


def test_a_frame_from_the_future_is_used_once_its_time_has_come(world):
    world.start()
    assert world.frame(world.ros + S // 2) == ()
    assert world.only(world.tick(0.45), Infer)


def test_the_client_can_name_the_oldest_frame(world):
    world = World(clock_checks=False)
    world.start(start_stamp=500 * S)
    assert world.frame(499 * S) == ()
    assert world.only(world.frame(500 * S), Infer)


def test_without_clock_checks_only_stamps_count(world):
    world = World(clock_checks=False)
    world.start()
    assert world.only(world.frame(7), Infer)  # 1970, and this node's clock says otherwise
    world.decide()
    world.result(end=9)
    assert world.frame(8) == ()
    assert world.only(world.frame(9), Infer)


def test_no_frame_ends_the_episode_after_the_timeout(world):
    world.start()
    assert world.tick(1.9) == ()
    finish = world.only(world.tick(0.2), Finish)
    assert finish.code == Code.NO_FRAME and "none arrived" in finish.message


def test_frames_that_are_all_refused_end_the_episode_and_the_reason_is_told(world):
    world.start()
    world.frame(0)
    finish = world.only(world.tick(2.1), Finish)
    assert finish.code == Code.NO_FRAME and "stamp is zero" in finish.message


def test_missing_intrinsics_are_told_as_a_bad_frame():
    world = World(camera_info="/camera_info")
    world.start()
    assert world.frame() == ()
    finish = world.only(world.tick(2.1), Finish)
    assert finish.code == Code.BAD_FRAME and "no camera_info on /camera_info" in finish.message


def test_a_frame_that_came_before_its_intrinsics_is_used_when_they_come():
    world = World(camera_info="/camera_info")
    world.start()
    assert world.frame() == ()
    infer = world.only(world.do(Calibration(world.now, "a camera", world.ros)), Infer)
    assert infer.camera == "a camera" and infer.frame.stamp == world.ros


def test_a_frame_of_before_the_deactivation_is_forgotten():
    world = World(clock_checks=False)
    world.start()
    world.frame(5 * S)
    world.decide()
    world.frame(6 * S)
    world.do(Cancel(world.now, None, Code.NOT_ACTIVE, "x", deactivate=True))
    world.result(StepStatus.CANCELED, goal=(11, 0), end=5 * S)
    world.do(Activate(world.now))
    assert not [c for c in world.start()[1] if isinstance(c, Infer)]
    assert world.only(world.frame(7 * S), Infer).frame.stamp == 7 * S


def test_one_bad_frame_is_passed_over(world):
    world.start()
    world.frame()
    assert world.only(
        world.do(Failed(world.now, world.state.ticket, Code.BAD_FRAME, "JPEG cut short")), Publish
    ).failed
    world.now += 0.1
    assert world.only(world.frame(), Infer)
    assert world.only(world.decide(), SendGoal).step == 0


def test_nothing_but_bad_frames_ends_the_episode_with_the_reason(world):
    world.start()
    codes = []
    for _ in range(30):
        world.now += 0.1
        world.frame()
        world.do(Failed(world.now, world.state.ticket, Code.BAD_FRAME, "JPEG cut short"))
        codes += [c.code for c in world.tick() if isinstance(c, Finish)]
    assert codes == [Code.BAD_FRAME]
    # told once, not thirty times
    assert len([c for c in world.log if isinstance(c, Publish)]) == 1


def test_text_that_is_no_action_moves_nothing_and_is_not_stop(world):
    world.start()
    world.frame()
    commands = world.decide(None, text="I am a teapot")
    assert not [c for c in commands if isinstance(c, SendGoal)]
    assert (
        world.only(commands, Finish).code == Code.NOT_UNDERSTOOD
        and "teapot" in world.only(commands, Finish).message
    )
    assert not world.only(commands, Publish).executed


def test_a_failure_of_the_model_ends_the_episode_and_the_next_one_runs(world):
    world.start()
    world.frame()
    assert (
        world.only(
            world.do(
                Failed(world.now, world.state.ticket, Code.INFERENCE_FAILED, "out of memory")
            ),
            Finish,
        ).code
        == Code.INFERENCE_FAILED
    )
    world.start()
    world.now += 0.1
    world.frame()
    assert world.only(world.decide(), SendGoal)


def test_an_instruction_that_the_model_cannot_take_ends_the_episode(world):
    key, _ = world.start()
    assert world.do(ResetFailed(world.now, 3, Code.INVALID_INSTRUCTION, "old")) == ()
    assert (
        world.only(
            world.do(
                ResetFailed(
                    world.now, world.state.episode_id, Code.INVALID_INSTRUCTION, "too long"
                )
            ),
            Finish,
        ).key
        == key
    )


def test_words_that_the_model_cannot_take_change_nothing_of_an_episode_that_is_ending(world):
    key, _ = world.start()
    world.frame()
    world.decide()
    world.do(Cancel(world.now, key, Code.CANCELED, "enough"))
    ending = world.state
    assert ending.phase is Phase.ENDING
    late = ResetFailed(world.now, ending.episode_id, Code.INVALID_INSTRUCTION, "too long")
    assert world.do(late) == () and world.state == ending


def test_inference_that_takes_too_long_ends_the_episode_and_its_answer_is_thrown_away(world):
    world.start()
    world.frame()
    ticket = world.state.ticket
    assert world.only(world.tick(30.1), Finish).code == Code.INFERENCE_FAILED
    assert world.decide(ticket=ticket) == ()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (StepStatus.TIMEOUT, Code.STEP_TIMEOUT),
        (StepStatus.STALE, Code.STALE),
        (StepStatus.DISARMED, Code.DISARMED),
        (StepStatus.REFUSED, Code.UNKNOWN),
        (StepStatus.CANCELED, Code.UNKNOWN),
        (StepStatus.FAILED, Code.UNKNOWN),
        (StepStatus.UNTRUSTED, Code.UNTRUSTED),
    ],
)
def test_step_statuses_that_end_the_episode(world, status, code):
    world.start()
    world.frame()
    world.decide()
    finish = world.only(world.result(status, message="because"), Finish)
    assert finish.code == code and "because" in finish.message


def test_a_blocked_step_is_used_up_and_three_in_a_row_end_the_episode(world):
    world.start()
    world.step(status=StepStatus.BLOCKED, dx=0.0)
    world.step(status=StepStatus.BLOCKED, dx=0.0)
    world.step()  # free again: the count starts anew
    for _ in range(2):
        assert not [
            c for c in world.step(status=StepStatus.BLOCKED, dx=0.0) if isinstance(c, Finish)
        ]
    finish = world.only(world.step(status=StepStatus.BLOCKED, dx=0.0), Finish)
    assert finish.code == Code.BLOCKED and finish.steps == 6


def test_blocked_steps_never_end_an_evaluation():
    world = World(max_blocked=0, progress_window=0)
    world.start()
    for _ in range(50):
        assert not [
            c for c in world.step(status=StepStatus.BLOCKED, dx=0.0) if isinstance(c, Finish)
        ]


def test_step_limit_counts_decisions(world):
    world.start(max_steps=2)
    world.step()
    assert world.only(world.step(), Finish).code == Code.STEP_LIMIT


def test_time_limit_of_the_goal_wins_over_the_configured_one(world):
    world.start(time_limit=1.0)
    assert world.only(world.tick(1.1), Finish).code == Code.TIME_LIMIT


def test_turning_to_and_fro_is_no_progress(world):
    world.start()
    for i in range(11):
        world.step((Action.TURN_LEFT, Action.TURN_RIGHT)[i % 2], dx=0.0, dyaw=0.26 * (-1) ** i)
    assert (
        world.only(world.step(Action.TURN_RIGHT, dx=0.0, dyaw=-0.26), Finish).code
        == Code.NO_PROGRESS
    )


def test_looking_around_once_is_progress_enough(world):
    world.start()
    for _ in range(24):
        assert not [
            c for c in world.step(Action.TURN_LEFT, dx=0.0, dyaw=0.2618) if isinstance(c, Finish)
        ]


def test_many_steps_on_the_spot_are_no_progress():
    world = World(progress_window=8)
    world.start()
    finishes = [
        c
        for i in range(12)
        for c in (world.step(Action.TURN_LEFT, dx=0.0, dyaw=0.26) if world.state.start else ())
        if isinstance(c, Finish)
    ]
    assert [f.code for f in finishes] == [Code.NO_PROGRESS]


def test_path_length_follows_the_reported_motion(world):
    world.start()
    world.step(dx=0.25)
    world.step(Action.TURN_LEFT, dx=0.0, dyaw=1.5708)
    world.step(dx=0.2)
    assert world.state.path == pytest.approx(0.45) and world.state.pose[:2] == pytest.approx(
        (0.25, 0.2), abs=1e-3
    )


def test_cancel_while_deciding_answers_at_once_and_the_decision_never_acts(world):
    key, _ = world.start()
    world.frame()
    ticket, episode_id = world.state.ticket, world.state.episode_id
    assert (
        world.only(world.do(Cancel(world.now, key, Code.CANCELED, "by the client")), Finish).code
        == Code.CANCELED
    )
    assert world.state.episode_id == episode_id + 1
    assert world.decide(ticket=ticket) == ()


def test_cancel_during_a_step_waits_for_standstill(world):
    key, _ = world.start()
    world.frame()
    world.decide()
    goal = world.state.goal
    commands = world.do(Cancel(world.now, key, Code.CANCELED, "by the client"))
    assert commands == (CancelGoal(),) and world.state.episode_id == goal[0] + 1
    assert world.only(world.result(StepStatus.CANCELED, goal=goal), Finish).code == Code.CANCELED


def test_a_motion_server_that_never_answers_the_cancel_does_not_hold_the_client_for_ever(world):
    key, _ = world.start()
    world.frame()
    world.decide()
    world.do(Cancel(world.now, key, Code.CANCELED, "by the client"))
    finish = world.only(world.tick(3.1), Finish)
    assert finish.code == Code.CANCELED and "standstill" in finish.message


def test_the_newest_instruction_wins_and_starts_only_at_standstill(world):
    first, _ = world.start("one")
    world.frame()
    world.decide()
    goal = world.state.goal
    second, commands = world.start("two")
    assert [type(c) for c in commands] == [CancelGoal]
    third, commands = world.start("three")
    assert world.only(commands, Finish) == Finish(
        second, Code.PREEMPTED, "a newer instruction arrived"
    )
    world.now += 0.4
    end = world.ros
    commands = world.result(StepStatus.CANCELED, goal=goal, end=end)
    assert (
        world.only(commands, Finish).key == first
        and world.only(commands, Finish).code == Code.PREEMPTED
    )
    assert world.only(commands, Reset).instruction == "three" and world.state.start.key == third
    world.tick()
    assert world.frame(end - 1) == ()  # still moving when it was taken
    assert world.only(world.frame(end), Infer)


def test_preemption_while_deciding_drops_the_old_decision(world):
    world.start("one")
    world.frame()
    ticket = world.state.ticket
    _, commands = world.start("two")
    assert (
        world.only(commands, Reset).instruction == "two"
        and world.only(commands, Finish).code == Code.PREEMPTED
    )
    assert world.decide(ticket=ticket) == ()


def test_deactivation_stops_the_step_and_refuses_what_waits(world):
    world.start("one")
    world.frame()
    world.decide()
    goal = world.state.goal
    second, _ = world.start("two")
    commands = world.do(Cancel(world.now, None, Code.NOT_ACTIVE, "deactivated", deactivate=True))
    assert world.only(commands, Finish).key == second
    assert (
        world.only(world.result(StepStatus.CANCELED, goal=goal), Finish)
        and world.state.phase is Phase.IDLE
    )
    assert world.only(world.start()[1], Finish).code == Code.NOT_ACTIVE


def test_cancel_of_somebody_elses_goal_changes_nothing(world):
    world.start()
    before = world.state
    assert world.do(Cancel(world.now, 99, Code.CANCELED, "")) == () and world.state == before


def test_results_of_another_step_or_episode_are_ignored(world):
    world.start()
    world.frame()
    world.decide()
    episode_id, step = world.state.goal
    before = world.state
    for goal in [(episode_id, step + 1), (episode_id - 1, step)]:
        assert world.result(goal=goal) == () and world.state == before


def test_an_old_ticket_never_acts(world):
    world.start()
    world.frame()
    old = world.state.ticket
    world.decide()
    world.now += 1
    world.result()
    world.frame()
    assert world.decide(ticket=old) == () and world.state.phase is Phase.DECIDING


def test_no_motion_server_is_told(world):
    world = World()
    world.do(Start(0.0, 1, "go", world.ros))
    assert world.tick(0.1, ready=False) == () and world.state.phase is Phase.WAIT_SERVER
    assert world.only(world.tick(5.0, ready=False), Finish).code == Code.NO_MOTION_SERVER


def test_a_motion_server_that_dies_in_mid_step_is_told(world):
    world.start()
    world.frame()
    world.decide()
    assert world.tick(4.0, ready=False) == ()
    commands = world.tick(2.0, ready=False)
    assert commands == (CancelGoal(),)
    assert world.only(world.tick(3.1, ready=False), Finish).code == Code.NO_MOTION_SERVER


def test_a_step_without_a_result_ends_by_this_nodes_own_deadline(world):
    world.start()
    world.frame()
    world.decide()
    assert world.tick(15.1) == (CancelGoal(),)
    assert world.only(world.tick(3.1), Finish).code == Code.STEP_TIMEOUT


def test_a_lost_lockstep_frame_is_asked_for_again_and_again_until_the_time_is_over():
    world = World(resend_after=0.5, frame_timeout=1.4)
    world.start()
    assert world.tick(0.6) == (Resend(),)
    assert world.tick(0.1) == ()
    assert world.tick(0.5) == (Resend(),)
    assert world.only(world.tick(0.3), Finish).code == Code.NO_FRAME


def test_each_step_has_its_own_count_of_what_was_asked_for_again():
    world = World(resend_after=0.5, frame_timeout=5.0)
    world.start()
    assert world.tick(0.6) == (Resend(),)
    world.frame()
    world.decide()
    world.result()
    assert world.tick(0.6) == (Resend(),)


# An instruction while the model loads


def loading():
    world = World()
    world.do(Cancel(world.now, None, Code.NOT_ACTIVE, "", deactivate=True))
    world.do(Loading(world.now))
    return world


def test_an_instruction_waits_for_the_model_and_begins_when_the_node_is_active():
    world = loading()
    key, commands = world.start()
    assert "taken when it is ready" in world.only(commands, Warn).text
    world.now += 100
    commands = world.do(Activate(world.now))
    assert world.only(commands, Reset) and world.state.start.key == key
    assert world.state.start.now == world.now  # waiting costs none of its time
    assert world.state.phase is Phase.WAIT_SERVER


def test_the_newest_of_those_that_wait_is_taken_and_the_others_are_answered():
    world = loading()
    old, _ = world.start()
    new, commands = world.start()
    assert world.only(commands, Finish).key == old
    assert world.only(commands, Finish).code == Code.PREEMPTED
    world.do(Activate(world.now))
    assert world.state.start.key == new


@pytest.mark.parametrize("client", [True, False])
def test_one_that_waits_can_be_cancelled_and_is_answered_if_the_model_cannot_be_loaded(client):
    world = loading()
    key, _ = world.start()
    cancel = Cancel(world.now, key if client else None, 914, "why", deactivate=not client)
    answer = world.only(world.do(cancel), Finish)
    assert (answer.key, answer.message) == (key, "why")
    world.do(Activate(world.now))
    assert world.state.phase is Phase.IDLE


def test_words_that_cannot_be_followed_are_refused_while_the_model_loads():
    world = loading()
    _, commands = world.start(problem="empty")
    assert world.only(commands, Finish).code == Code.INVALID_INSTRUCTION


# What the model makes of the words


def listen(text):
    """A model that knows "asdf" for noise and doubts whatever has a kitchen in it."""
    if text == "asdf":
        return Heard("noise", ("it names nothing",))
    return Heard("doubtful", ("no kitchens",)) if "kitchen" in text else Heard()


def listening(**settings):
    world = World(**settings)
    world.do(Activate(world.now, listen))
    return world


def test_noise_is_refused_before_anything_begins():
    world = listening()
    before = world.state
    key, commands = world.start("asdf")
    finish = world.only(commands, Finish)
    assert (finish.key, finish.code) == (key, Code.NO_INSTRUCTION) and commands == (finish,)
    assert "'asdf' is no instruction: it names nothing" in finish.message
    assert world.state == before


def test_noise_does_not_end_the_drive_that_is_under_way():
    world = listening()
    key, _ = world.start("go on")
    world.frame()
    world.decide()
    _, commands = world.start("asdf")
    assert world.only(commands, Finish).code == Code.NO_INSTRUCTION
    assert world.state.phase is Phase.MOVING and world.state.start.key == key


def test_what_is_doubtful_is_followed_with_a_warning_in_log_feedback_and_state():
    world = listening()
    _, commands = world.start("to the kitchen")
    assert "no kitchens" in world.only(commands, Warn).text and world.only(commands, Reset)
    world.frame()
    commands = world.decide()
    assert world.only(commands, Feedback).warning == "no kitchens" == world.state.warning
    world.start("go on")
    assert world.state.following.warning == ""


def test_strict_refuses_what_is_doubtful_too():
    world = listening(strict=True)
    finish = world.only(world.start("to the kitchen")[1], Finish)
    assert finish.code == Code.NO_INSTRUCTION
    assert "'to the kitchen' may not be understood: no kitchens" in finish.message
    assert world.only(world.start("asdf")[1], Finish).code == Code.NO_INSTRUCTION
    assert world.only(world.start("go on")[1], Reset)


def test_noise_is_followed_with_a_warning_where_it_is_not_refused():
    world = listening(refuse_noise=False)
    _, commands = world.start("asdf")
    assert world.only(commands, Reset) and "it names nothing" in world.only(commands, Warn).text


def test_a_refused_instruction_quotes_no_more_than_the_beginning():
    world = listening(strict=True)
    finish = world.only(world.start("kitchen " * 400)[1], Finish)
    assert len(finish.message) < 200 and "..." in finish.message


@pytest.mark.parametrize("moving", [True, False])
def test_one_that_waited_for_the_model_is_heard_when_it_is_there(moving):
    world = World()
    if moving:  # the step in flight outlives the deactivation
        world.start("go on")
        world.frame()
        world.decide()
    world.do(Cancel(world.now, None, Code.NOT_ACTIVE, "", deactivate=True))
    world.do(Loading(world.now))
    key, _ = world.start("asdf")
    finish = world.only(world.do(Activate(world.now, listen)), Finish)
    assert (finish.key, finish.code) == (key, Code.NO_INSTRUCTION)
    assert world.state.following is None
    assert world.state.phase is (Phase.ENDING if moving else Phase.IDLE)


# pipeline: settle


@pytest.fixture
def settling():
    return World(pipeline="settle")


def odometry(world, x, speed=0.0, yaw=0.0):
    return world.do(Odometry(world.now, Sample(world.ros, Pose2(x, 0.0, yaw), speed)))


def moving(world):
    odometry(world, 0.0)
    key, _ = world.start()
    world.frame()
    world.decide()
    world.now += 0.9
    return key


def early(world, x=0.245, speed=0.0):
    """A frame near the target, and the odometry of its moment after it."""
    assert not [c for c in world.frame() if isinstance(c, Infer)]
    return odometry(world, x, speed)


@pytest.mark.parametrize(("x", "speed"), [(0.2, 0.0), (0.28, 0.0), (0.25, 0.1)])
def test_no_early_decision_away_from_the_target_or_at_speed(settling, x, speed):
    moving(settling)
    assert early(settling, x, speed) == ()


def test_an_early_frame_waits_for_the_odometry_of_its_moment(settling):
    moving(settling)
    odometry(settling, 0.25)
    settling.now += 0.01
    frame = settling.ros
    assert settling.frame() == ()
    settling.now += 0.01
    assert settling.only(odometry(settling, 0.25), Infer).frame.stamp == frame


def test_frames_that_wait_for_odometry_are_bounded(settling):
    moving(settling)
    for _ in range(3 * REMEMBERED):
        settling.now += 0.001
        settling.frame()
    assert len(settling.state.frames) == REMEMBERED


def test_an_early_decision_counts_if_the_final_pose_agrees(settling):
    moving(settling)
    infer = settling.only(early(settling), Infer)
    assert not infer.commit
    settling.now += 0.2
    assert (
        settling.decide(Action.TURN_LEFT, infer.ticket) == ()
        and settling.state.phase is Phase.MOVING
    )
    settling.now += 0.1
    commands = settling.result(dx=0.25)
    assert isinstance(commands[0], Commit) and settling.only(commands, SendGoal) == SendGoal(
        11, 1, Action.TURN_LEFT, infer.frame.stamp
    )
    assert settling.state.hidden == pytest.approx(0.2)


def test_an_early_decision_still_being_computed_is_waited_for(settling):
    moving(settling)
    infer = settling.only(early(settling), Infer)
    assert settling.result(dx=0.25) == () and settling.state.phase is Phase.DECIDING
    commands = settling.decide(Action.STOP, infer.ticket)
    assert isinstance(commands[0], Commit) and settling.only(commands, SendGoal)


@pytest.mark.parametrize("final", [{"dx": 0.28}, {"dyaw": 0.05}, {"status": StepStatus.BLOCKED}])
def test_an_early_decision_is_thrown_away_if_the_final_pose_disagrees(settling, final):
    moving(settling)
    infer = settling.only(early(settling), Infer)
    settling.decide(Action.TURN_LEFT, infer.ticket)
    settling.now += 0.1
    commands = settling.result(**{"dx": 0.25} | final)
    assert (
        not [c for c in commands if isinstance(c, (Commit, SendGoal))]
        and settling.state.discarded == 1
    )
    settling.now += 0.1
    assert settling.only(settling.frame(), Infer).commit


def test_a_discarded_early_decision_that_returns_late_never_acts(settling):
    moving(settling)
    infer = settling.only(early(settling), Infer)
    settling.result(dx=0.29)
    settling.now += 0.1
    settling.frame()
    assert settling.decide(ticket=infer.ticket) == ()


def test_a_failed_early_decision_leaves_the_frame_after_the_motion(settling):
    moving(settling)
    infer = settling.only(early(settling), Infer)
    settling.do(Failed(settling.now, infer.ticket, Code.BAD_FRAME, "x"))
    settling.now += 0.1
    settling.result()
    assert settling.only(settling.frame(), Infer).commit


def test_cancel_during_an_early_decision_discards_it(settling):
    key = moving(settling)
    infer = settling.only(early(settling), Infer)
    goal = settling.state.goal
    settling.do(Cancel(settling.now, key, Code.CANCELED, ""))
    assert settling.decide(ticket=infer.ticket) == ()
    assert [type(c) for c in settling.result(StepStatus.CANCELED, goal=goal)] == [Finish]


# whatever comes, in whatever order


def events(world):
    now, ros, state = world.now, world.ros, world.state
    goal = state.goal or (state.episode_id, state.step)
    yield Start(now, 5, "go", ros)
    yield Start(now, 6, "", ros, problem="empty")
    yield Cancel(now, None, Code.CANCELED, "x")
    yield Cancel(now, None, Code.NOT_ACTIVE, "x", deactivate=True)
    yield Activate(now)
    yield Loading(now)
    yield Frame(now, ros, ros)
    yield Frame(now, 0, ros)
    yield Calibration(now, "a camera", ros)
    yield Odometry(now, Sample(ros, Pose2(0.25, 0.0, 0.0)))
    yield Odometry(now, Sample(ros, Pose2(0.0, 0.0, 0.1), 0.3))
    for action in (Action.STOP, Action.MOVE_FORWARD, None):
        yield Decided(now, state.ticket, action)
    yield Decided(now, state.ticket - 1, Action.MOVE_FORWARD)
    yield Failed(now, state.ticket, Code.BAD_FRAME, "x")
    yield Failed(now, state.ticket, Code.INFERENCE_FAILED, "x")
    for status in range(8):
        yield StepResult(now, *goal, status, "", ros, Pose2(0.1, 0.0, 0.1), ros)
    yield Tick(now, ros)
    yield Tick(now + 100, ros, False)


@pytest.mark.parametrize("pipeline", ["none", "settle"])
@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_goals_are_of_the_newest_decision_and_everybody_is_answered_once(
    seed, pipeline
):
    import random

    dice = random.Random(seed)
    world = World(
        pipeline=pipeline,
        camera_info="/camera_info",
        frame_timeout=0.5,
        progress_window=3,
        oscillation_steps=2,
    )
    answered, asked, flying = [], [], None
    for i in range(400):
        world.now += dice.choice([0.0, 0.01, 0.2])
        event = dice.choice(list(events(world)))
        if isinstance(event, Start):
            event = replace(event, key=1000 + i)
            asked.append(event.key)
        before = world.state
        for command in world.do(event):
            if isinstance(command, SendGoal):
                assert before.active and flying is None, "a second motion while one is under way"
                assert isinstance(event, Decided) or before.early is not None
                assert (command.episode_id, command.step) == (
                    world.state.episode_id,
                    world.state.step,
                )
                flying = (command.episode_id, command.step)
            if isinstance(command, Finish):
                answered.append(command.key)
        if isinstance(event, StepResult) and flying == (event.episode_id, event.step):
            flying = None
        if world.state.goal is None:
            flying = None
        assert world.state.episode_id >= before.episode_id and world.state.ticket >= before.ticket
        assert (world.state.goal is not None) <= (
            world.state.phase in (Phase.MOVING, Phase.ENDING)
        )
        assert len(world.state.frames) <= (1 if pipeline == "none" else REMEMBERED)
    world.do(Cancel(world.now, None, Code.CANCELED, "the end"))
    world.tick(1000)
    answered += [c.key for c in world.log[-3:] if isinstance(c, Finish) and c.key not in answered]
    assert sorted(answered) == sorted(asked)


def test_codes_are_those_of_the_interface():
    action = pytest.importorskip("janusvln_msgs.action")
    names = [n for n in vars(Code) if n.isupper()]
    assert len(names) == 22 and all(
        getattr(Code, n) == getattr(action.FollowInstruction.Result, n) for n in names
    )
    statuses = [n for n in vars(StepStatus) if n.isupper()]
    assert len(statuses) == 9 and all(
        getattr(StepStatus, n) == getattr(action.ExecuteStep.Result, n) for n in statuses
    )


# exactly at a limit, and beyond it


def late_world(**settings):
    """A machine that has run for a while: what is measured is since when, not what o'clock."""
    world = World(**settings)
    world.now = 64.0
    return world


def test_numbers_that_nobody_chose_are_those_of_the_parameter_file():
    config = Path(__file__).parents[2] / "config" / "policy.yaml"
    told = yaml.safe_load(config.read_text())["/**"]["ros__parameters"]
    told["turn_step"] = math.radians(told["turn_step"])
    numbers = {f.name: f.default for f in fields(Settings) if type(f.default) in (int, float)}
    assert len(numbers) == 19 and numbers == {name: told[name] for name in numbers}


def test_a_machine_that_begins_has_seen_and_done_nothing():
    state = State()
    assert (state.episode_id, state.ticket, state.step, state.steps) == (0, 0, 0, 0)
    assert (state.not_before, state.used, state.resends, state.blocked) == (0, 0, 0, 0)
    assert state.counts == {"hidden_seconds": "0.000", "discarded_decisions": "0"}
    assert state.ending == (0, "")
    assert (state.problem, state.warning, state.motion_at, state.step_at) == (
        "",
        "",
        -math.inf,
        -math.inf,
    )


def waits_for_a_frame(world):
    world.start()


def decides(world):
    world.start()
    world.frame()


def moves(world):
    decides(world)
    world.decide()


def ends(world):
    moves(world)
    world.do(Cancel(world.now, None, Code.CANCELED, "x"))


@pytest.mark.parametrize(
    ("begun", "limit", "code"),
    [
        (waits_for_a_frame, {"frame_timeout": 4.0}, Code.NO_FRAME),
        (waits_for_a_frame, {"time_limit": 4.0, "frame_timeout": 9.0}, Code.TIME_LIMIT),
        (decides, {"inference_timeout": 4.0}, Code.INFERENCE_FAILED),
        (moves, {"step_timeout": 4.0}, Code.STEP_TIMEOUT),
        (ends, {"cancel_timeout": 4.0}, Code.CANCELED),
    ],
)
def test_a_time_out_passes_only_when_it_is_over(begun, limit, code):
    world = late_world(**limit)
    begun(world)
    world.now += 1.0
    assert world.tick(3.0) == () and world.state.start
    commands = world.tick(1 / 64)
    if begun is moves:
        assert commands == (CancelGoal(),) and world.state.ending[0] == code
    else:
        assert world.only(commands, Finish).code == code


@pytest.mark.parametrize("moving", [False, True])
def test_a_server_that_is_not_there_is_waited_for_exactly_as_long_as_told(moving):
    world = late_world(server_timeout=4.0)
    if moving:
        moves(world)
    else:
        world.do(Start(world.now, 1, "go", world.ros))
    assert world.tick(4.0, ready=False) == ()
    commands = world.tick(1 / 64, ready=False)
    ended = world.state.ending[0] if moving else world.only(commands, Finish).code
    assert ended == Code.NO_MOTION_SERVER


def test_the_wait_for_the_first_frame_begins_when_the_server_is_there():
    world = late_world(frame_timeout=4.0)
    world.do(Start(world.now, 1, "go", world.ros))
    world.tick(3.0, ready=False)
    world.tick()
    assert world.tick(4.0) == () and world.tick(1 / 64)


def test_a_frame_is_asked_for_again_only_when_its_time_is_over():
    world = late_world(resend_after=0.5, frame_timeout=5.0)
    world.start()
    assert world.tick(0.5) == () and world.tick(1 / 64) == (Resend(),)
    assert world.tick(0.484375) == () and world.tick(1 / 64) == (Resend(),)


def test_no_frame_is_asked_for_again_unless_told_so_nor_while_something_else_is_done():
    world = late_world()
    world.start()
    assert world.tick(1.5) == ()
    world = late_world(resend_after=0.5)
    decides(world)
    assert world.tick(1.0) == ()


def test_the_answer_tells_steps_seconds_and_metres():
    world = late_world()
    key, _ = world.start()
    for _ in range(2):
        world.now += 1.0
        world.frame()
        world.decide()
        world.result(dx=0.25)
    world.now += 2.0
    answer = world.only(world.do(Cancel(world.now, key, Code.CANCELED, "x")), Finish)
    assert (answer.steps, answer.elapsed, answer.path_length) == (2, 4.0, 0.5)


def test_a_decision_is_told_with_its_step_the_seconds_it_took_and_how_far_the_drive_is():
    world = late_world()
    world.start("go on")
    world.now += 1.0
    world.step()
    world.frame()
    world.now += 0.5
    commands = world.decide(Action.TURN_RIGHT)
    told, progress = world.only(commands, Publish), world.only(commands, Feedback)
    assert (told.episode_id, told.step, told.instruction, told.waited) == (11, 1, "go on", 0.5)
    assert (progress.step, progress.action, progress.path_length) == (1, 3, 0.25)
    assert progress.elapsed == pytest.approx(2.51)
    assert progress.step_status == StepStatus.SUCCEEDED
    world.result(StepStatus.BLOCKED, dx=0.0)
    world.now += 1.0
    world.frame()
    assert world.only(world.decide(None), Feedback).step_status == StepStatus.BLOCKED
    assert world.only(world.log[-3:], Feedback).action == 255


def test_text_that_is_no_action_is_quoted_with_at_most_eighty_characters():
    world = late_world()
    decides(world)
    assert f"{'x' * 80!r}," in world.only(world.decide(None, text="x" * 99), Finish).message


# clients and motion that are heard, or not


@pytest.mark.parametrize("heard", [False, True])
def test_a_client_is_gone_after_more_than_a_second(heard):
    world = late_world()
    world.do(ClientHeard(world.now - 50, 7))
    world.do(ClientHeard(world.now, 8))
    world.do(ClientHeard(world.now if heard else -math.inf, 7))
    world.start(client=7)
    if not heard:
        assert world.only(world.log[-2:], Finish).code == Code.CLIENT_LOST
        return
    assert world.tick(1.0) == ()
    answer = world.only(world.tick(1 / 64), Finish)
    assert answer.code == Code.CLIENT_LOST and "for 1 s" in answer.message


def test_the_last_sixteen_clients_are_remembered_each_once():
    world = late_world()
    for life in (*range(1, 21), 20, 5):
        world.do(ClientHeard(world.now, life))
    assert [heard.life for heard in world.state.clients] == [*range(6, 21), 5]


@pytest.mark.parametrize("told", [None, (11, 7)])
def test_a_step_is_lost_when_motion_has_not_told_of_it_for_more_than_a_second_and_a_half(told):
    world = late_world()
    moves(world)
    world.now += 1.0
    world.do(MotionHeard(world.now, world.state.goal))
    world.do(MotionHeard(world.now + 1.0, told))
    assert world.tick(1.5) == ()
    answer = world.only(world.tick(1 / 64), Finish)
    assert answer.code == Code.NO_MOTION_SERVER and "restarted" in answer.message


def test_a_step_that_motion_has_not_yet_told_of_is_lost_after_a_second_and_a_half():
    world = late_world()
    world.do(MotionHeard(1.0, None))
    moves(world)
    assert world.tick(1.5) == () and world.only(world.tick(1 / 64), Finish)


def test_no_step_is_lost_while_none_is_made():
    world = late_world()
    world.do(MotionHeard(1.0, None))
    decides(world)
    assert world.tick(5.0) == () and world.state.phase is Phase.DECIDING


# what a step has shown


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"dx": 0.05}, False),
        ({"dx": 0.0501}, True),
        ({"dx": -0.0501}, True),
        ({"dx": 0.0, "dyaw": math.radians(3)}, False),
        ({"dx": 0.0, "dyaw": math.radians(3.01)}, True),
        ({"dx": 0.0, "dyaw": -math.radians(3.01)}, True),
    ],
)
def test_a_picture_must_change_after_more_than_five_centimetres_or_three_degrees(change, moved):
    world = late_world()
    moves(world)
    world.now += 1.0
    world.result(**change)
    assert world.only(world.frame(), Infer).moved is moved


def test_the_first_picture_of_an_episode_need_not_differ_from_the_last():
    world = late_world()
    world.start()
    assert world.only(world.frame(), Infer).moved is False


@pytest.mark.parametrize("limit", [1, 2])
def test_blocked_steps_end_the_episode_at_their_limit_and_are_told_with_the_reason(limit):
    world = late_world(max_blocked=limit)
    moves(world)
    commands = world.result(StepStatus.BLOCKED, dx=0.0, message="a chair")
    if limit == 2:
        assert commands == ()
        world.now += 1.0
        world.frame()
        world.decide()
        commands = world.result(StepStatus.BLOCKED, dx=0.0, message="a chair")
    answer = world.only(commands, Finish)
    assert answer.code == Code.BLOCKED
    assert answer.message == f"{limit} steps in a row were blocked: a chair"


def test_a_stop_ends_the_episode_without_words():
    world = late_world()
    decides(world)
    world.decide(Action.STOP)
    assert world.only(world.result(dx=0.0), Finish).message == ""


@pytest.mark.parametrize("rest", [0, 200 * S])
def test_a_frame_after_a_motion_has_settled_exactly(rest):
    world = World(settle_time=0.25, clock_checks=False)
    world.start()
    world.frame(S)
    world.decide()
    if rest:  # the next episode begins where the last motion ended
        world.do(Start(world.now, 9, "two", world.ros))
        world.result(StepStatus.CANCELED, goal=(11, 0), end=rest)
        world.tick()
    else:
        world.result(end=rest)
        rest = S
    first = rest + S // 4
    if rest == S:
        assert world.frame(S) == () and world.frame(S + 1)
        return
    assert world.frame(first - 1) == () and world.only(world.frame(first), Infer)


def test_without_a_clock_of_its_own_any_frame_may_be_the_first():
    world = World(clock_checks=False)
    world.start()
    assert world.state.not_before == 0


def test_after_a_step_a_frame_waits_until_the_robot_stands_still():
    world = World(settle_time=0.25, clock_checks=False)
    world.start()
    world.frame(S)
    world.decide()
    world.result(end=2 * S)
    still = 2 * S + S // 4
    assert world.frame(still - 1) == () and world.only(world.frame(still), Infer)


def test_the_frame_that_a_client_names_does_not_undo_the_wait_for_standstill():
    world = World(settle_time=0.25, clock_checks=False)
    world.start()
    world.frame(S)
    world.decide()
    world.do(Start(world.now, 9, "two", world.ros, start_stamp=300 * S))
    world.result(StepStatus.CANCELED, goal=(11, 0), end=200 * S)
    world.tick()
    assert world.frame(300 * S - 1) == () and world.frame(300 * S)


# no progress

L, R, F = Action.TURN_LEFT, Action.TURN_RIGHT, Action.MOVE_FORWARD


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        ((L, R, L, R), True),
        ((R, L, R, L), True),
        ((F, L, R, L, R), True),
        ((L, R, L), False),
        ((L, R, R, L), False),
        ((L, R, F, R), False),
        ((L, F, L, F), False),
        ((L, L, L, L), False),
    ],
)
def test_turning_to_and_fro_is_a_row_of_nothing_but_left_and_right(turns, told):
    settings = Settings(oscillation_steps=4)
    assert bool(no_progress(State(turns=turns), settings)) is told
    assert no_progress(State(turns=turns), Settings(oscillation_steps=0)) is None


@pytest.mark.parametrize(
    ("trail", "told"),
    [
        ([(9, 9), (1, 1), (1, 1.25), (1.25, 1), (1, 1)], True),
        ([(1, 1), (1, 1.5), (1, 1), (1, 1)], False),  # as far as it must get
        ([(1, 1), (1.5, 1), (1, 1), (1, 1)], False),
        ([(1, 1), (0.5, 1), (1, 1), (1, 1)], False),
        ([(1, 1), (1, 1), (1, 1)], False),  # too few
        ([(1, 1), (1, 1), (1, 1), (1, 1)], True),
        ([(1, 1), (1.4, 1.4), (1, 1), (1, 1)], False),
    ],
)
def test_progress_is_the_farthest_that_the_last_steps_got_from_where_they_began(trail, told):
    state = State(trail=tuple(trail))
    settings = Settings(progress_window=3, progress_distance=0.5)
    assert bool(no_progress(state, settings)) is told
    assert no_progress(state, replace(settings, progress_window=0)) is None


def test_only_as_many_turns_and_places_are_kept_as_are_looked_at():
    world = late_world(progress_window=3, oscillation_steps=4)
    world.start()
    for _ in range(8):
        world.step()
    assert len(world.state.trail) == 4 and len(world.state.turns) == 4
    world = late_world(progress_window=0, oscillation_steps=0)
    world.start()
    for _ in range(8):
        world.step()
    assert len(world.state.trail) == 1 and len(world.state.turns) == 1


def test_the_way_begins_where_the_episode_does():
    world = late_world()
    world.start()
    world.step()
    assert world.state.trail == ((0.0, 0.0), (0.25, 0.0))


# settle: where an early frame counts


@pytest.mark.parametrize(
    ("x", "yaw", "speed", "rate", "asked"),
    [
        (0.0, 0.0, 0.0, 0.0, True),
        (0.04, 0.0, 0.0, 0.0, True),
        (0.0401, 0.0, 0.0, 0.0, False),
        (-0.0001, 0.0, 0.0, 0.0, False),
        (0.02, math.radians(1.49), 0.0, 0.0, True),
        (0.02, math.radians(1.51), 0.0, 0.0, False),
        (0.02, -math.radians(1.51), 0.0, 0.0, False),
        (0.02, 0.0, 0.03, 0.1, True),
        (0.02, 0.0, -0.03, -0.1, True),
        (0.02, 0.0, 0.031, 0.0, False),
        (0.02, 0.0, -0.031, 0.0, False),
        (0.02, 0.0, 0.0, 0.101, False),
        (0.02, 0.0, 0.0, -0.101, False),
    ],
)
def test_an_early_frame_is_within_two_centimetres_and_slow_in_both(x, yaw, speed, rate, asked):
    world = late_world(pipeline="settle", forward_step=0.02)
    moving(world)
    assert world.frame() == ()
    sample = Sample(world.ros, Pose2(x, 0.0, yaw), speed, rate)
    assert bool(world.do(Odometry(world.now, sample))) is asked


@pytest.mark.parametrize(("action", "sign"), [(L, 1), (R, -1)])
def test_an_early_frame_of_a_turn_is_near_the_end_of_that_turn(action, sign):
    for share, asked in ((1.0, True), (0.5, False), (-1.0, False)):
        world = late_world(pipeline="settle")
        odometry(world, 0.0)
        decides(world)
        world.decide(action)
        world.now += 0.9
        world.frame()
        assert bool(odometry(world, 0.0, yaw=share * sign * math.radians(15))) is asked


@pytest.mark.parametrize(
    ("dy", "dyaw", "agrees"),
    [
        (0.02, 0.0, True),
        (0.0201, 0.0, False),
        (-0.0201, 0.0, False),
        (0.0, math.radians(1.5), True),
        (0.0, math.radians(1.51), False),
        (0.0, -math.radians(1.51), False),
        (0.0, math.tau, True),
    ],
)
def test_an_early_decision_counts_within_two_centimetres_and_one_and_a_half_degrees(
    dy, dyaw, agrees
):
    world = late_world(pipeline="settle")
    moving(world)
    infer = world.only(early(world, 0.25), Infer)
    world.decide(L, infer.ticket)
    # a base that drifted to the side by then
    world.state = replace(world.state, early=replace(world.state.early, moved=Pose2(0.25, 0.125)))
    ended = StepResult(
        world.now, 11, 0, 0, "", world.ros, Pose2(0.25, 0.125 + dy, dyaw), world.ros
    )
    ended = replace(ended, status=StepStatus.SUCCEEDED)
    assert bool([c for c in world.do(ended) if isinstance(c, Commit)]) is agrees


def test_no_early_decision_while_stopping_or_where_nobody_knows_where_the_step_began():
    world = late_world(pipeline="settle")
    odometry(world, 0.0)
    decides(world)
    world.decide(Action.STOP)
    world.now += 0.9
    assert world.frame() == () and odometry(world, 0.0) == ()
    world = late_world(pipeline="settle")
    moves(world)
    world.now += 0.9
    assert world.frame() == () and odometry(world, 0.25) == ()


def test_one_early_decision_is_asked_for_at_a_time_and_of_no_frame_that_was_used():
    world = late_world(pipeline="settle", forward_step=0.0)
    moving(world)
    world.do(Frame(world.now, world.state.used, world.ros))
    assert odometry(world, 0.0) == ()
    world.now += 0.01
    world.frame()
    infer = world.only(odometry(world, 0.0), Infer)
    world.now += 0.1
    assert world.frame() == () and odometry(world, 0.0) == ()
    assert world.state.ticket == infer.ticket == world.state.early.ticket == 2


def test_the_seconds_of_an_early_decision_that_are_hidden_are_those_of_the_motion():
    for answered in (True, False):
        world = late_world(pipeline="settle")
        moving(world)
        infer = world.only(early(world), Infer)
        world.now += 0.25
        if answered:
            world.decide(L, infer.ticket)
        world.now += 0.5
        commands = world.result(dx=0.25)
        if not answered:
            world.now += 1.0
            commands = world.decide(L, infer.ticket)
        assert world.only(commands, Publish).waited == (0.0 if answered else 1.0)
        assert world.state.hidden == pytest.approx(0.25 if answered else 0.75)
        assert world.state.early is None and world.state.discarded == 0


def test_what_is_hidden_and_thrown_away_adds_up_and_outlives_the_episode():
    world = late_world(pipeline="settle")
    for i in range(1, 3):
        key = moving(world)
        infer = world.only(early(world), Infer)
        world.do(Failed(world.now, infer.ticket, Code.BAD_FRAME, "x"))
        world.result(dx=0.25)
        world.do(Cancel(world.now, key, Code.CANCELED, "x"))
        assert world.state.discarded == i
        world.now += 1.0
    for i in range(1, 3):
        key = moving(world)
        infer = world.only(early(world), Infer)
        world.now += 0.25
        world.decide(L, infer.ticket)
        goal = (world.state.goal[0], world.state.goal[1] + 1)
        world.result(dx=0.25)
        assert world.state.hidden == pytest.approx(0.25 * i)
        world.do(Cancel(world.now, key, Code.CANCELED, "x"))
        world.result(StepStatus.CANCELED, goal=goal)
        world.now += 1.0
    assert world.state.counts == {"hidden_seconds": "0.500", "discarded_decisions": "2"}


# who is answered when something is called off


def test_the_cancel_of_one_that_waits_answers_it_alone_and_that_of_another_nobody():
    world = late_world()
    moves(world)
    waiting, commands = world.start("two")
    assert commands == (CancelGoal(),)
    before = world.state
    assert world.do(Cancel(world.now, 99, Code.CANCELED, "x")) == () and world.state == before
    answer = world.only(world.do(Cancel(world.now, waiting, Code.CANCELED, "why")), Finish)
    assert (answer.key, answer.code, answer.message) == (waiting, Code.CANCELED, "why")
    assert world.state.following is None and world.state.phase is Phase.ENDING
    ended = world.only(world.result(StepStatus.CANCELED, goal=before.goal), Finish)
    assert ended.code == Code.PREEMPTED and world.state.phase is Phase.IDLE


def test_a_second_cancel_while_the_step_ends_changes_nothing():
    world = late_world()
    ends(world)
    before = world.state
    world.now += 1.0
    assert world.do(Cancel(world.now, None, Code.CANCELED, "again")) == ()
    assert world.state == before


def test_an_instruction_that_waits_begins_when_motion_stays_mute():
    world = late_world(clock_checks=False, settle_time=0.25)
    moves(world)
    waiting, _ = world.start("two")
    world.tick(3.0)
    commands = world.tick(1 / 64)
    assert world.only(commands, Finish).code == Code.PREEMPTED
    assert world.only(commands, Reset).instruction == "two" and world.state.start.key == waiting
    mute = world.ros
    world.tick()
    assert world.frame(mute + S // 4 - 1) == () and world.frame(mute + S // 4)


def test_a_waiting_instruction_is_answered_by_a_newer_one_only_when_there_is_one():
    world = loading()
    _, commands = world.start()
    assert [type(c) for c in commands] == [Warn]
    world = late_world()
    ends(world)
    _, commands = world.start("two")
    assert commands == ()


# bad frames


def test_the_wait_for_a_good_frame_goes_on_from_the_first_bad_one():
    world = late_world(frame_timeout=4.0)
    decides(world)
    for _ in range(3):
        world.do(Failed(world.now, world.state.ticket, Code.BAD_FRAME, "cut short"))
        world.now += 1.0
        world.frame()
    world.do(Failed(world.now, world.state.ticket, Code.BAD_FRAME, "cut short"))
    assert world.state.problem == "cut short" and world.frame(0) == ()
    assert world.state.problem == "cut short"  # says more than that there is no newer one
    assert world.tick(1.0) == ()
    late = world.only(world.tick(1 / 64), Finish)
    assert (late.code, late.message) == (
        Code.BAD_FRAME,
        "no usable frame within 4 s: cut short",
    )


def test_bad_frames_are_told_again_after_a_good_one():
    world = late_world()
    decides(world)
    failed = Failed(world.now, world.state.ticket, Code.BAD_FRAME, "cut short", world.ros)
    assert world.only(world.do(failed), Publish).step == 0
    world.now += 0.5
    world.frame()
    world.decide()
    world.now += 0.5
    world.result()
    assert world.state.problem == ""
    world.frame()
    failed = Failed(world.now, world.state.ticket, Code.BAD_FRAME, "cut short", world.ros)
    assert world.only(world.do(failed), Publish).step == 1
    assert world.state.since == world.now


def test_the_failure_of_another_ticket_or_of_none_changes_nothing():
    world = late_world()
    for begun in (None, decides):
        if begun:
            begun(world)
        before = world.state
        ticket = before.ticket + bool(begun)
        for code in (Code.BAD_FRAME, Code.INFERENCE_FAILED):
            assert world.do(Failed(world.now, ticket, code, "x")) == () and world.state == before


def test_a_frame_that_came_while_a_bad_one_was_read_is_used_at_once():
    world = late_world()
    decides(world)
    world.now += 0.5
    world.frame()
    newest = world.ros
    failed = Failed(world.now, world.state.ticket, Code.BAD_FRAME, "cut short", world.ros)
    assert world.only(world.do(failed), Infer).frame.stamp == newest


# limits of a goal


@pytest.mark.parametrize("own", [False, True])
def test_an_episode_has_as_many_steps_as_its_goal_says_or_else_the_settings(own):
    world = late_world(max_steps=9 if own else 2)
    world.start(max_steps=2 if own else 0)
    world.step()
    answer = world.only(world.step(), Finish)
    assert (answer.code, answer.steps) == (Code.STEP_LIMIT, 2)
    assert answer.message == "2 steps were made without reaching a stop"


def test_a_time_that_ran_out_during_a_step_ends_the_episode_after_it():
    world = late_world(time_limit=4.0)
    moves(world)
    world.now += 4.0
    assert world.result() == ()
    world.frame()
    world.decide()
    world.now += 1 / 64
    assert world.only(world.result(), Finish).code == Code.TIME_LIMIT


# settle: frames and odometry of the past


def test_only_frames_newer_than_the_early_one_are_left_for_after_it():
    world = late_world(pipeline="settle")
    moving(world)
    infer = world.only(early(world, 0.25), Infer)
    for _ in range(2):
        world.now += 0.1
        world.frame()
    world.decide(L, infer.ticket)
    world.result(dx=0.25)
    assert [f.stamp for f in world.state.frames] == [world.ros - S // 10, world.ros]
    assert world.state.used == infer.frame.stamp == world.state.deciding.stamp


def test_an_early_frame_is_looked_for_among_the_newest_twenty():
    world = late_world(pipeline="settle")
    moving(world)
    for _ in range(25):
        world.now += 1 / 1024
        world.frame()
    assert len(world.state.frames) == 20 and world.state.frames[-1].stamp == world.ros


def test_a_frame_whose_odometry_is_missing_leaves_the_one_before_it():
    world = late_world(pipeline="settle")
    moving(world)
    world.frame()
    known = world.ros
    world.now += 0.1
    world.frame()  # odometry ends before it
    sample = Sample(known, Pose2(0.25, 0.0, 0.0))
    infer = world.only(world.do(Odometry(world.now, sample)), Infer)
    assert infer.frame.stamp == known and infer.moved is False


def test_poses_that_move_belie_a_twist_of_standstill_in_early_frames():
    world = late_world(pipeline="settle", forward_step=0.25)
    odometry(world, 0.0)
    decides(world)
    world.decide()
    for i in range(1, 21):
        world.now += 1 / 32
        odometry(world, 0.0125 * i)  # 0.4 m/s, says its odometry's pose
    assert world.frame() == ()
