"""For every test."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

# no robot and no other machine hears a test
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
# the networks are tiny, and tests and their processes run beside each other
os.environ["OMP_NUM_THREADS"] = "1"

# Started in the background by a shell, a process inherits SIGINT as ignored and so do its
# children: then nothing here would end on Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Chat:
    """
    A language model with random weights and its head, and an episode for it: a prompt, frames of 2
    x 3 fused tokens, a question after each.
    """

    width, grid = 32, (2, 3)
    prompt_ids, question_ids = (1, 2, 3, 4, 5), (43, 44, 45)
    frame_ids = (40, *[41] * 6, 42)

    def __init__(self):
        import torch
        from torch import nn
        from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

        from janusvln_ros.model.memory import FrameWindow

        torch.manual_seed(0)
        rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
        config = Qwen2_5_VLTextConfig(
            vocab_size=50,
            hidden_size=self.width,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            initializer_range=0.4,
            rope_parameters=rope,
            attn_implementation="sdpa",
        )
        self.language = Qwen2_5_VLTextModel(config).eval()
        self.head = nn.Linear(self.width, config.vocab_size, bias=False)
        self.window = FrameWindow(2, 3)

    def frames(self, count, seed=1):
        import torch

        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 6, self.width, generator=generator)

    def empty_memory(self, window=None, leaf_rows=8, before=0, **options):
        from janusvln_ros.model.dual import FrameLayout, SemanticMemory

        layout = FrameLayout(*self.grid, before=before)
        config = self.language.config
        return SemanticMemory(config, window or self.window, layout, leaf_rows, **options)

    def new_memory(self, *args, **options):
        from janusvln_ros.model.dual import read_prompt

        memory = self.empty_memory(*args, **options)
        read_prompt(self.language, memory, self.prompt_ids)
        return memory

    def step(self, memory, fused, question=question_ids, before=(), **tree):
        """Scores of the question's last row and of the tree."""
        from janusvln_ros.model.dual import read_frame

        ids = [*before, *self.frame_ids]
        return self.head(read_frame(self.language, memory, ids, fused, question, **tree)).detach()

    def answer(self, memory, token):
        """Scores of what follows one more token."""
        from janusvln_ros.model.dual import read_answer

        return self.head(read_answer(self.language, memory, token))[0].detach()

    def stream(self, fused, window=None):
        """Scores of the first token of the answer at every step."""
        import torch

        memory, scores = self.new_memory(window), []
        for frame in fused:
            scores.append(self.step(memory, frame)[0])
            memory.commit()
        return torch.stack(scores)


class Bags:
    """
    Small bags of real format: a simulated drive with camera, odometry, instruction and decisions.
    ``types`` are the messages' classes.
    """

    def __init__(self):
        from janusvln_ros.data.bags import message_types

        self.types = message_types().types

    def stamp(self, nanoseconds: int):
        return self.types["builtin_interfaces/msg/Time"](
            sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9
        )

    def header(self, nanoseconds: int, frame: str = "camera"):
        return self.types["std_msgs/msg/Header"](stamp=self.stamp(nanoseconds), frame_id=frame)

    def image(self, nanoseconds: int, value: int = 0, height: int = 12, width: int = 16):
        # vertical stripes, so that no frame counts as blurred; the first pixel tells which frame
        # it is
        data = np.tile(np.array([0, 0, 0, 255, 255, 255], np.uint8), height * width // 2)
        data[:3] = value % 256
        return self.types["sensor_msgs/msg/Image"](
            header=self.header(nanoseconds),
            height=height,
            width=width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * width,
            data=data,
        )

    def camera_info(self, nanoseconds: int, height: int, width: int):
        focal = width / 2 / np.tan(np.radians(79) / 2)
        k = np.array([focal, 0, (width - 1) / 2, 0, focal, (height - 1) / 2, 0, 0, 1])
        roi = self.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return self.types["sensor_msgs/msg/CameraInfo"](
            header=self.header(nanoseconds),
            height=height,
            width=width,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=k,
            r=np.eye(3).ravel(),
            p=np.zeros(12),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )

    def decision(
        self,
        nanoseconds: int,
        step: int,
        action: int,
        episode: int = 1,
        instruction="go to the red door",
    ):
        numbers = dict.fromkeys(
            ("preprocess", "spatial", "vision", "prefill", "decode", "total"), 0.0
        )
        counts = dict.fromkeys(
            ("spatial_frames", "semantic_frames", "memory_capacity", "memory_bytes"), 0
        )
        return self.types["janusvln_msgs/msg/Decision"](
            header=self.header(nanoseconds),
            episode_id=episode,
            step=step,
            instruction=instruction,
            action=action,
            status=0,
            text="",
            error_msg="",
            probabilities=np.full(4, 0.25, np.float32),
            executed=True,
            **numbers,
            **counts,
        )

    def odometry(self, nanoseconds: int, x: float, y: float, yaw: float):
        zero = self.types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
        pose = self.types["geometry_msgs/msg/Pose"](
            position=self.types["geometry_msgs/msg/Point"](x=float(x), y=float(y), z=0.0),
            orientation=self.types["geometry_msgs/msg/Quaternion"](
                x=0.0, y=0.0, z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2))
            ),
        )
        return self.types["nav_msgs/msg/Odometry"](
            header=self.header(nanoseconds, "odom"),
            child_frame_id="base_link",
            pose=self.types["geometry_msgs/msg/PoseWithCovariance"](
                pose=pose, covariance=np.zeros(36)
            ),
            twist=self.types["geometry_msgs/msg/TwistWithCovariance"](
                twist=self.types["geometry_msgs/msg/Twist"](linear=zero, angular=zero),
                covariance=np.zeros(36),
            ),
        )

    def simulate(self, actions, *, pause_s=0.2, error=0.02, seed=0, rate_hz=50, start_ns=10**9):
        """
        Stamps (ns) and poses (x, y, yaw) of a base that executes ``actions`` with smooth speed
        profiles, each a little more than a whole step.
        """
        rng = np.random.default_rng(seed)
        dt = 1 / rate_hz
        x = y = yaw = 0.0
        poses = [(x, y, yaw)]
        for action in actions:
            seconds = 0.9 if action == 1 else 0.6
            profile = np.diff((1 - np.cos(np.linspace(0, np.pi, round(seconds / dt) + 1))) / 2)
            amount = (0.25 if action == 1 else np.radians(15) * (1 if action == 2 else -1)) * (
                1 + error * abs(rng.normal())
            )
            for share in profile:
                if action == 1:
                    x, y = x + share * amount * np.cos(yaw), y + share * amount * np.sin(yaw)
                else:
                    yaw += share * amount
                poses.append((x, y, yaw))
            poses += [(x, y, yaw)] * round(pause_s / dt)
        return [start_ns + round(n * dt * 1e9) for n in range(len(poses))], poses

    def write_drive(
        self,
        path: Path,
        actions,
        instruction="go to the red door",
        camera_hz=30,
        size=(12, 16),
        **drive,
    ) -> Path:
        """A bag of a drive as a user would record it: camera, odometry, instruction."""
        stamps, poses = self.simulate(actions, **drive)
        events = [(s, "/odom", self.odometry(s, *pose)) for s, pose in zip(stamps, poses)]
        events += [
            (s, "/image", self.image(s, n, *size))
            for n, s in enumerate(range(stamps[0], stamps[-1] + 1, 10**9 // camera_hz))
        ]
        events.append((stamps[0], "/camera_info", self.camera_info(stamps[0], *size)))
        if instruction is not None:
            events.append(
                (
                    stamps[0] - 1,
                    "/instruction",
                    self.types["std_msgs/msg/String"](data=instruction),
                )
            )
        from janusvln_ros.data.bags import BagWriter

        with BagWriter(path) as writer:
            for time, topic, message in sorted(events, key=lambda event: event[:2]):
                writer.write_message(topic, time, message)
        return path


@pytest.fixture(scope="session")
def chat():
    return Chat()


@pytest.fixture(scope="session")
def traced():
    """
    A recorder that stands in for a CUDA graph: the operations on tensors of one call, with its
    Python numbers and with the addresses of everything that is not an input. What is computed from
    other tensors alone is not even computed again.
    """
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    def recorder(call, inputs):
        with torch.no_grad():
            for _ in range(2):
                call(*inputs)
            graph = make_fx(call)(*inputs)
        return lambda: graph(*inputs)

    return recorder


@pytest.fixture(scope="session")
def bags():
    return Bags()


@pytest.fixture(scope="session")
def one_house(tmp_path_factory):
    """A data folder with one generated house and two episodes, split val_unseen."""
    from sim_bridge.homes import ensure_split

    folder = tmp_path_factory.mktemp("one_house")
    ensure_split(folder, "val_unseen", homes=1, episodes_per_home=2, jobs=1)
    return folder


@pytest.fixture
def ros_domain():
    """
    A ROS domain that nobody else on this machine uses, nor what another test left behind, held
    until the test ends.
    """
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from janusvln_ros.graph.processes import reserved_domain

    with reserved_domain() as domain:
        yield domain
