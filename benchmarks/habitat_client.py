"""
What a picture of Habitat costs beside Habitat itself: client, socket and shared memory, measured
with a server that has its pictures ready.

    python benchmarks/habitat_client.py

Prints milliseconds per picture at each size (of the fastest tenth), through shared memory and
through the socket alone, and fails if 640x480 takes more than 2 ms through shared memory.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sim_bridge import habitat_server, make_env

SIZES = ((224, 168), (320, 240), (640, 480))
PICTURES = 200
LIMIT_MS = 2.0
SCENE = b"glTF" + (2).to_bytes(4, "little") + (24).to_bytes(4, "little")
SCENE += (4).to_bytes(4, "little") + b"JSON{}  "


class Ready:
    """The calls of ``HabitatSimulator`` that are needed, with pictures that need no drawing."""

    def __init__(self, settings, up, gpu):
        shape = int(settings["height"]), int(settings["width"])
        # four channels, of which three are sent, as habitat-sim has them
        self.rgba = np.random.default_rng(0).integers(0, 255, (*shape, 4)).astype(np.uint8)
        self.depth = np.ones(shape, np.float32)

    def versions(self):
        """None."""
        return {}

    def load(self, scene):
        """Nothing is loaded."""
        return {"navmesh": "none"}

    def set_state(self, position, rotation):
        """Every place looks the same."""

    def render(self):
        """The same picture and depth every time."""
        return self.rgba[..., :3], self.depth


def measure(width: int, height: int, shared: bool) -> float:
    """
    Milliseconds from asking for a picture to having it: of the fastest tenth, since whatever else
    runs on the machine is not the client's share.
    """
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "empty.glb"
        scene.write_bytes(SCENE)
        words = [sys.executable, str(Path(__file__).resolve()), "--serve"]
        command = words if shared else [*words, "--socket-only"]
        env = make_env("habitat", scene=scene, command=command, width=width, height=height)
        try:
            env.set_state([0, 0, 0], [0, 0, 0, 1])
            times = []
            for _ in range(PICTURES):
                began = time.perf_counter()
                env.render()
                times.append(1000 * (time.perf_counter() - began))
        finally:
            env.close()
    return statistics.quantiles(times, n=10)[0]


def main() -> int:
    """Print the table; 1 if it is too slow."""
    print(f"{'picture':>10}{'shared memory':>16}{'socket alone':>15}  ms of {PICTURES}")
    for width, height in SIZES:
        fast, slow = measure(width, height, True), measure(width, height, False)
        print(f"{f'{width}x{height}':>10}{fast:16.2f}{slow:15.2f}")
    return int(fast > LIMIT_MS)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        sys.argv.remove("--serve")
        if "--socket-only" in sys.argv:
            sys.argv.remove("--socket-only")
            habitat_server.put_shared = lambda memory, arrays: arrays
        sys.exit(habitat_server.main(Ready))
    sys.exit(main())
