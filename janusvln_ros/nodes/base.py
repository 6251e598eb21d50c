"""
What the lifecycle nodes share: parameters, start by themselves, answers to goals, diagnostics.

A node is a shell: its callbacks make events of messages, a pure machine of
`janusvln_ros.protocol` decides, and the node carries the commands out.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import String

from janusvln_ros.nodes.messages import diagnostics_message, kept_for_latecomers
from janusvln_ros.nodes.parameters import Param, declare, follow_changes
from janusvln_ros.nodes.running import steady_timer
from janusvln_ros.nodes.wiring import missing_publisher
from janusvln_ros.protocol.health import OK, WARN, Health, InputRate, Lateness
from janusvln_ros.protocol.wiring import NO_TOPIC

RESULTS_KEPT_S = 60
"""Seconds for which the result of a goal can be asked for."""

DISCOVERY_S = 1.0
"""Seconds that publishers have to be discovered before one is said to be missing."""


class ManagedNode(LifecycleNodeMixin, Node, ABC):  # type: ignore[misc]
    """
    A lifecycle node with the parameters of ``table``, among them ``autostart``.

    Subclasses implement ``on_tick``, ``on_goal``, ``cancel_goal``, ``health`` and
    ``apply_parameters``.

    Args:
        name: of the node.
        table: its parameters.
        tick: seconds between calls of ``on_tick``.
        steady: seconds on the steady clock; tests give their own.
        options: of rclpy's node.

    Attributes:
        now: ``steady``: every time-out is measured by it.
        exit_code: with which the process ends; None while it should run.
        values: the parameters by name, kept up to date.
        rates: of the inputs, for diagnostics.
        goals: those that wait for their answer, by key.
        inputs: the topics that it needs, as type, name and quality of service.
        missing: why nothing can arrive on those on which nothing can, by name.
    """

    def __init__(
        self,
        name: str,
        table: Sequence[Param],
        tick: float,
        steady: Callable[[], float] = time.monotonic,
        **options: Any,
    ):
        Node.__init__(self, name, **options)
        # a group of their own: "configure" may take minutes, in which everything else goes on
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        changing: Any  # rclpy's own hints know of no coroutine here
        (changing,) = (s for s in self.services if s.srv_type is ChangeState)
        self._change_state, changing.callback = changing.callback, self._on_change_state
        self.now = steady
        self.exit_code: int | None = None
        self.values = declare(self, table)
        self.rates: dict[str, InputRate] = {}
        self.goals: dict[int, Any] = {}
        self.inputs: list[tuple[Any, str, QoSProfile]] = []
        self.missing: dict[str, str] = {}
        self._keys = 0
        self._lateness = Lateness(tick)
        self._about_out = self.create_publisher(String, "~/about", kept_for_latecomers())
        self._diagnostics_out = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.apply_parameters()
        follow_changes(self, table, self.values, self.apply_parameters)
        steady_timer(self, tick, self._on_tick)
        steady_timer(self, 1.0, self._on_diagnostics)
        steady_timer(self, DISCOVERY_S, self._look_for_publishers)
        self._starting = steady_timer(self, 0.001, self._autostart)

    # for subclasses

    @abstractmethod
    def apply_parameters(self) -> None:
        """Take over ``values``, which are new or have changed."""

    @abstractmethod
    def on_tick(self, now: float) -> None:
        """Look at the time; ``now``: seconds on the steady clock."""

    @abstractmethod
    def on_goal(self, key: int, request: Any, now: float) -> None:
        """Take a goal; it is answered with ``answer(key, ...)``, at once or later."""

    @abstractmethod
    def cancel_goal(self, key: int) -> bool:
        """Return whether the goal can be cancelled, and begin to."""

    @abstractmethod
    def health(self, now: float) -> Health:
        """Return the line about the node's state for ``/diagnostics``."""

    # for both

    def ros_now(self) -> int:
        """Return the node's ROS time in ns: for stamps only."""
        return int(self.get_clock().now().nanoseconds)

    def tell_about(self, about: Mapping[str, str]) -> None:
        """Say what this node's decisions depend on, for whoever records them: ``~/about``."""
        self._about_out.publish(String(data=json.dumps(dict(about))))

    def new_key(self) -> int:
        """Return a number for the next one who asks for something."""
        self._keys += 1
        return self._keys

    def serve(self, kind: Any, name: str) -> None:
        """
        Serve an action.

        A goal's execute callback runs only once its result is known: a coroutine that waits would
        be polled all the time. Refusals are typed results, so every goal is accepted.
        """
        self._server = ActionServer(
            self,
            kind,
            name,
            execute_callback=lambda handle: kind.Result(),
            goal_callback=lambda goal: GoalResponse.ACCEPT,
            handle_accepted_callback=self._on_accepted,
            cancel_callback=self._on_cancel,
            callback_group=ReentrantCallbackGroup(),
            result_timeout=RESULTS_KEPT_S,
        )

    def answer(self, key: int, result: Any, succeeded: bool) -> None:
        """Give the goal ``key`` its result; nothing where nobody waits for one."""
        handle = self.goals.pop(key, None)
        if handle is None:
            return

        def conclude(goal: Any) -> Any:
            cancelled = goal.is_cancel_requested
            end = goal.canceled if cancelled else goal.succeed if succeeded else goal.abort
            end()
            return result

        if handle.status == GoalStatus.STATUS_ACCEPTED:
            handle.execute(conclude)
        else:
            self._server.notify_execute(handle, conclude)

    def _on_accepted(self, handle: Any) -> None:
        # From Lyrical on, feedback leaves only while a goal is executing. rclpy has no such method
        # in Humble, and before 7.1.8 in Jazzy; there it sends feedback always.
        if hasattr(handle, "executing"):
            handle.executing()
        key = self.new_key()
        self.goals[key] = handle
        self.on_goal(key, handle.request, self.now())

    def _on_cancel(self, handle: Any) -> CancelResponse:
        keys = [key for key, goal in self.goals.items() if goal.goal_id == handle.goal_id]
        return CancelResponse.ACCEPT if any(map(self.cancel_goal, keys)) else CancelResponse.REJECT

    def _on_tick(self) -> None:
        now = self.now()
        self._lateness.hit(now)
        self.on_tick(now)

    def _on_diagnostics(self) -> None:
        now = self.now()
        lines = [*(rate.health(now) for rate in self.rates.values()), self._wired()]
        lines.append(self.health(now))
        lines[-1].values["callback_late_max"] = f"{self._lateness.take():.4f}"
        stamp, name = self.get_clock().now().to_msg(), self.get_fully_qualified_name()
        self._diagnostics_out.publish(diagnostics_message(stamp, name, lines))

    def _look_for_publishers(self) -> None:
        """
        Say of which inputs nothing can arrive: once, again when topics of their type turn up, and
        when it is over.
        """
        before, self.missing = self.missing, {}
        for kind, topic, profile in self.inputs:
            why, told = missing_publisher(self, kind, topic, profile), before.get(topic)
            if why is not None:
                self.missing[topic] = why
                if told is None or (told.endswith(NO_TOPIC) and not why.endswith(NO_TOPIC)):
                    self.get_logger().warning(why)
            elif told is not None:
                name = self.resolve_topic_name(topic)
                self.get_logger().info(f"{name} has a publisher now")

    def _wired(self) -> Health:
        """Return the line about the publishers of the inputs."""
        text = "; ".join(self.missing.values()) or "every input has a publisher"
        return Health("inputs", WARN if self.missing else OK, text, dict(self.missing))

    # life cycle

    def _autostart(self) -> None:
        self.destroy_timer(self._starting)
        if self.values.autostart:
            self.start()

    async def _on_change_state(self, request: Any, response: Any) -> Any:
        told = request.transition
        # as rclpy reads it: the label where there is one, else the number
        if told.label == "configure" or (
            not told.label and told.id == Transition.TRANSITION_CONFIGURE
        ):
            await self.prepare()
        try:
            return self._change_state(request, response)
        except RuntimeError as error:
            # Up to Jazzy rclpy raises where the state has no such transition, which ends the node.
            self.get_logger().warning(f"change of state refused: {error}")
            response.success = False
            return response

    def start(self) -> None:
        """Do what a lifecycle manager would (parameter ``autostart``)."""
        self.trigger_configure()

    async def prepare(self) -> None:
        """Wait, while other callbacks go on, for what `on_configure` would have to wait for."""

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Nothing to load."""
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Nothing to let go of."""
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """As deactivation."""
        return self.on_deactivate(state)

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        """A transition raised: say so, and allow to configure again."""
        self.get_logger().error("a lifecycle transition failed")
        return TransitionCallbackReturn.SUCCESS
