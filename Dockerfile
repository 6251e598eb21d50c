# The graph in simulation, on the official image of ROS 2: README's route, step by step. Not built by
# our tests.
#   docker build -t janusvln . && docker run --rm -it janusvln
#   docker build --build-arg ROS_DISTRO=lyrical -t janusvln .
#   docker build --build-arg TORCH_INDEX=https://pypi.org/simple -t janusvln .    for an NVIDIA card
ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}-ros-base
SHELL ["/bin/bash", "-c"]
WORKDIR /ws

# EGL and Mesa render the houses on a CPU; scikit-fmm is built on the spot
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv python3-dev libegl1 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*

# manifests first: what they ask for stays when only code changes
COPY package.xml src/janusvln_ros/
COPY msg/janusvln_msgs/package.xml src/janusvln_ros/msg/janusvln_msgs/
RUN apt-get update \
    && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install --from-paths src src/janusvln_ros/msg --ignore-src -y \
    && rm -rf /var/lib/apt/lists/*
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements/graph.txt requirements/policy.txt src/janusvln_ros/requirements/
RUN python3 -m venv --system-site-packages venv \
    && touch venv/COLCON_IGNORE \
    && venv/bin/pip install --no-cache-dir -r src/janusvln_ros/requirements/graph.txt \
        -r src/janusvln_ros/requirements/policy.txt \
        --extra-index-url "$TORCH_INDEX"

COPY . src/janusvln_ros
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" \
    && source venv/bin/activate \
    && colcon build --base-paths src src/janusvln_ros/msg \
    && sed -i '$i source /ws/install/setup.bash' /ros_entrypoint.sh

CMD ["ros2", "launch", "janusvln_ros", "simulation.launch.py"]
