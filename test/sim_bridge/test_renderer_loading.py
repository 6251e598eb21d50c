"""A renderer in one process with torch's builds for NVIDIA cards."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("moderngl")

STAND_IN = """
import sys
assert not {"moderngl", "glcontext"} & set(sys.modules), "a context may be there already"
print("triton")
"""


def test_triton_is_loaded_before_mesa_which_would_give_it_another_llvm(tmp_path):
    (tmp_path / "triton.py").write_text(STAND_IN)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    code = "from sim_bridge.renderer import Renderer; print('draws with', Renderer().device)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("triton\ndraws with ")
