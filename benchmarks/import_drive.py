"""
Import of a continuous drive against the steps that were really made: how many actions come back.

  python benchmarks/import_drive.py --episodes 3

Drives episodes of houses val_unseen in the continuous simulator: the real 'motion' carries out the
expert's steps on noisy, late odometry, the recorder writes a bag, and 'import-bag' cuts it into
steps again from camera and odometry alone. Prints a Markdown table and the total.
"""

import argparse
import difflib
import math
import tempfile
from pathlib import Path

from builtin_interfaces.msg import Time
from janusvln_msgs.msg import Heartbeat
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from janusvln_ros.actions import Action
from janusvln_ros.data.bags import open_bag
from janusvln_ros.data.drive_import import import_drive
from janusvln_ros.data.drives import Topics
from janusvln_ros.data.episodes import Episode, read_episodes, read_ground_truth
from janusvln_ros.data.trajectories import TrajectoryWriter, merge, read_trajectories
from janusvln_ros.graph.client import GraphClient
from janusvln_ros.graph.composition import resolve
from janusvln_ros.graph.processes import Processes, middleware_environment, reserved_domain
from sim_bridge.homes import ensure_split


class BusyError(Exception):
    """The machine was too busy for the watchdogs of 'motion'."""


def drive(data: Path, episode: Episode, actions: list[int], folder: Path) -> list[int]:
    """
    Make one drive and return the actions that ``motion`` carried out; the bag lies in ``folder``.
    """
    given = {
        "mode": "continuous",
        "data_dir": str(data),
        "episode": episode.episode_id,
        "record": "true",
        "bags": str(folder),
    }
    with reserved_domain() as domain:
        environment = middleware_environment(domain, localhost=True)
        bridge = {"image_width": 320, "image_height": 240, "max_steps": 1000}
        # Nobody gives the policy an instruction, or it would drive; so the bag is what the
        # recorder keeps for incidents, long enough for a whole drive.
        # Without step reports it is a drive by hand, which has to be cut by its motion.
        recorder = {"ring": 600.0, "topics": "camera_info,odom"}
        specs = resolve("simulation", given, {"sim_bridge": bridge, "recorder": recorder})
        (folder / "logs").mkdir()
        with Processes(specs, folder / "logs", environment) as processes:
            client = GraphClient(environment, processes.check)
            try:
                client.wait_ready()
                client.wait_recorder("odom")
                client.reset(episode.episode_id)
                client.arm()
                epoch: list[Heartbeat] = []
                client.node.create_subscription(Heartbeat, "policy/heartbeat", epoch.append, 1)
                clock: list[Time] = []
                client.node.create_subscription(
                    Clock, "/clock", lambda message: clock.append(message.clock), 1
                )
                client.until(
                    lambda: bool(epoch and clock),
                    30.0,
                    "policy sends no heartbeat, or the bridge no clock",
                )
                done = []
                for step, action in enumerate(actions):
                    result = client.step(
                        epoch[-1].episode_id, step, Action(action), clock[-1], epoch[-1].life
                    )
                    if result.status == result.SUCCEEDED:
                        done.append(action)
                    elif result.status == result.STALE:
                        raise BusyError(f"step {step}: {result.error_msg}")
                    elif result.status != result.BLOCKED:
                        raise RuntimeError(
                            f"step {step} ended with status {result.status}: {result.error_msg}"
                        )
                client.call(Trigger, "recorder/save_incident", Trigger.Request())
                return done
            finally:
                client.close()


def main() -> None:
    """Drive, import, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path("data"))
    args = parser.parse_args()
    path = ensure_split(args.data, "val_unseen")
    episodes = read_episodes(args.data, "houses", "val_unseen").episodes[: args.episodes]
    truth = read_ground_truth(path.with_name("val_unseen_gt.json.gz"))
    print("| episode | steps | imported | equal |\n|---|---|---|---|")
    right = total = 0
    for episode in episodes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                done = drive(args.data, episode, list(truth[episode.episode_id].actions), folder)
            except BusyError as error:
                print(f"| {episode.episode_id} | left out | {error} | |", flush=True)
                continue
            writer = TrajectoryWriter(folder / "out", "bag")
            (bag_path,) = folder.glob("*.mcap")
            with open_bag(bag_path) as bag:
                # what is compared is kept, however far it drifts
                import_drive(
                    bag,
                    writer,
                    "house",
                    lambda rgb: rgb,
                    Topics(),
                    episode.instruction,
                    max_drift=math.inf,
                )
            writer.close()
            merge(folder / "out")
            (trajectory,) = read_trajectories(folder / "out")
            got = [*trajectory.actions[1:], int(Action.STOP)]
            equal = sum(
                block.size
                for block in difflib.SequenceMatcher(
                    None, done, got, autojunk=False
                ).get_matching_blocks()
            )
            print(f"| {episode.episode_id} | {len(done)} | {len(got)} | {equal} |", flush=True)
            right, total = right + equal, total + max(len(done), len(got))
    equal_share = f"{100 * right / total:.1f} %" if total else "nothing"
    print(f"\n{equal_share} of {total} actions equal")


if __name__ == "__main__":
    main()
