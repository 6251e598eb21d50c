"""
janusvln evaluate in Habitat: what the user has to mend ends it at once and without a table, a
result says which Habitat made it, and habitat-lab can be asked whether it is right.
"""

import json
import shlex
import sys
from pathlib import Path
from textwrap import indent

import pytest

pytest.importorskip("moderngl", reason="needs the simulator: pip install janusvln_ros[sim]")

from janusvln_ros.cli.main import main
from janusvln_ros.data.episodes import read_episodes
from janusvln_ros.errors import InputError
from janusvln_ros.rollout.settings import load_settings
from janusvln_ros.rollout.verify import run_habitat_lab

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "test" / "data" / "habitat"
HOUSES_SERVER = ROOT / "test" / "sim_bridge" / "houses_server.py"

FAILING = """
import os, socket, sys
from pathlib import Path
sys.path.insert(0, {server!r})
from habitat_server import receive, send
here = Path({here!r}) / "runs"
here.write_text((here.read_text() if here.exists() else "") + "x")
c = socket.socket(socket.AF_UNIX)
c.connect(sys.argv[-1])
receive(c)
send(c, {{"ok": True, "python": "3.9.18", "versions": {{"habitat_sim": "0.3.3"}}}})
try:
    receive(c)
except ConnectionError:
    sys.exit(0)
{fault}
"""

NO_GPU = """
print("WindowlessEglApplication::tryCreateContext(): unable to find CUDA device 0 among 1 EGL "
      "devices in total\\nWindowlessContext: Unable to create windowless context", flush=True)
os._exit(1)
"""

HABITAT = '''
"""The documented names of habitat-lab over the built-in simulator."""
import json, math, types
from pathlib import Path
from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import read_episodes
from sim_bridge import make_env

__version__ = "0.3.3"
NUMBERS = {"stop": 0, "move_forward": 1, "turn_left": 2, "turn_right": 3}

def get_config(config_path, overrides=None):
    assert config_path == "benchmark/nav/vln_r2r.yaml"
    values = dict(text.split("=", 1) for text in overrides)
    return {key.removeprefix("habitat."): value.strip("'") for key, value in values.items()}

class Env:
    def __init__(self, config):
        import gzip
        self.config = config
        data = json.loads(gzip.open(config["dataset.data_path"]).read())
        assert data["instruction_vocab"]["word_list"]
        self.scenes = Path(config["dataset.scenes_dir"])
        self.episodes = [types.SimpleNamespace(**e) for e in data["episodes"]]
        self.near = float(config["task.measurements.success.success_distance"])
        self.env = make_env("houses", data_dir=str(self.scenes.parent), width=32, height=32,
            turn_step=float(config["simulator.turn_angle"]),
            forward_step=float(config["simulator.forward_step_size"]))
    def reset(self):
        e = self.current_episode
        goal = tuple(e.goals[0]["position"])
        from janusvln_ros.data.episodes import Episode
        self.env.reset(Episode(str(e.episode_id), "", e.scene_id, tuple(e.start_position),
            tuple(e.start_rotation), goal, 3.0, "", (), None))
        self.goal, self.length, self.stopped = goal, 0.0, False
        self.last = self.env.position.copy()
        self.start = self.env.geodesic_distance(self.last, goal)
    @property
    def episode_over(self): return self.env.episode_over
    def step(self, action):
        number = NUMBERS[action["action"]]
        self.env.step(Action(number))
        self.stopped = number == 0
        self.length += math.dist(self.last, self.env.position)
        self.last = self.env.position.copy()
    def get_metrics(self):
        distance = self.env.geodesic_distance(self.env.position, self.goal) + WRONG
        success = float(self.stopped and distance < self.near)
        spl = success * self.start / max(self.start, self.length)
        return {"distance_to_goal": distance, "success": success, "spl": spl}
    def close(self): self.env.close()
WRONG = float(__import__("os").environ.get("WRONG", "0"))
'''


@pytest.fixture(autouse=True)
def package_is_importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def evaluate(capsys, out, command, *more):
    words = ["evaluate", "expert", "--dataset", "r2r", "--backend", "habitat", "--data", str(DATA)]
    words += ["--set", f"env.options.command={json.dumps(shlex.join(command))}"]
    words += ["--size", "32x24", "--out", str(out), *more]
    code = main(words)
    return code, capsys.readouterr()


def failing(folder, fault):
    script = folder / "server.py"
    server = str(ROOT / "sim_bridge")
    script.write_text(FAILING.format(server=server, here=str(folder), fault=fault))
    return [sys.executable, str(script)]


@pytest.mark.parametrize("count", ["1", "3"])
def test_no_graphics_card_ends_the_run_with_the_setting_to_change_and_no_table(
    capsys, tmp_path, count
):
    code, said = evaluate(capsys, tmp_path / "out", failing(tmp_path, NO_GPU), "--episodes", count)
    errors = [line for line in said.err.splitlines() if line.startswith("error:")]
    assert code == 2 and len(errors) == 1
    assert "cannot draw with gpu 0" in errors[0] and "env.options.gpu=-1" in errors[0]
    assert "Traceback" not in said.err and "success rate" not in said.err
    assert not (tmp_path / "out" / "summary.json").exists()
    assert (tmp_path / "runs").read_text() == "xx", "once for the versions, once for the run"


def test_a_run_without_a_single_drive_has_no_table(capsys, tmp_path):
    fault = (
        "send(c, {'ok': False, 'error': 'RuntimeError: no mesh', 'bad_input': False})\nreceive(c)"
    )
    code, said = evaluate(capsys, tmp_path / "out", failing(tmp_path, fault), "--episodes", "1")
    assert code == 1 and "Traceback" not in said.err and "success rate" not in said.err
    assert "none of 1 episodes could be run" in said.err and "no mesh" in said.err
    assert "trying once more" not in said.err, "the same file would be as broken"
    assert not (tmp_path / "out" / "summary.json").exists()


def test_the_interpreter_is_asked_before_anything_is_written(capsys, tmp_path):
    code, said = evaluate(capsys, tmp_path / "out", ["/bin/false"])
    assert code == 2 and "cannot run Habitat" in said.err
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_result_says_which_habitat_made_it_and_habitat_lab_is_asked_about_it(
    capsys, tmp_path, monkeypatch
):
    (tmp_path / "habitat.py").write_text(HABITAT)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("JANUSVLN_HABITAT_PYTHON", sys.executable)
    out = tmp_path / "out"
    command = [sys.executable, str(HOUSES_SERVER)]
    verify = ["--verify", "habitat-lab"]
    code, said = evaluate(capsys, out, command, "--episodes", "1", "--json", *verify)
    assert code == 0, said.err
    summary = json.loads(said.out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert summary["backend"] == "habitat" and summary["versions"] == manifest["versions"]
    assert manifest["versions"]["habitat_python"] == sys.version.split()[0]
    assert "moderngl" in manifest["versions"], "what the server of the tests simulates with"
    assert "1 of 1 episodes agree" in said.err and "OSR" in said.err
    assert summary["verified"]["equal"] == 1
    report = json.loads((out / "verify.json").read_text())
    assert report["versions"]["habitat"] == "0.3.3"
    for entry in report["compared"]:
        assert entry["ours"] == pytest.approx(entry["habitat_lab"], abs=1e-6)
    # a finished run is verified without driving again; what differs is told episode by episode
    monkeypatch.setenv("WRONG", "0.5")
    code, said = evaluate(capsys, out, command, "--episodes", "1", *verify)
    assert code == 1 and "0 of 1 episodes agree" in said.err
    (episode,) = [line for line in said.err.splitlines() if "house_a/" in line]
    assert " NE " in episode


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (None, "No module named 'habitat'"),
        ("def Env(*a, **k): raise RuntimeError('no such key')", "no such key"),
        (f"import os\ndef Env(*a, **k):\n{indent(NO_GPU, '    ')}", "gpu to -1"),
    ],
)
def test_a_habitat_lab_that_cannot_be_run_is_told_with_what_it_said(
    tmp_path, monkeypatch, module, words
):
    if module is not None:
        (tmp_path / "habitat.py").write_text(f"get_config = print\n{module}")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("JANUSVLN_HABITAT_PYTHON", sys.executable)
    episode = read_episodes(DATA, "r2r", "val_unseen").episodes[0]
    with pytest.raises(InputError, match=words) as problem:
        run_habitat_lab(load_settings("r2r"), DATA, [(episode, {"actions": [0]})])
    assert "\n" not in str(problem.value)


def test_what_habitat_lab_cannot_repeat_is_refused_before_the_run(capsys, tmp_path):
    options = ["--verify", "habitat-lab", "--set", "env.turn_error=2"]
    code, said = evaluate(capsys, tmp_path / "out", ["/bin/false"], *options)
    assert code == 2 and "cannot repeat these drives" in said.err
