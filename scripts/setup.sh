#!/usr/bin/env bash
# Everything the other make targets need, done once: system libraries, a virtual environment, our
# interfaces, our package. Use: scripts/setup.sh [VENV]    Environment: PYTHON (an interpreter,
# 3.10 to 3.12), ROS_WHEELS (kilted or jazzy).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
ros=${ROS_WHEELS:-kilted}

fail() { echo "setup: $*" >&2; exit 1; }

find_python() {
  for candidate in ${PYTHON:-} python3.11 python3.12 python3.10 python3; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then echo "$candidate"; return; fi
  done
  fail "no Python 3.10, 3.11 or 3.12 found; install one (Debian, Ubuntu: apt-get install python3 python3-venv python3-dev) or name it: PYTHON=/path/to/python make setup"
}

# EGL and Mesa render the simulator on a CPU; the compiler builds the ROS interfaces.
system_packages() {
  command -v apt-get >/dev/null || { command -v g++ >/dev/null || fail "install a C++ compiler and the EGL and OpenGL libraries of your distribution"; return 0; }
  local missing=()
  for package in libegl1 libgl1 libgl1-mesa-dri g++; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  # Python headers and venv come with a Python built from source; Debian's own needs two packages
  # more.
  "$python" -c 'import ensurepip' 2>/dev/null || missing+=("$(basename "$(readlink -f "$(command -v "$python")")")-venv")
  "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || missing+=("$(basename "$(readlink -f "$(command -v "$python")")")-dev")
  [ ${#missing[@]} -eq 0 ] && return 0
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then as_root=(sudo -n); else fail "system packages are missing and this user may not install them; run: sudo apt-get install ${missing[*]}"; fi
  fi
  echo "setup: installing system packages: ${missing[*]}"
  { "${as_root[@]}" apt-get update -q && DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"; } \
    || fail "apt-get could not install ${missing[*]}; install them by hand and run make again"
}

python=$(find_python)
wanted=$(cat requirements/*.txt setup.py scripts/setup.sh scripts/build_msgs.sh $(find msg -type f | sort) | sha256sum | cut -c1-64)-$ros
[ "$(cat "$venv/.setup-done" 2>/dev/null)" = "$wanted" ] && exit 0

system_packages
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# A ROS environment or wheels of another virtual environment must not leak into this one.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH PYTHONPATH AMENT_PREFIX_PATH
"$venv/bin/python" -m pip install -q --disable-pip-version-check -r requirements/dev.txt -r "requirements/ros-$ros.txt"
scripts/build_msgs.sh "$venv" >"$venv/build_msgs.log" 2>&1 || { tail -n 30 "$venv/build_msgs.log" >&2; fail "janusvln_msgs did not build; the whole log is $venv/build_msgs.log"; }
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
echo "$wanted" >"$venv/.setup-done"
