#!/usr/bin/env bash
# Everything the other make targets need, done once: system libraries, a virtual environment, our
# interfaces, our package. Use: scripts/setup.sh [VENV]    Environment:
#   PYTHON       an interpreter, 3.10 to 3.14
#   ROS_WHEELS   jazzy (default) or kilted
#   TORCH        cpu or cuda (default: cuda where there is an NVIDIA card)
#   TORCH_INDEX  where torch's CPU builds are (default: its own index)
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}
ros=${ROS_WHEELS:-jazzy}
torch_index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}

fail() { echo "setup: $*" >&2; exit 1; }

find_python() {
  for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3.10 python3; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2>/dev/null; then echo "$candidate"; return; fi
  done
  fail "no Python 3.10 to 3.14 found; install one (Debian, Ubuntu: apt-get install python3 python3-venv python3-dev) or name it: PYTHON=/path/to/python make setup"
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

torch_kind() {
  case ${TORCH:-} in
    cpu | cuda) echo "$TORCH" ;;
    "") if [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; then echo cuda; else echo cpu; fi ;;
    *) fail "TORCH is '$TORCH': give cpu or cuda" ;;
  esac
}

# WHAT COMMAND...: runs the command and says now and then that it still runs
beat=
trap '[ -z "$beat" ] || kill "$beat" 2>/dev/null || true' EXIT
patiently() {
  local what=$1 started=$SECONDS code=0
  shift
  (while sleep 20 >/dev/null 2>&1; do echo "setup: still $what ($((SECONDS - started)) s)"; done) &
  beat=$!
  "$@" || code=$?
  kill "$beat" && wait "$beat" 2>/dev/null || true
  beat=
  return $code
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

# torch's build for CPUs is on torch's own index, unless this machine's pip knows another place:
# sets torch_options
choose_torch() {
  torch_options=()
  [ "$kind" = cpu ] || return 0
  local build
  build="torch==$(sed -n 's/^torch==//p' requirements/base.txt)+cpu"
  local try=(pip install -q -q --dry-run --no-deps --retries 0 --timeout 15 "$build")
  if "${try[@]}" >/dev/null 2>&1; then torch_options=("$build")
  elif "${try[@]}" --find-links "$torch_index/torch/" >/dev/null 2>&1; then torch_options=("$build" --find-links "$torch_index/torch/")
  elif [ "${TORCH:-}" = cpu ]; then fail "$torch_index has no $build for this Python, or cannot be reached: give another place as TORCH_INDEX=URL, or take the build for NVIDIA cards, which runs without one: TORCH=cuda make setup"
  else echo "setup: torch's index of CPU builds ($torch_index) cannot be reached: taking the build for NVIDIA cards, which runs without one"
  fi
}

# pip's own bars on a terminal, else a line for each package
show() {
  if [ -t 1 ]; then "$@"; else
    "$@" | awk '/^ *(Downloading|Building wheel)/ {sub(/^ */, ""); print "setup:   " substr($0, 1, 110); fflush()} /^Installing/ {print "setup:   unpacking"; fflush()}'
  fi
}

python=$(find_python)
kind=$(torch_kind)
[ -f "requirements/ros-$ros.txt" ] || fail "ROS_WHEELS is '$ros': give jazzy or kilted"
wanted=$(cat requirements/*.txt setup.py scripts/*.sh scripts/*.py $(find msg -type f | sort) | sha256sum | cut -c1-64)-$ros-$kind
[ "$(cat "$venv/.setup-done" 2>/dev/null)" = "$wanted" ] && exit 0

echo "setup 1/4: system libraries, virtual environment $venv on $("$python" -V)"
system_packages
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# A ROS environment or wheels of another virtual environment must not leak into this one.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH PYTHONPATH AMENT_PREFIX_PATH
pip install -q 'pip>=22.2' # the first that tells what it would do
echo "setup 2/4: finding packages (ROS 2 $ros, torch for $kind)"
choose_torch
patiently "finding packages" pip install -q --dry-run --report "$venv/report.json" -r requirements/dev.txt -r "requirements/ros-$ros.txt" "${torch_options[@]}"
"$venv/bin/python" scripts/downloads.py "$venv/report.json" >"$venv/pins.txt"
echo "setup 3/4: downloading and installing"
[ ! -s "$venv/pins.txt" ] || patiently installing show pip install --no-deps -r "$venv/pins.txt" "${torch_options[@]}"
echo "setup 4/4: building the interfaces (about a minute)"
build() { scripts/build_msgs.sh "$venv" >"$venv/build_msgs.log" 2>&1; }
patiently building build || { tail -n 30 "$venv/build_msgs.log" >&2; fail "janusvln_msgs did not build; the whole log is $venv/build_msgs.log"; }
pip install -q --no-deps --no-build-isolation -e .
echo "$wanted" >"$venv/.setup-done"
echo "setup: done in $SECONDS s"
