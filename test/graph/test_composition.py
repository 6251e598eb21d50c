"""
Which nodes run together is declared once: 'janusvln up' and the launch files start the same nodes
with the same parameters and remaps.
"""

import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from janusvln_ros.errors import InputError
from janusvln_ros.graph.composition import (
    graph_arguments,
    parse_assignments,
    parse_parameters,
    resolve,
)
from janusvln_ros.graph.processes import (
    NodeEndedError,
    Processes,
    command,
    domain_owners,
    domain_ports,
    launch_prefix,
    reserved_domain,
    signals_held,
)
from sim_bridge.habitat_client import HabitatSettings

ROOT = Path(__file__).resolve().parents[2]
NODES = ("policy", "motion", "player", "recorder", "compressor")
GIVEN = [
    ("simulation", {}),
    ("simulation", {"mode": "continuous", "episode": "1", "namespace": "r1"}),
    ("robot", {"image": "/oakd/rgb"}),
    ("replay", {"bag": "a b"}),
]


def names(graph, **given):
    return [spec.name for spec in resolve(graph, given)]


def by_name(graph, **given):
    return {spec.name: spec for spec in resolve(graph, given)}


def test_lockstep_needs_no_motion_and_continuous_does():
    assert names("simulation") == ["sim_bridge", "policy"]
    assert names("simulation", mode="continuous") == ["sim_bridge", "policy", "motion"]
    assert names("robot") == ["motion", "policy", "recorder"]
    assert names("robot", black_box="false") == ["motion", "policy"]
    assert names("replay", bag="x") == ["policy", "player"]


def test_habitats_settings_have_one_name_in_the_graph_the_node_and_a_rollout():
    pytest.importorskip("rclpy", reason="the node's table is in its ROS file")
    parameters = {
        p.name: p.default for p in importlib.import_module("sim_bridge.bridge_node").PARAMETERS
    }
    for setting in fields(HabitatSettings):
        assert parameters[setting.name] == setting.default
        given = "x y" if isinstance(setting.default, str) else "7"
        spec = by_name("simulation", backend="habitat", **{setting.name: given})["sim_bridge"]
        assert spec.parameters["backend"] == "habitat"
        assert spec.parameters[setting.name] == type(setting.default)(given)


def test_every_parameter_of_every_graph_is_one_that_its_node_declares_with_the_right_type():
    pytest.importorskip("rclpy", reason="the nodes' tables are in their ROS files")
    modules = {node: f"janusvln_ros.nodes.{node}" for node in NODES}
    defaults = {
        node: {p.name: p.default for p in importlib.import_module(module).PARAMETERS}
        for node, module in {**modules, "sim_bridge": "sim_bridge.bridge_node"}.items()
    }
    full = {
        "replay": {"bag": "x", "rate": "2"},
        "simulation": {"seed": "1", "episode": "1", "checkpoint": "x"},
        "robot": {"transport": "raw"},
    }
    for graph, given in full.items():
        for mode in (
            [{"mode": "lockstep"}, {"mode": "continuous"}] if graph == "simulation" else [{}]
        ):
            for spec in resolve(graph, {**given, **mode}):
                for name, value in spec.parameters.items():
                    if name != "use_sim_time":
                        assert type(value) is type(defaults[spec.name][name]), (
                            f"{graph}: {spec.name}.{name} = {value!r}"
                        )


def test_every_parameter_file_of_a_graph_exists():
    assert all(
        path.is_file()
        for graph, given in GIVEN
        for spec in resolve(graph, given)
        for path in spec.files
    )


def test_the_base_timeout_that_motion_is_told_is_the_one_that_the_simulated_base_has():
    shipped = yaml.safe_load((ROOT / "config/sim_bridge.yaml").read_text())["/**"][
        "ros__parameters"
    ]["cmd_vel_timeout"]
    assert (
        by_name("simulation", mode="continuous")["motion"].parameters["base_timeout"]
        == shipped
        <= 0.3
    )


@pytest.mark.parametrize(
    ("lifecycle", "watch", "autostart", "managed"),
    [
        ("", "", None, None),
        ("auto", "", True, None),
        ("external", "", False, None),
        ("nav2", "", False, ["motion", "policy"]),
        ("nav2", "true", False, ["policy"]),
    ],
)
def test_one_argument_puts_the_robot_under_a_lifecycle_manager(
    lifecycle, watch, autostart, managed
):
    specs = resolve("robot", {"lifecycle": lifecycle, "watch": watch})
    ours = [spec for spec in specs if spec.package == "janusvln_ros"]
    led = [spec for spec in ours if spec.name in ("motion", "policy")]
    assert {spec.parameters.get("autostart") for spec in led} == {autostart}
    managers = [spec for spec in specs if spec not in ours]
    assert bool(managers) == bool(managed)
    for spec in managers:
        told = yaml.safe_load(spec.files[0].read_text())["/**"]["ros__parameters"]
        told |= spec.parameters
        assert told["node_names"] == managed and told["bond_timeout"] == 0.0
        assert told["service_timeout"] >= 300 and told["autostart"]
        assert (spec.package, spec.executable) == ("nav2_lifecycle_manager", "lifecycle_manager")


@pytest.mark.parametrize(
    ("part", "compress", "nodes", "managed"),
    [
        ("all", "false", ["motion", "policy", "recorder"], None),
        ("all", "true", ["motion", "compressor", "policy", "recorder"], None),
        ("body", "false", ["motion", "recorder"], ["motion"]),
        ("body", "true", ["motion", "compressor", "recorder"], ["motion"]),
        ("brain", "true", ["policy"], ["policy"]),
    ],
)
def test_body_and_brain_start_on_two_computers(part, compress, nodes, managed):
    given = {"part": part, "compress": compress, "robot": "turtlebot4", "lifecycle": "nav2"}
    *ours, manager = resolve("robot", given)
    assert [spec.name for spec in ours] == nodes
    assert manager.parameters.get("node_names") == managed
    # the compressor sends what the policy takes, and the black box keeps
    assert len({spec.remaps["image"] for spec in ours if "image" in spec.remaps}) == 1


def test_pictures_cross_the_air_as_jpeg_unless_the_user_says_otherwise():
    def transport(**given):
        given = {"robot": "turtlebot4"} | given
        return by_name("robot", **given)["policy"].parameters["image_transport"]

    assert (transport(), transport(part="brain")) == ("raw", "compressed")
    assert transport(part="brain", transport="raw") == "raw"


def test_a_graph_without_any_node_is_refused():
    with pytest.raises(InputError, match=r"starts no node with part:=body, watch:=true"):
        resolve("robot", {"part": "body", "watch": "true"})


def test_a_node_of_another_package_runs_from_where_ros_installs_it(tmp_path, monkeypatch):
    (spec,) = (s for s in resolve("robot", {"lifecycle": "nav2"}) if s.package != "janusvln_ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"nav2_lifecycle_manager.*is not installed"):
        command(spec, tmp_path)
    program = tmp_path / "lib/nav2_lifecycle_manager/lifecycle_manager"
    program.parent.mkdir(parents=True)
    program.write_text("")
    assert command(spec, tmp_path)[0] == str(program)


def test_a_second_simulation_has_clock_transforms_and_frames_of_its_own():
    names = {"clock": "/r1/clock", "tf": "/r1/tf", "frame_prefix": "r1/"}
    specs = by_name("simulation", mode="continuous", namespace="r1", **names)
    assert all(spec.remaps["/clock"] == "/r1/clock" for spec in specs.values())
    bridge = specs["sim_bridge"]
    assert (bridge.remaps["/tf"], bridge.remaps["/tf_static"]) == ("/r1/tf", "/r1/tf_static")
    assert bridge.parameters["frame_prefix"] == "r1/"


def test_a_camera_topic_takes_its_compressed_topic_along():
    assert by_name("robot", image="/oakd/rgb")["policy"].remaps == {
        "image": "/oakd/rgb",
        "image/compressed": "/oakd/rgb/compressed",
    }
    assert by_name("robot")["policy"].remaps == {}


@pytest.mark.parametrize(
    "text", ["007", "1", "true", "null", "a b", 'say "x"', "~", "ü", "1e5", "[1]"]
)
def test_text_reaches_a_node_as_the_same_text(text, tmp_path):
    words = by_name("simulation", episode=text)["sim_bridge"].arguments(tmp_path)
    assert words[-2:] == ["--params-file", str(tmp_path / "sim_bridge.yaml")]
    told = yaml.safe_load((tmp_path / "sim_bridge.yaml").read_text())
    assert told["/sim_bridge"]["ros__parameters"]["episode_id"] == text


@pytest.mark.ros
@pytest.mark.parametrize("namespace", ["", "r1", "/a/b/"])
def test_what_the_command_line_says_wins_over_every_file(namespace, tmp_path):
    rclpy = pytest.importorskip("rclpy")
    robot = tmp_path / "mine.yaml"
    full = f"/{namespace.strip('/')}/motion".replace("//", "/")
    robot.write_text(
        "/**: {ros__parameters: {speed: 0.1}}\n"
        "/**/motion: {ros__parameters: {speed: 0.2, rate: 0.5, range_source: none}}\n"
        f"{full}: {{ros__parameters: {{base_timeout: 0.1}}}}\n"
    )
    given = {"robot": str(robot), "speed": "0.25", "range": "scan", "base_timeout": "0.3"}
    spec = by_name("robot", namespace=namespace, **given)["motion"]
    context = rclpy.Context()
    rclpy.init(args=["motion", *spec.arguments(tmp_path)], context=context)
    node = rclpy.create_node(
        "x",
        context=context,
        allow_undeclared_parameters=True,
        automatically_declare_parameters_from_overrides=True,
    )
    names = ("speed", "range_source", "base_timeout", "rate")
    values = [node.get_parameter(name).value for name in names]
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert values == [0.25, "scan", 0.3, 0.5]


@pytest.mark.parametrize(("graph", "given"), [*GIVEN[:1], *GIVEN[2:]])
def test_strict_is_an_argument_of_every_graph_that_listens(graph, given):
    for said, wanted in (("true", {"strict": True}), ("false", {"strict": False}), ("", {})):
        policy = by_name(graph, **given, strict=said)["policy"].parameters
        assert {k: v for k, v in policy.items() if k == "strict"} == wanted


def test_an_argument_left_empty_leaves_the_parameter_file_alone():
    assert "seed" not in by_name("simulation")["sim_bridge"].parameters
    assert by_name("simulation", seed="7")["sim_bridge"].parameters["seed"] == 7


@pytest.mark.parametrize(
    ("graph", "given", "words"),
    [
        ("drive", {}, "unknown.*simulation"),
        ("simulation", {"speed": "1"}, "no argument 'speed'"),
        ("simulation", {"mode": "both"}, "'both'.*lockstep, continuous"),
        ("simulation", {"seed": "many"}, "'many'.*number"),
        ("replay", {}, "needs the argument 'bag'"),
    ],
)
def test_a_wrong_argument_is_named(graph, given, words):
    with pytest.raises(InputError, match=words):
        resolve(graph, given)


@pytest.mark.parametrize("content", ["a: [", "[1]", "arguments: 3", "arguments: {x: 1"])
def test_a_robots_file_that_is_none_is_named(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(InputError, match=r"mine\.yaml is no (parameter file|YAML)"):
        resolve("robot", {"robot": str(path)})


def test_words_of_the_command_line_are_read_as_launch_reads_them():
    assert parse_assignments(["a:=b:=c", "d:="]) == {"a": "b:=c", "d": ""}
    assert parse_parameters(["sim_bridge.frame_rate:=15.0", "sim_bridge.sliding:=false"]) == {
        "sim_bridge": {"frame_rate": 15.0, "sliding": False}
    }
    for bad in (["a=b"], [":=b"]):
        with pytest.raises(InputError):
            parse_assignments(bad)
    with pytest.raises(InputError, match=r"NODE\.NAME"):
        parse_parameters(["frame_rate:=1"])
    with pytest.raises(InputError, match="no node 'bridge'"):
        resolve("simulation", {}, {"bridge": {"x": 1}})


@pytest.mark.parametrize("graph", ["simulation", "replay"])
def test_the_launch_file_only_names_its_graph(graph):
    text = (ROOT / "launch" / f"{graph}.launch.py").read_text()
    assert f'describe("{graph}")' in text and "Node(" not in text


@pytest.mark.parametrize(("graph", "given"), [g for g in GIVEN if g[0] != "robot"])
def test_launch_starts_the_nodes_that_up_starts(graph, given):
    pytest.importorskip(
        "launch_ros.actions", reason="launch is not on PyPI; this runs where ROS 2 is installed"
    )
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch_ros.actions import Node

    from launch import LaunchContext

    launched = runpy.run_path(str(ROOT / "launch" / f"{graph}.launch.py"))
    described = launched["generate_launch_description"]()
    context = LaunchContext()
    context.launch_configurations.update(given)
    started = []
    for entity in described.entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.visit(context)
        elif isinstance(entity, OpaqueFunction):
            actions = entity.visit(context) or []
            started += [action for action in actions if isinstance(action, Node)]
    assert [(n.node_package, n.node_executable) for n in started] == [
        ("janusvln_ros", s.executable) for s in resolve(graph, given)
    ]
    assert [a.name for a in graph_arguments(graph)] == [
        a.name for a in described.get_launch_arguments()
    ]


@pytest.mark.parametrize(
    ("given", "meant"), [("rnage", "range"), ("base_timout", "base_timeout"), ("my_own", None)]
)
def test_launch_names_the_argument_that_a_misspelt_one_is_like(given, meant, caplog):
    pytest.importorskip(
        "launch_ros.actions", reason="launch is not on PyPI; this runs where ROS 2 is installed"
    )
    from launch.actions import OpaqueFunction
    from launch.logging import get_logger

    from launch import LaunchContext

    launched = runpy.run_path(str(ROOT / "launch" / "robot.launch.py"))
    context = LaunchContext()
    context.launch_configurations[given] = "scan"
    hear, *_ = (
        entity
        for entity in launched["generate_launch_description"]().entities
        if isinstance(entity, OpaqueFunction)
    )
    logger = get_logger("launch")
    logger.addHandler(caplog.handler)
    hear.visit(context)
    logger.removeHandler(caplog.handler)
    said = caplog.text
    assert (f"no argument '{given}': did you mean {meant}:=?" in said) is (meant is not None)
    assert ("did you mean" in said) is (meant is not None)


# processes


def script(code):
    return [sys.executable, "-c", code]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)


def test_stopping_ends_even_a_process_that_ignores_signals_and_its_children(tmp_path):
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, "
        "signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; "
        "time.sleep(600)']).pid, flush=True); time.sleep(600)"
    )
    with Processes([], tmp_path, dict(os.environ)) as processes:
        processes.start("stubborn", script(code))
        until(
            lambda: (
                len((tmp_path / "stubborn.log").read_text().splitlines()) == 2 + code.count("\n")
            )
        )
        pids = [
            processes.running["stubborn"].pid,
            int((tmp_path / "stubborn.log").read_text().splitlines()[-1]),
        ]
        assert all(alive(pid) for pid in pids)
    until(lambda: not any(alive(pid) for pid in pids))


def test_a_node_that_ends_is_told_of_with_its_sentence(tmp_path):
    with Processes([], tmp_path, dict(os.environ)) as processes:
        processes.start(
            "policy",
            script(
                "import sys; print('noise'); print('error: checkpoint x is not "
                "there'); sys.exit(2)"
            ),
        )
        with pytest.raises(
            NodeEndedError,
            match=r"'policy' ended with exit code 2.*\nerror: checkpoint x is not there",
        ) as told:
            until(processes.check)
        assert "noise" not in str(told.value)


def test_the_log_of_a_node_that_is_started_again_keeps_its_life_before(tmp_path):
    with Processes([], tmp_path, dict(os.environ)) as processes:
        for words in ("print('error: of the first')", "print('the second')"):
            processes.start("policy", script(words))
            processes.running["policy"].wait()
        assert "error: of the first" in (tmp_path / "policy.log").read_text()
        assert processes.last_words("policy") == "the second"


def test_a_killed_node_is_told_of_with_its_last_lines_and_the_signal(tmp_path):
    with Processes([], tmp_path, dict(os.environ)) as processes:
        processes.start(
            "motion", script("import os; print('step 3', flush=True); os.kill(os.getpid(), 9)")
        )
        with pytest.raises(NodeEndedError, match=r"killed by SIGKILL(.|\n)*step 3"):
            until(processes.check)


def test_nodes_do_not_outlive_a_parent_that_was_killed(tmp_path):
    code = (
        "import os, pathlib, sys, time\n"
        "from janusvln_ros.graph.processes import Processes\n"
        f"with Processes([], pathlib.Path({str(tmp_path)!r}), dict(os.environ)) as p:\n"
        "    p.start('child', [sys.executable, '-c', 'import time; "
        "time.sleep(600)']); print(p.running['child'].pid, flush=True); "
        "time.sleep(600)"
    )
    parent = subprocess.Popen(script(code), stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    until(lambda: not alive(child))


# domains


def test_two_holders_get_two_domains_and_give_them_back():
    with reserved_domain() as first, reserved_domain() as second:
        assert first != second
        with pytest.raises(InputError, match=f"domain {first} is in use"), reserved_domain(first):
            pass
    with reserved_domain(first):
        pass


def test_a_domain_whose_port_somebody_has_open_is_in_use():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        with reserved_domain() as free:
            taken.bind(("127.0.0.1", domain_ports(free)[10]))
        assert os.getuid() in domain_owners(free)
        with (
            pytest.raises(InputError, match=f"domain {free} is in use.*user id {os.getuid()}"),
            reserved_domain(free),
        ):
            pass
        with reserved_domain() as other:
            assert other != free


def test_shared_memory_of_another_user_makes_a_domain_theirs(tmp_path, monkeypatch):
    (tmp_path / f"fastrtps_port{domain_ports(77)[11]}").write_text("")
    assert domain_owners(77, tmp_path, tmp_path) == set()
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert domain_owners(77, tmp_path, tmp_path) == {mine}


@pytest.mark.parametrize("domain", [-1, 102, 5000])
def test_a_domain_out_of_range_is_refused(domain):
    with pytest.raises(InputError, match="out of range"), reserved_domain(domain):
        pass


def test_up_lists_the_nodes_without_starting_them():
    done = subprocess.run(
        script("import sys; from janusvln_ros.cli.main import main; sys.exit(main(sys.argv[1:]))")
        + ["up", "simulation", "--json", "mode:=continuous"],
        capture_output=True,
        text=True,
        check=True,
    )
    nodes = json.loads(done.stdout)["nodes"]
    assert [node["name"] for node in nodes] == names("simulation", mode="continuous")
    assert all(node["executable"] == f"janusvln_{node['name']}" for node in nodes)


def test_the_lock_of_a_domain_lies_in_a_folder_that_is_nobody_elses(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = tmp_path / f"janusvln-{os.getuid()}"
    with reserved_domain() as domain:
        lock = own / f"ros-domain-{domain}.lock"
        assert own.stat().st_mode & 0o777 == 0o700 and lock.stat().st_mode & 0o777 == 0o600
    own.chmod(0o755)
    with pytest.raises(InputError, match="not a folder of yours alone"), reserved_domain():
        pass


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o700)
    own = tmp_path / f"janusvln-{os.getuid()}"
    own.symlink_to(precious)
    with pytest.raises(InputError, match="not a folder of yours alone"), reserved_domain():
        pass
    own.unlink()
    own.mkdir(mode=0o700)
    for domain in range(60, 80):
        (own / f"ros-domain-{domain}.lock").symlink_to(precious / "made")
    with pytest.raises(OSError), reserved_domain():
        pass
    assert not list(precious.iterdir())


@pytest.mark.parametrize(
    ("chosen", "before"),
    [
        ({}, {"motion": "held", "policy": "held"}),
        ({"launch-prefix": "chrt --rr 50"}, {"motion": "chrt --rr 50", "policy": "chrt --rr 50"}),
        (
            {"launch-prefix": "chrt --rr 50", "launch-prefix-filter": ".*motion"},
            {"motion": "chrt --rr 50", "policy": "held"},
        ),
        # matched from its beginning, as launch does
        ({"launch-prefix": "gdb", "launch-prefix-filter": "motion"}, {"motion": "held"}),
    ],
)
def test_the_prefix_of_launch_comes_before_the_executables_that_its_filter_chooses(chosen, before):
    specs = {spec.name: spec for spec in resolve("robot", {})}
    held = " ".join(signals_held())
    for name, prefix in before.items():
        assert launch_prefix(specs[name], chosen) == (held if prefix == "held" else prefix)
