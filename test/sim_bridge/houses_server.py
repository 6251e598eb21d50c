"""The built-in simulator behind the server of Habitat's side, for tests of client and protocol."""

import sys

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError
from sim_bridge.habitat_server import BadRequestError, main
from sim_bridge.houses import HousesEnv
from sim_bridge.nav_env import EnvSettings


class HousesSimulator:
    """The calls of ``HabitatSimulator`` over ``HousesEnv``."""

    def __init__(self, settings, up, gpu):
        self.settings = EnvSettings(**dict(settings, up=up))

    def versions(self):
        from importlib.metadata import version

        return {"moderngl": version("moderngl")}

    def load(self, scene):
        self.env = HousesEnv(self.settings, scene=scene)
        return {"navmesh": "computed"}

    def set_state(self, position, rotation):
        self.env.set_state(position, rotation)

    def act(self, action):
        return self.env.step(Action(action)).collided

    def pose(self):
        seen = self.env.observation()
        return seen.position.tolist(), seen.rotation.tolist()

    def render(self):
        seen = self.env.observation()
        return seen.rgb, seen.depth

    def is_navigable(self, p):
        return self.env.is_navigable(p)

    def snap_point(self, p):
        found = self.env.snap_point(p)
        return None if found is None else found.tolist()

    def geodesic_distance(self, a, b):
        return self.env.geodesic_distance(a, b)

    def expert_action(self, target, radius):
        try:
            return int(self.env.expert_action(target, radius))
        except InputError as error:
            raise BadRequestError(str(error)) from error

    def top_down_map(self):
        plan = self.env.top_down_map()
        return plan.navigable, list(plan.origin), plan.resolution


if __name__ == "__main__":
    sys.exit(main(HousesSimulator))
