#!/usr/bin/env bash
# Build msg/janusvln_msgs with the ROS 2 wheels of a virtual environment and install it there.
# Needs g++. Use: scripts/build_msgs.sh VENV
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$(cd "$1" && pwd)
include=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
numpy=$("$venv/bin/python" -c 'import numpy; print(numpy.get_include())')
# The wheels' exported CMake targets name the Python of the container that built them: point them
# at this one. Repeating it changes nothing.
sed -i -E "s#/opt/python/cp[0-9]+-cp[0-9]+t?/lib/python[0-9.]+t?/site-packages/numpy/(_core|core)/include#$numpy#g; s#/opt/python/cp[0-9]+-cp[0-9]+t?/include/python[0-9.]+t?#$include#g" "$venv"/share/*/cmake/*__rosidl_generator_pyExport.cmake
LD_LIBRARY_PATH=$("$venv/bin/python" -c 'import os; print(os.environ["LD_LIBRARY_PATH"])')
export LD_LIBRARY_PATH AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv PATH=$venv/bin:$PATH
cmake -S "$root/msg/janusvln_msgs" -B "$venv/build_janusvln_msgs" -G Ninja -DCMAKE_INSTALL_PREFIX="$venv" -DCMAKE_BUILD_TYPE=Release \
  -DBUILD_TESTING=OFF -DPython3_EXECUTABLE="$venv/bin/python" -DPython3_FIND_VIRTUALENV=ONLY
cmake --build "$venv/build_janusvln_msgs" --target install
