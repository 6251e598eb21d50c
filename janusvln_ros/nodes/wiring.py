"""What the ROS graph tells of a node's topics, and subscriptions that hear every publisher."""

from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from janusvln_ros.protocol.wiring import Endpoint, no_publisher

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

MIXES = (
    (ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE),
    (ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE),
    (ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL),
)
"""
Subscriptions that together hear every publisher, repair what was lost of a reliable one, and get
the last word of one that keeps it. A best-effort publisher keeps nothing for late-comers, whatever
it offers.
"""


UNKNOWN_NODE = "_NODE_NAME_UNKNOWN_"
"""What rclpy calls a node whose name has not been discovered."""

COPIES_KNOWN = 64
"""Latest messages of a topic whose copies are told."""


def hear_all(node: Any, kind: Any, topic: str, callback: Callable[[Any, int], None]) -> None:
    """
    Subscribe to every publisher of ``topic``, whatever its quality of service.

    ``callback(message, sent)`` is called once for every message, which may arrive on each of the
    subscriptions; ``sent``: when its publisher says that it was sent, ns on the publisher's clock
    (0: the middleware does not tell, and copies are not told apart).
    """
    heard: deque[int] = deque(maxlen=COPIES_KNOWN)

    def hear(message: Any) -> None:
        callback(message, 0)

    def hear_once(message: Any, info: Any) -> None:
        sent = int(info["source_timestamp"])
        if sent and sent in heard:
            return
        heard.append(sent)
        callback(message, sent)

    # Humble gives callbacks the message alone
    told = hear_once if hasattr(Subscription, "CallbackType") else hear
    # that one of them does not match is meant, and no warning
    silent = SubscriptionEventCallbacks(incompatible_qos=lambda event: None)
    for reliability, durability in MIXES:
        profile = QoSProfile(depth=10, reliability=reliability, durability=durability)
        node.create_subscription(kind, topic, told, profile, event_callbacks=silent)


class Matched:
    """
    A subscription to the newest message of ``topic`` that is reliable as long as every publisher
    is, best effort otherwise: whichever it asks for, no publisher goes unheard. Ask `match` now
    and then.

    For what is larger than a datagram. A driver whose shared memory has no room for it, as without
    a profile, sends it in pieces, of which best effort loses some, and most of them after a reader
    was killed (``benchmarks/after_kill.py``); to a reliable reader it sends those again.
    """

    def __init__(self, node: Any, kind: Any, topic: str, callback: Callable[[Any], None]) -> None:
        self._node, self._kind, self._topic, self._callback = node, kind, topic, callback
        self._reliability = ReliabilityPolicy.BEST_EFFORT
        self._subscription = self._subscribed()

    def _subscribed(self) -> Any:
        profile = QoSProfile(depth=1, reliability=self._reliability)
        return self._node.create_subscription(self._kind, self._topic, self._callback, profile)

    def match(self) -> None:
        """Subscribe anew where publishers offer something else than before."""
        name = self._node.resolve_topic_name(self._topic)
        infos = self._node.get_publishers_info_by_topic(name)
        offered = {info.qos_profile.reliability for info in infos}
        reliable = offered == {ReliabilityPolicy.RELIABLE}
        wanted = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        if offered and wanted != self._reliability:
            self._reliability = wanted
            self._node.destroy_subscription(self._subscription)
            self._subscription = self._subscribed()


def type_name(kind: Any) -> str:
    """``package/msg/Name`` of a message class."""
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"


def listeners_of(node: Any, publisher: Any) -> list[Endpoint]:
    """Who listens on the topic of ``publisher``, as far as ``node`` has discovered."""
    infos = node.get_subscriptions_info_by_topic(publisher.topic_name)
    return [_endpoint(info, _mismatch(publisher.qos_profile, info.qos_profile)) for info in infos]


def speakers_of(node: Any, topic: str) -> list[str]:
    """Full names of the nodes that publish ``topic`` beside ``node``, one for each publisher."""
    infos = node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
    names = [_endpoint(info, "").node for info in infos]
    if (own := node.get_fully_qualified_name()) in names:
        names.remove(own)
    return sorted(names)


def servers_of(node: Any, action: str) -> list[str]:
    """Full names of the nodes that serve ``action`` beside ``node``."""
    return speakers_of(node, f"{action}/_action/status")


def missing_publisher(node: Any, kind: Any, topic: str, profile: QoSProfile) -> str | None:
    """Why a subscription of ``kind`` on ``topic`` will hear nothing, or None."""
    name = node.resolve_topic_name(topic)
    infos = node.get_publishers_info_by_topic(name)
    publishers = [_endpoint(info, _mismatch(info.qos_profile, profile)) for info in infos]
    if no_publisher(name, type_name(kind), publishers, {}) is None:
        return None
    published = {
        other: kinds
        for other, kinds in node.get_topic_names_and_types()
        if node.count_publishers(other)
    }
    return no_publisher(name, type_name(kind), publishers, published)


def _endpoint(info: Any, mismatch: str) -> Endpoint:
    if info.node_name == UNKNOWN_NODE:  # its endpoint was discovered before the node itself
        return Endpoint("a node unknown yet", info.topic_type, mismatch)
    node = f"{info.node_namespace.rstrip('/')}/{info.node_name}"
    return Endpoint(node, info.topic_type, mismatch)


def _mismatch(offered: QoSProfile, asked: QoSProfile) -> str:
    """Why a publisher's offer is less than a subscription asks for; empty: it is not."""
    lacks = []
    if (offered.reliability, asked.reliability) == (
        ReliabilityPolicy.BEST_EFFORT,
        ReliabilityPolicy.RELIABLE,
    ):
        lacks.append("reliable is asked for, best effort offered")
    if (offered.durability, asked.durability) == (
        DurabilityPolicy.VOLATILE,
        DurabilityPolicy.TRANSIENT_LOCAL,
    ):
        lacks.append("transient local is asked for, volatile offered")
    return " and ".join(lacks)
