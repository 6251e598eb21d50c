"""The policy node while it only watches: it decides on what it sees and sends nothing."""

import itertools
import random
from dataclasses import replace

import pytest

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.choosing import REMEMBERED, Rule
from janusvln_ros.protocol.exchange import (
    Activate,
    Calibration,
    Cancel,
    Decided,
    Failed,
    Feedback,
    Finish,
    Frame,
    Heard,
    Infer,
    Loading,
    Odometry,
    Phase,
    Publish,
    Reset,
    ResetFailed,
    Start,
    StepEnded,
    Tick,
    Warn,
)
from janusvln_ros.protocol.odometry import Sample
from janusvln_ros.protocol.status import Code
from janusvln_ros.protocol.watching import MAX_QUEUE, Settings, State, advance

S = 1_000_000_000


class Watch:
    """A watching machine that looks at every frame, on a pretended clock."""

    def __init__(self, rule=None, active=True):
        self.settings = Settings(rule or Rule("interval", interval_ns=1))
        self.state, self.now, self.log = State(episode_id=10), 0.0, []
        self.keys = itertools.count(1)
        if active:
            self.do(Activate(0.0))

    def do(self, event):
        self.state, commands = advance(self.state, event, self.settings)
        self.log += commands
        return commands

    def start(self, text="go", **options):
        key = next(self.keys)
        return key, self.do(Start(self.now, key, text, 0, **options))

    def frame(self, seconds):
        return self.do(Frame(self.now, round(seconds * S), 0))

    def decide(self, action=Action.MOVE_FORWARD, text=""):
        return self.do(Decided(self.now, self.state.ticket, action, text))

    def said(self, kind):
        return [command for command in self.log if isinstance(command, kind)]


def only(commands, kind):
    found = [c for c in commands if isinstance(c, kind)]
    assert len(found) == 1, (kind, commands)
    return found[0]


@pytest.fixture
def watch():
    made = Watch()
    made.start()
    return made


def test_it_goes_on_after_stop_and_carries_nothing_out(watch):
    for seconds in (5, 6, 7):
        watch.frame(seconds)
        watch.decide(Action.STOP)
    assert [p.step for p in watch.said(Publish)] == [0, 1, 2]
    assert not any(p.executed for p in watch.said(Publish))
    assert {type(c) for c in watch.log} == {Reset, Infer, Publish, Feedback}


def test_every_chosen_frame_is_kept_while_the_model_is_slow(watch):
    for seconds in (5, 6, 7):
        watch.frame(seconds)
    seen = [only(watch.said(Infer), Infer).frame.stamp]
    for _ in range(2):
        seen.append(only(watch.decide(), Infer).frame.stamp)
    assert seen == [5 * S, 6 * S, 7 * S]


def test_text_that_is_no_action_is_published_and_the_watch_goes_on(watch):
    watch.frame(5)
    commands = watch.decide(None, text="hm")
    assert not only(commands, Publish).executed and only(commands, Feedback).action == 255
    assert only(watch.frame(6), Infer)


def test_a_backward_jump_starts_a_new_episode_and_jitter_does_not(watch):
    watch.frame(50)
    watch.decide()
    episode = watch.state.episode_id
    watch.frame(49.5)
    assert watch.state.episode_id == episode
    commands = watch.frame(10)
    assert only(commands, Reset).episode_id == episode + 1 and watch.state.step == 0
    assert only(commands, Infer).frame.stamp == 10 * S


def test_there_are_no_timeouts_of_frames_and_no_time_limit(watch):
    assert [type(c) for c in watch.do(Tick(10_000.0, 0))] == [Warn]
    assert watch.state.phase is Phase.WAIT_FRAME and watch.frame(1)


def quiet(watch, begin, frames, odometry):
    """Six seconds of frames and odometry at these stamps (s), and what is told of it."""
    watch.now = begin
    for tenths in range(60):
        watch.now = begin + tenths / 10
        if frames is not None:
            watch.frame(frames + tenths / 10)
            if watch.state.deciding is not None:
                watch.decide()
        if odometry is not None:
            stamp = round((odometry + tenths / 10) * S)
            watch.do(Odometry(watch.now, Sample(stamp, Pose2(0.001 * tenths, 0.0, 0.0))))
        watch.do(Tick(watch.now, 0))
    return [c.text for c in watch.log if isinstance(c, Warn)]


@pytest.mark.parametrize(
    ("frames", "odometry", "words"),
    [
        (100, None, "no odometry has come"),
        (1_700_000_000, 12, "different clocks"),
        (12, 1_700_000_000, "different clocks"),
        (None, 100, "no frame has come"),
    ],
    ids=["no odometry", "odometry since boot", "frames since boot", "no frames"],
)
def test_a_watch_without_what_it_chooses_by_says_so_within_seconds(frames, odometry, words):
    watch = Watch(Rule("odom"))
    watch.start()
    told = quiet(watch, 0.0, frames, odometry)
    assert len(told) == 1 and words in told[0] and words in watch.state.problem


def test_a_watch_says_nothing_while_the_robot_stands_and_takes_back_what_it_said():
    watch = Watch(Rule("odom"))
    watch.start()
    assert quiet(watch, 0.0, 100, None) and watch.state.problem
    assert len(quiet(watch, 6.0, 106, 106)) == 1 and not watch.state.problem


def test_a_report_on_another_clock_than_the_frames_is_told():
    watch = Watch(Rule("recorded"))
    watch.start()
    watch.do(StepEnded(0.0, 1_700_000_000 * S))
    watch.frame(5)
    watch.decide()
    watch.do(StepEnded(0.0, 1_700_000_000 * S))
    assert "different clocks" in quiet(watch, 0.1, 5.1, None)[-1]


def test_an_instruction_waits_for_the_model_and_a_newer_one_takes_its_place():
    watch = Watch(active=False)
    watch.do(Loading(0.0))
    first, told = watch.start("one")
    assert "taken when it is ready" in only(told, Warn).text
    second, told = watch.start("two")
    assert only(told, Finish) == Finish(first, Code.PREEMPTED, "a newer instruction arrived")
    assert only(watch.do(Activate(60.0)), Reset).instruction == "two"
    assert watch.state.start.key == second and watch.state.start.now == 60.0


def test_an_instruction_that_waits_for_a_model_that_cannot_be_loaded_is_answered():
    watch = Watch(active=False)
    watch.do(Loading(0.0))
    key, _ = watch.start()
    answer = only(
        watch.do(Cancel(1.0, None, Code.NOT_ACTIVE, "no model", deactivate=True)), Finish
    )
    assert (answer.key, answer.message) == (key, "no model")
    assert only(watch.start()[1], Finish).code == Code.NOT_ACTIVE


def listen(text):
    verdicts = {"asdf": "noise", "kitchen": "doubtful"}
    return Heard(verdicts.get(text, "understood"), ("why",) if text in verdicts else ())


def test_noise_is_refused_and_the_watch_goes_on_with_what_it_had():
    watch = Watch()
    watch.do(Activate(0.0, listen))
    key, _ = watch.start("go on")
    noise, commands = watch.start("asdf")
    assert (commands[0].key, commands[0].code) == (noise, Code.NO_INSTRUCTION)
    assert len(commands) == 1 and watch.state.start.key == key


def test_what_is_doubtful_is_watched_with_a_warning_unless_strict():
    watch = Watch()
    watch.do(Activate(0.0, listen))
    _, commands = watch.start("kitchen")
    assert only(commands, Reset) and "why" in only(commands, Warn).text
    watch.frame(1)
    assert only(watch.decide(), Feedback).warning == "why" == watch.state.warning
    watch.settings = replace(watch.settings, strict=True)
    assert only(watch.start("kitchen")[1], Finish).code == Code.NO_INSTRUCTION


def test_one_that_waited_is_heard_when_the_model_is_there():
    watch = Watch(active=False)
    watch.do(Loading(0.0))
    key, _ = watch.start("asdf")
    finish = only(watch.do(Activate(1.0, listen)), Finish)
    assert (finish.key, finish.code) == (key, Code.NO_INSTRUCTION)
    assert watch.state.start is None and watch.state.following is None


def test_a_model_that_takes_too_long_ends_the_watch(watch):
    watch.frame(5)
    assert watch.do(Tick(29.0, 0)) == ()
    assert only(watch.do(Tick(31.0, 0)), Finish).code == Code.INFERENCE_FAILED
    assert watch.decide() == ()


def test_frames_beyond_the_queue_are_counted_and_told(watch):
    for i in range(MAX_QUEUE + 5):
        watch.frame(i + 1)
    assert watch.state.dropped == 4 and watch.state.counts == {"dropped_frames": "4"}
    assert "some were left out" in watch.said(Warn)[0].text


def test_a_row_of_bad_frames_is_told_once_and_the_next_good_one_is_decided_on(watch):
    for seconds in (5, 6, 7):
        watch.frame(seconds)
        watch.do(Failed(watch.now, watch.state.ticket, Code.BAD_FRAME, "cut short"))
    assert only(watch.said(Publish), Publish).failed.message == "cut short"
    watch.frame(8)
    assert only(watch.decide(), Publish).step == 0


def test_a_failure_of_the_model_ends_the_watch_until_the_next_instruction(watch):
    watch.frame(5)
    failed = Failed(watch.now, watch.state.ticket, Code.INFERENCE_FAILED, "out of memory")
    assert only(watch.do(failed), Finish).code == Code.INFERENCE_FAILED
    assert watch.frame(6) == ()
    watch.start()
    assert only(watch.frame(7), Infer)


def test_an_instruction_that_the_model_cannot_take_ends_the_watch(watch):
    current = watch.state.episode_id
    old = ResetFailed(watch.now, current - 1, Code.INVALID_INSTRUCTION, "old")
    assert watch.do(old) == ()
    new = ResetFailed(watch.now, current, Code.INVALID_INSTRUCTION, "too long")
    assert only(watch.do(new), Finish).message == "too long"


def test_an_instruction_is_refused_while_not_active_or_without_content():
    watch = Watch(active=False)
    assert only(watch.start()[1], Finish).code == Code.NOT_ACTIVE
    watch.do(Activate(0.0))
    finish = only(watch.start("", problem="the instruction is empty")[1], Finish)
    assert (finish.code, finish.message) == (Code.INVALID_INSTRUCTION, "the instruction is empty")
    assert watch.state.phase is Phase.IDLE


def test_a_newer_instruction_answers_the_older_and_drops_its_frames(watch):
    for seconds in (5, 6):
        watch.frame(seconds)
    ticket = watch.state.ticket
    _, commands = watch.start("two")
    assert only(commands, Finish).code == Code.PREEMPTED
    assert only(commands, Reset).instruction == "two" and watch.state.queue == ()
    assert watch.do(Decided(watch.now, ticket, Action.STOP)) == ()
    assert only(watch.frame(7), Infer)


def test_deactivation_ends_the_watch_and_nothing_of_before_is_left():
    watch = Watch()
    key, _ = watch.start()
    for seconds in (5, 6):
        watch.frame(seconds)
    finish = only(watch.do(Cancel(0.0, None, Code.NOT_ACTIVE, "x", deactivate=True)), Finish)
    assert finish.key == key and only(watch.start()[1], Finish).code == Code.NOT_ACTIVE
    watch.do(Activate(0.0))
    assert not [c for c in watch.start()[1] if isinstance(c, Infer)]
    assert only(watch.frame(7), Infer).frame.stamp == 7 * S


def test_the_client_can_name_the_oldest_frame():
    watch = Watch()
    watch.start(start_stamp=500 * S)
    assert watch.frame(499) == () and only(watch.frame(500), Infer)


def test_reports_choose_frames_that_came_before_them():
    watch = Watch(Rule("recorded"))
    watch.start()
    watch.frame(1)
    watch.decide()
    assert watch.frame(2) == () and watch.frame(3) == ()
    assert only(watch.do(StepEnded(0.0, 2 * S)), Infer).frame.stamp == 2 * S


def test_odometry_chooses_frames_that_came_before_it():
    watch = Watch(Rule("odom"))
    watch.start()
    watch.do(Odometry(0.0, Sample(0, Pose2())))
    watch.frame(0.1)
    watch.decide()
    assert watch.frame(1) == ()
    moved = Odometry(0.0, Sample(2 * S, Pose2(0.6)))
    assert only(watch.do(moved), Infer).frame.stamp == 1 * S


def events(watch):
    now, state = watch.now, watch.state
    stamp = round(now * S) + 1
    yield Start(now, 5, "go", 0)
    yield Start(now, 6, "", 0, problem="empty")
    yield Cancel(now, None, Code.CANCELED, "x")
    yield Cancel(now, None, Code.NOT_ACTIVE, "x", deactivate=True)
    yield Activate(now)
    yield Calibration(now, "a camera", 0)
    yield Frame(now, stamp, 0)
    yield Frame(now, 0, 0)
    yield Frame(now, stamp // 2, 0)
    yield Odometry(now, Sample(stamp, Pose2(now)))
    yield StepEnded(now, stamp)
    yield Decided(now, state.ticket, Action.STOP)
    yield Decided(now, state.ticket - 1, None)
    yield Failed(now, state.ticket, Code.BAD_FRAME, "x")
    yield Failed(now, state.ticket, Code.INFERENCE_FAILED, "x")
    yield ResetFailed(now, state.episode_id, Code.INVALID_INSTRUCTION, "x")
    yield Tick(now + 100, 0)


@pytest.mark.parametrize("mode", ["recorded", "odom", "interval"])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_everybody_is_answered_once_and_nothing_grows(seed, mode):
    dice, watch = random.Random(seed), Watch(Rule(mode))
    asked = []
    for i in range(400):
        watch.now += dice.choice([0.0, 0.01, 0.2, 2.0])
        event = dice.choice(list(events(watch)))
        if isinstance(event, Start):
            event = replace(event, key=1000 + i)
            asked.append(event.key)
        before = watch.state
        watch.do(event)
        assert watch.state.episode_id >= before.episode_id
        assert watch.state.ticket >= before.ticket
        assert len(watch.state.queue) <= MAX_QUEUE
        assert len(watch.state.choice.waiting) <= REMEMBERED
    watch.do(Cancel(watch.now, None, Code.CANCELED, "the end"))
    assert sorted(finish.key for finish in watch.said(Finish)) == sorted(asked)
    assert {type(c) for c in watch.log} <= {Reset, Infer, Publish, Feedback, Finish, Warn}


# exactly at a limit, and beyond it


def test_a_machine_that_begins_has_seen_nothing():
    state = State()
    assert (state.episode_id, state.ticket, state.step) == (0, 0, 0)
    assert (state.newest, state.used, state.dropped) == (0, 0, 0)
    assert state.phase is Phase.IDLE and state.warning == ""


def late_watch(rule=None):
    """A watch that begins at 64 s of a clock that has run for a while."""
    made = Watch(rule)
    made.now = 64.0
    made.start()
    return made


def test_the_model_may_take_exactly_as_long_as_told():
    watch = late_watch()
    watch.now = 65.0
    watch.frame(5)
    watch.now = 95.0
    assert watch.do(Tick(95.0, 0)) == () and watch.state.able_at == 95.0
    late = only(watch.do(Tick(95.25, 0)), Finish)
    assert (late.code, late.elapsed) == (Code.INFERENCE_FAILED, 31.25)
    assert late.message == "the model took longer than 30 s"


def test_three_seconds_without_a_frame_are_quiet_and_more_are_told_once():
    watch = late_watch()
    assert watch.do(Tick(67.0, 0)) == ()
    assert "no frame has come for 3 s" in only(watch.do(Tick(67.25, 0)), Warn).text
    assert watch.do(Tick(68.0, 0)) == () and "for 3 s" in watch.state.problem
    watch.now = 70.0
    watch.frame(5)
    watch.decide()
    assert watch.do(Tick(73.0, 0)) == () and watch.state.problem == ""
    assert only(watch.do(Tick(73.25, 0)), Warn)


def test_three_seconds_without_odometry_are_quiet_and_more_are_told():
    watch = late_watch(Rule("odom"))
    told = []
    for quarter in range(1, 20):
        watch.now = 64.0 + quarter / 4
        watch.frame(5 + quarter)
        if watch.state.deciding is not None:
            watch.decide()
        told += [watch.now for _ in watch.do(Tick(watch.now, 0))]
    assert told == [67.25]


def test_time_goes_by_without_an_instruction_and_nothing_is_told():
    watch = Watch()
    assert watch.do(Tick(1000.0, 0)) == () and watch.state.problem == ""


def test_sixty_four_chosen_frames_wait_and_each_more_is_left_out():
    watch = late_watch()
    for stamp in range(1, 66):  # one is being decided on
        watch.frame(stamp)
    assert len(watch.state.queue) == 64 and watch.state.dropped == 0 and not watch.said(Warn)
    for dropped in (1, 2):
        watch.frame(65 + dropped)
        assert watch.state.dropped == dropped and len(watch.said(Warn)) == dropped
    assert [only(watch.decide(), Infer).frame.stamp for _ in range(2)] == [2 * S, 3 * S]


def test_a_stamp_goes_back_by_a_second_without_a_new_episode_and_by_more_with_one():
    watch = late_watch()
    watch.frame(50)
    episode = watch.state.episode_id
    assert watch.do(Frame(65.0, 49_000_000_000, 0)) == () and watch.state.newest == 50 * S
    assert watch.state.episode_id == episode
    assert only(watch.do(Frame(66.0, 48_999_999_999, 0)), Reset).episode_id == episode + 1
    assert watch.state.newest == 48_999_999_999
    assert (watch.state.start.now, watch.state.frame_at) == (66.0, 66.0)


@pytest.mark.parametrize("stamp", [0, -5])
def test_a_frame_without_a_stamp_is_no_clock_that_was_set_back(stamp):
    watch = late_watch()
    watch.frame(50)
    episode = watch.state.episode_id
    assert watch.do(Frame(65.0, stamp, 0)) == () and watch.state.episode_id == episode
    assert watch.state.newest == 50 * S


def test_a_clock_may_start_at_one_nanosecond_again():
    watch = late_watch()
    watch.frame(50)
    assert only(watch.do(Frame(65.0, 1, 0)), Infer).frame.stamp == 1


def test_a_bag_that_starts_again_is_watched_whole_though_the_client_named_its_oldest_frame():
    watch = Watch()
    watch.start(start_stamp=40 * S)
    watch.frame(50)
    assert only(watch.frame(10), Infer)


def test_frames_before_the_first_instruction_tell_where_the_clock_is():
    watch = Watch()
    assert watch.frame(50) == () and watch.frame(10) == ()
    assert watch.state.newest == 10 * S
    watch.start()
    assert only(watch.frame(11), Infer) and len(watch.said(Reset)) == 1


def test_a_decision_is_told_with_its_step_and_the_seconds_it_took():
    watch = late_watch()
    for step in range(2):
        watch.now += 1.0
        watch.frame(5 + step)
        watch.now += 0.5
        commands = watch.decide(Action.TURN_RIGHT)
        told, progress = only(commands, Publish), only(commands, Feedback)
        assert (told.episode_id, told.step, told.waited) == (11, step, 0.5)
        assert (progress.step, progress.action, progress.elapsed) == (step, 3, 1.5 * (step + 1))
    watch.now += 1.0
    _, commands = watch.start("another")
    answer = only(commands, Finish)
    assert (answer.steps, answer.elapsed) == (2, 4.0)
    assert only(commands, Reset).episode_id == watch.state.episode_id


def test_an_answer_to_another_ticket_or_to_nothing_changes_nothing():
    watch = late_watch()
    for asked in (False, True):
        if asked:
            watch.frame(5)
        before = watch.state
        wrong = before.ticket + 1 if asked else before.ticket
        assert watch.do(Decided(65.0, wrong, Action.STOP)) == ()
        assert watch.do(Failed(65.0, wrong, Code.INFERENCE_FAILED, "x")) == ()
        assert watch.state == before


def test_bad_frames_are_told_again_after_a_good_one():
    watch = late_watch()
    for stamp, good in ((5, False), (6, True), (7, False), (8, False)):
        watch.frame(stamp)
        if good:
            watch.decide()
        else:
            watch.do(Failed(65.0, watch.state.ticket, Code.BAD_FRAME, "cut short"))
    assert [told.frame.stamp for told in watch.said(Publish)] == [5 * S, 6 * S, 7 * S]


def test_a_failure_is_told_to_the_world_before_the_client():
    watch = late_watch()
    watch.frame(5)
    failed = Failed(66.0, watch.state.ticket, Code.INFERENCE_FAILED, "out of memory")
    assert [type(c) for c in watch.do(failed)] == [Publish, Finish]


@pytest.mark.parametrize("waiting", [False, True])
def test_the_cancel_of_another_key_changes_nothing_and_that_of_its_own_ends_it(waiting):
    watch = Watch(active=not waiting)
    if waiting:
        watch.do(Loading(0.0))
    key, _ = watch.start()
    before = watch.state
    assert watch.do(Cancel(1.0, key + 1, Code.CANCELED, "x")) == () and watch.state == before
    answer = only(watch.do(Cancel(1.0, key, Code.CANCELED, "why")), Finish)
    assert (answer.key, answer.code, answer.message) == (key, Code.CANCELED, "why")
    assert watch.state.start is None and watch.state.following is None
    assert watch.do(Cancel(1.0, key, Code.CANCELED, "why")) == ()


def test_a_watch_goes_on_while_another_instruction_waits_for_a_new_model():
    watch = late_watch()
    watch.do(replace(Cancel(65.0, 99, Code.NOT_ACTIVE, "x"), deactivate=True))
    watch.do(Loading(65.0))
    second, commands = watch.start("two")
    assert only(commands, Warn) and watch.state.following.key == second
    answer = only(watch.do(Cancel(66.0, second, Code.CANCELED, "x")), Finish)
    assert answer.key == second and watch.state.start is not None


def test_words_that_cannot_be_followed_are_refused_while_the_model_loads():
    watch = Watch(active=False)
    watch.do(Loading(0.0))
    _, commands = watch.start("", problem="empty")
    assert only(commands, Finish).code == Code.INVALID_INSTRUCTION
    assert watch.state.following is None


def test_odometry_and_reports_of_before_the_instruction_are_forgotten():
    watch = Watch(Rule("recorded"))
    before = watch.state
    assert watch.do(Odometry(0.0, Sample(1, Pose2()))) == ()
    assert watch.do(StepEnded(0.0, 5)) == () and watch.state == before


def test_the_camera_is_handed_to_the_model():
    watch = late_watch()
    watch.do(Calibration(0.0, "a camera"))
    assert only(watch.frame(5), Infer).camera == "a camera"


def test_a_frame_that_was_used_or_may_not_be_is_passed_over_for_the_next():
    watch = Watch()
    watch.start(start_stamp=6 * S)
    for seconds in (5, 6, 7):
        watch.frame(seconds)
    assert [c.frame.stamp for c in watch.said(Infer)] == [6 * S]
    assert only(watch.decide(), Infer).frame.stamp == 7 * S and watch.state.queue == ()
