"""
A drive ends when its client is gone, and soon when motion no longer makes its step.
"""

import pytest

from janusvln_ros.actions import Action
from janusvln_ros.geometry import Pose2
from janusvln_ros.protocol.driving import Settings, State, advance
from janusvln_ros.protocol.exchange import (
    Activate,
    Calibration,
    CancelGoal,
    ClientHeard,
    Decided,
    Finish,
    Frame,
    Loading,
    MotionHeard,
    Phase,
    Start,
    StepResult,
    Tick,
)
from janusvln_ros.protocol.status import Code, StepStatus

S = 10**9
CLIENT = 77


class Drive:
    """The driving machine with a camera, and the client and motion while they are told to live."""

    def __init__(self, unattended=False):
        self.settings = Settings(unattended=unattended)
        self.state, self.now, self.finished, self.log = State(), 100.0, [], []
        self.client = self.motion = False
        self.do(Activate(self.now))
        self.do(Calibration(self.now, "camera"))

    @property
    def ros(self):
        return round(self.now * S)

    def do(self, event):
        self.state, commands = advance(self.state, event, self.settings)
        self.log += commands
        self.finished += [c for c in commands if isinstance(c, Finish)]

    def go(self, seconds):
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            if self.client:
                self.do(ClientHeard(self.now, CLIENT))
            if self.motion:
                made = self.state.goal if self.motion == "ours" else None
                self.do(MotionHeard(self.now, made))
            self.do(Tick(self.now, self.ros))

    def start(self, client=CLIENT):
        self.do(Start(self.now, 1, "go", self.ros, client=client))

    def moving(self):
        """In the middle of a step."""
        self.start()
        self.go(0.2)
        self.do(Frame(self.now, self.ros, self.ros))
        self.do(Decided(self.now, self.state.ticket, Action.MOVE_FORWARD))
        assert self.state.phase is Phase.MOVING
        return self


def test_a_drive_whose_client_is_gone_ends_within_two_seconds():
    drive = Drive()
    drive.client = True
    drive.moving()
    drive.go(3.0)
    assert drive.state.phase is Phase.MOVING  # it lives
    drive.client = False
    drive.go(1.1)
    assert drive.state.phase is Phase.ENDING and CancelGoal() in drive.log
    drive.do(StepResult(drive.now, *drive.state.goal, StepStatus.CANCELED, "", drive.ros, Pose2()))
    assert drive.finished[-1].code == Code.CLIENT_LOST


@pytest.mark.parametrize("unattended", [False, True])
def test_a_client_that_is_never_heard_is_as_good_as_gone(unattended):
    drive = Drive(unattended)
    drive.start()
    drive.go(1.1)
    assert drive.finished[-1].code == Code.CLIENT_LOST and drive.state.phase is Phase.IDLE


def test_the_heartbeats_of_another_client_do_not_count():
    drive = Drive()
    drive.client = True
    drive.do(Start(drive.now, 1, "go", drive.ros, client=CLIENT + 1))
    drive.go(1.1)
    assert drive.finished[-1].code == Code.CLIENT_LOST


def test_an_instruction_without_a_client_needs_to_be_allowed():
    drive = Drive()
    drive.start(client=0)
    assert drive.finished[-1].code == Code.UNATTENDED
    assert "unattended:=true" in drive.finished[-1].message
    drive = Drive(unattended=True)
    drive.start(client=0)
    drive.go(1.5)
    assert not drive.finished and drive.state.start is not None


def test_a_client_that_died_while_the_model_was_loaded_gets_no_drive():
    drive = Drive()
    drive.state = State()
    drive.do(Loading(drive.now))
    drive.client = True
    drive.go(0.2)
    drive.start()
    drive.client = False
    drive.go(5.0)
    drive.do(Activate(drive.now))
    drive.go(0.1)
    assert [finish.code for finish in drive.finished] == [Code.CLIENT_LOST]


def test_a_step_that_motion_does_not_make_any_more_ends_the_drive_within_two_seconds():
    drive = Drive()
    drive.client, drive.motion = True, "ours"
    drive.moving()
    drive.go(5.0)
    assert drive.state.phase is Phase.MOVING
    drive.motion = "another"  # it was restarted, and knows of nothing
    drive.go(1.6)
    assert drive.finished[-1].code == Code.NO_MOTION_SERVER and CancelGoal() in drive.log
    assert drive.state.phase is Phase.IDLE


def test_a_motion_that_died_is_told_and_one_that_never_spoke_keeps_its_time_out():
    for spoke in (True, False):
        drive = Drive()
        drive.client, drive.motion = True, spoke and "ours"
        drive.moving()
        drive.motion = False
        drive.go(1.6)
        assert bool(drive.finished) is spoke
