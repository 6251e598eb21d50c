import io
import math

import numpy as np
import pytest
import trimesh
from PIL import Image

from janusvln_ros.actions import Action
from janusvln_ros.geometry import rotation_of_yaw
from sim_bridge import make_env
from sim_bridge.homes.colours import OBJECT_RGB, WALL_RGB
from sim_bridge.homes.dataset import home_seed
from sim_bridge.homes.designs import DESIGNS, Box, Drum
from sim_bridge.homes.episodes import make_episodes, make_home
from sim_bridge.homes.furnish import ALL_KINDS, KIND, KINDS
from sim_bridge.scene import load_scene


@pytest.fixture(scope="module")
def homes():
    drawn = [
        make_home(f"house2_{i:05d}", home_seed(11, "house2", i), (3, 7), generator=2)
        for i in range(6)
    ]
    return [(home, make_episodes(home, 4, 0, unseen=False)) for home in drawn]


@pytest.fixture(scope="module")
def env(homes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for home, _ in homes:
        path = folder / "scene_datasets" / home.scene_id
        path.parent.mkdir(parents=True)
        path.write_bytes(home.glb)
    env = make_env("houses", data_dir=folder, width=112, height=84)
    yield env
    env.close()


def test_the_same_seed_gives_the_same_bytes(homes):
    home, drawn = homes[2]
    again = make_home(home.name, home.seed, (3, 7), generator=2)
    assert again == home and make_episodes(again, 4, 0, unseen=False) == drawn


def test_the_expert_drives_every_route_without_touching_anything(homes, env):
    routes = 0
    for _, drawn in homes:
        for episode, truth in drawn:
            env.reset(episode)
            assert all(env.is_navigable(p) for p in episode.reference_path)
            seen = [env.step(Action(a)) for a in truth.actions]
            assert env.episode_over and not any(o.collided for o in seen)
            assert np.allclose(seen[-1].position, truth.locations[-1], atol=0.02)
            measured = env.geodesic_distance(episode.start_position, episode.goal_position)
            assert measured == pytest.approx(episode.geodesic_distance, rel=0.05, abs=0.03)
            routes += 1
    assert routes == 4 * len(homes)


def hue_share(rgb, named):
    """
    Share of the pixels whose hue, or whose lack of it, is that of a named colour (RGB), however
    light or dark they are.
    """
    pixels, want = rgb.reshape(-1, 3).astype(float), np.array(named, float)
    if np.ptp(want) < 12:
        return float((np.ptp(pixels, axis=1) < 40).mean())
    chroma, wanted = pixels - pixels.mean(axis=1, keepdims=True), want - want.mean()
    length = np.linalg.norm(chroma, axis=1)
    cosine = chroma @ wanted / np.linalg.norm(wanted) / np.maximum(length, 1e-6)
    return float(((cosine > 0.9) & (length > 12)).mean())


def pixels_of(env, box):
    """Pixels of what the robot sees that show what is in a box (x0, y0, z0, x1, y1, z1)."""
    seen, settings = env.observation(), env.settings
    v, u = np.mgrid[: settings.height, : settings.width] + 0.5
    right = (u - settings.width / 2) / settings.focal_length * seen.depth
    down = (v - settings.height / 2) / settings.focal_length * seen.depth
    yaw = 2 * math.atan2(seen.rotation[1], seen.rotation[3])
    ahead = np.array([-math.sin(yaw), -math.cos(yaw)])
    side = np.array([-ahead[1], ahead[0]])
    points = np.stack(
        [
            seen.position[0] + ahead[0] * seen.depth + side[0] * right,
            seen.position[1] + settings.camera_height - down,
            seen.position[2] + ahead[1] * seen.depth + side[1] * right,
        ],
        axis=-1,
    )
    inside = ((points > box[:3]) & (points < box[3:])).all(axis=-1)
    return seen.rgb[inside]


def face(env, home, thing, distance):
    env.reset(make_episodes(home, 1, 0, unseen=False)[0][0])
    facing = np.array(thing.facing, float)
    x, z = thing.centre + facing * distance
    yaw = math.atan2(facing[0], facing[1])
    env.set_state([x, 0.001, z], rotation_of_yaw(yaw))


def test_the_colour_of_a_thing_dominates_its_pixels(homes, env):
    checked, shares = 0, []
    for home, _ in homes[:4]:
        for thing in home.things:
            face(env, home, thing, 1.6)
            x0, z0, x1, z1 = thing.rect
            box = np.array([x0 - 0.01, 0.03, z0 - 0.01, x1 + 0.01, thing.height + 0.02, z1 + 0.01])
            seen = pixels_of(env, box)
            if len(seen) > 150:
                share = hue_share(seen, OBJECT_RGB[thing.colour])
                assert share > 0.25, (thing.name, thing.design, share)
                shares.append(share)
                checked += 1
    assert checked > 40 and np.mean(shares) > 0.7


def test_the_walls_of_a_room_keep_the_colour_that_language_names(homes, env):
    for home, _ in homes[:4]:
        for room in home.plan.rooms:
            env.reset(make_episodes(home, 1, 0, unseen=False)[0][0])
            x0, z0, x1, z1 = room.rect
            walls = []
            for yaw in np.arange(4) * math.pi / 2:
                env.set_state([*np.insert(room.centre, 1, 0.001)], rotation_of_yaw(float(yaw)))
                for a, b in (
                    ((x0 - 0.02, z0 - 0.02), (x0 + 0.01, z1 + 0.02)),
                    ((x1 - 0.01, z0 - 0.02), (x1 + 0.02, z1 + 0.02)),
                    ((x0 - 0.02, z0 - 0.02), (x1 + 0.02, z0 + 0.01)),
                    ((x0 - 0.02, z1 - 0.01), (x1 + 0.02, z1 + 0.02)),
                ):
                    high = home.plan.wall_height - 0.1
                    walls.append(pixels_of(env, np.array([a[0], 1.1, a[1], b[0], high, b[1]])))
            assert hue_share(np.concatenate(walls), WALL_RGB[room.colour]) > 0.5, room


def test_a_home_is_one_mesh_with_one_sheet_that_other_tools_read_and_stays_small(homes):
    for home, _ in homes:
        assert len(home.glb) < 1_000_000
        scene = trimesh.load_scene(io.BytesIO(home.glb), file_type="glb", process=False)
        (mesh,) = scene.geometry.values()
        sheet = mesh.visual.material.baseColorTexture
        assert isinstance(sheet, Image.Image) and sheet.format == "JPEG" and sheet.width == 1024
        assert mesh.visual.uv.min() >= 0 and mesh.visual.uv.max() <= 1
        assert np.isfinite(mesh.vertices).all()
        assert mesh.area_faces.min() > 0


def test_no_face_is_black_and_no_corner_is_burnt_out(homes, tmp_path):
    for home, _ in homes[:3]:
        path = tmp_path / f"{home.name}.glb"
        path.write_bytes(home.glb)
        scene = load_scene(path)
        (batch,) = scene.batches
        _, height, width, _ = batch.textures.shape
        middle = scene.uv[scene.triangles].mean(axis=1)
        column, row = (np.clip(middle, 0, 1 - 1e-6) * [width, height]).astype(int).T
        colours = batch.textures[0, row, column, :3].astype(int)
        assert (colours.max(axis=1) > 4).mean() > 0.99
        assert np.median(colours) > 40


def test_every_kind_has_designs_of_its_size():
    assert set(DESIGNS) == {kind.name for kind in ALL_KINDS}
    for name, designs in DESIGNS.items():
        wide, deep, high = KIND[name].size
        assert len(designs) >= 2
        for design in designs:
            solid = [part for part in design if isinstance(part, Box | Drum)]
            assert min(part.y0 for part in solid) == 0
            assert max(part.y1 for part in solid) == pytest.approx(high, abs=0.051), (name, design)
            for part in solid:
                if isinstance(part, Box):
                    low, top = (part.w0, part.d0), (part.w1, part.d1)
                else:
                    radius = max(part.r0, part.r1)
                    low = (part.w - radius / wide, part.d - radius / deep)
                    top = (part.w + radius / wide, part.d + radius / deep)
                assert min(low) > -0.001 and max(top) < 1.001, (name, part)
                assert part.y0 < part.y1, (name, part)


def test_generator_1_knows_the_thirteen_kinds_that_it_always_knew():
    assert len(KINDS) == 13 and ALL_KINDS[:13] == KINDS
