"""A graph of its own for one program, in a ROS domain that nobody else on this machine uses."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from janusvln_ros.graph.client import GraphClient
from janusvln_ros.graph.composition import NodeSpec
from janusvln_ros.graph.connection import GraphTimeoutError
from janusvln_ros.graph.processes import Processes, middleware_environment, reserved_domain


@contextlib.contextmanager
def private_graph(
    specs: Sequence[NodeSpec], logs: Path | None, domain: int | None = None, pictures: bool = False
) -> Iterator[tuple[GraphClient, Processes]]:
    """
    Start the nodes, end them when the block is left, and give a client of theirs meanwhile.

    Args:
        specs: the nodes.
        logs: folder for what each of them says; stderr if None.
        domain: the ROS domain; a free one if None.
        pictures: see `GraphClient`.

    Raises:
        InputError: the domain is in use.
        GraphTimeoutError: from the block, with what the nodes said last added to its sentence.
        NodeEndedError: a node ended; from the client's waits.
    """
    with reserved_domain(domain) as free:
        environment = middleware_environment(free, localhost=True)
        with Processes(specs, logs, environment) as processes:
            client = GraphClient(environment, processes.check, pictures)
            try:
                yield client, processes
            except GraphTimeoutError as error:
                words = [f"[{name}] {processes.last_words(name)}" for name in processes.specs]
                said = "\n".join(words)
                raise GraphTimeoutError(f"{error}; what the nodes said last:\n{said}") from error
            finally:
                client.close()
