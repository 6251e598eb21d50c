"""
The built-in simulator as its users meet it: episodes, errors, scenes of other kinds, threads.
"""

import gc
import os
import threading
import weakref

import numpy as np
import pytest
import trimesh
from PIL import Image

from janusvln_ros.actions import Action
from janusvln_ros.data.episodes import read_episodes
from janusvln_ros.errors import InputError
from janusvln_ros.geometry import rotation_of_yaw, yaw_of_rotation
from sim_bridge import make_env
from sim_bridge.nav_env import NavEnv
from sim_bridge.scene import CACHED_SCENES

AHEAD = rotation_of_yaw(0.0)


def room(path, *extra, up="z", size=6.0):
    """
    A square floor with its top at height 0 and whatever else stands on it (world axes, y up),
    written with the given up axis.
    """
    floor = trimesh.creation.box(
        (size, 0.199, size), trimesh.transformations.translation_matrix((0, -0.0995, 0))
    )
    scene = trimesh.Scene([floor, *extra])
    if up == "z":
        scene.apply_transform(
            np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float)
        )
    path.write_bytes(trimesh.exchange.gltf.export_glb(scene))
    return path


def box(size, centre, color=(200, 30, 30, 255)):
    mesh = trimesh.creation.box(size, trimesh.transformations.translation_matrix(centre))
    mesh.visual.face_colors = color
    return mesh


@pytest.fixture
def episode(habitat):
    return read_episodes(habitat, "r2r", "val_unseen").episodes[0]


def test_it_is_a_nav_env(env):
    assert isinstance(env, NavEnv)


def test_an_episode_runs_from_its_start_to_stop(env, episode):
    seen = env.reset(episode)
    np.testing.assert_array_equal(seen.position, episode.start_position)
    assert (seen.rgb.shape, seen.rgb.dtype) == ((48, 64, 3), np.uint8)
    assert (seen.depth.shape, seen.depth.dtype) == ((48, 64), np.float32)
    assert not env.episode_over
    moved = env.step(Action.TURN_LEFT)
    assert yaw_of_rotation(moved.rotation) - yaw_of_rotation(seen.rotation) == pytest.approx(
        np.radians(15)
    )
    stopped = env.step(Action.STOP)
    assert env.episode_over
    np.testing.assert_array_equal(stopped.rgb, moved.rgb)
    with pytest.raises(InputError, match="episode is over"):
        env.step(Action.TURN_LEFT)
    assert not (env.reset(episode), env.episode_over)[1]


def test_the_last_allowed_step_ends_the_episode(habitat, episode):
    env = make_env("houses", data_dir=habitat, width=8, height=6, max_steps=3)
    env.reset(episode)
    for over in (False, False, True):
        env.step(Action.TURN_RIGHT)
        assert env.episode_over == over


def test_observation_renders_once_per_state_and_render_anew(env, episode):
    first = env.reset(episode)
    assert env.observation() is first
    assert env.render() is not first
    np.testing.assert_array_equal(env.render().rgb, first.rgb)


def test_two_runs_of_the_same_actions_are_identical(env, episode):
    def run():
        env.reset(episode)
        return [env.step(Action(a)) for a in (1, 2, 1, 1, 3, 1, 1, 1)]

    for one, two in zip(run(), run()):
        assert one.rgb.tobytes() == two.rgb.tobytes()
        assert one.position.tobytes() == two.position.tobytes()


def test_step_sizes_follow_the_settings(house_a):
    env = make_env("houses", scene=house_a, width=8, height=6, turn_step=30, forward_step=0.1)
    env.set_state([5.5, 0.001, 4.5], AHEAD)
    assert yaw_of_rotation(env.step(Action.TURN_LEFT).rotation) == pytest.approx(np.radians(30))
    env.set_state([5.5, 0.001, 4.5], AHEAD)
    seen = env.step(Action.MOVE_FORWARD)
    np.testing.assert_allclose(seen.position, [5.5, 0.001, 4.4], atol=1e-4)
    assert not seen.collided


def wall_ahead(tmp_path):
    """A wall 2 m before the origin, red up to 1.25 m and blue above."""
    return room(
        tmp_path / "wall.glb",
        box((6, 1.25, 0.1), (0, 0.625, -2.05)),
        box((6, 1.25, 0.1), (0, 1.875, -2.05), (20, 30, 200, 255)),
    )


@pytest.mark.parametrize("tilt", [-10.0, 0.0, 10.0])
def test_a_tilted_camera_looks_down_by_that_angle(tmp_path, tilt):
    env = make_env("houses", scene=wall_ahead(tmp_path), width=96, height=96, hfov=60, tilt=tilt)
    env.set_state((0, 0, 0), AHEAD)
    seen = env.render()
    red = seen.rgb[:, 48, 0] > seen.rgb[:, 48, 2]
    # The edge at the camera's own height is seen where the horizon is.
    horizon = 48 - env.settings.focal_length * np.tan(np.radians(tilt))
    assert np.flatnonzero(red)[0] == pytest.approx(horizon, abs=1.5)
    assert seen.depth[48, 48] == pytest.approx(2.0 / np.cos(np.radians(tilt)), rel=0.02)


def test_a_tilted_camera_turns_with_its_agent(tmp_path):
    env = make_env("houses", scene=wall_ahead(tmp_path), width=96, height=96, tilt=12.0)
    env.set_state((0, 0, -4), rotation_of_yaw(np.pi))
    seen = env.render()
    assert seen.depth[48, 48] == pytest.approx(1.9 / np.cos(np.radians(12)), rel=0.02)
    level = seen.rgb[30, :, 0].astype(int)
    assert np.ptp(level) < 30  # the picture does not roll


def test_a_camera_mounted_anew_sees_as_one_that_was_there_from_the_start(env, house_a, episode):
    other = {"camera_height": 0.4, "tilt": 8.0, "hfov": 95.0}
    there = make_env("houses", scene=house_a, width=64, height=48, **other)
    first = env.reset(episode)
    there.set_state(first.position, first.rotation)
    before = env.settings
    env.mount(**other)
    np.testing.assert_array_equal(env.observation().rgb, there.render().rgb)
    env.mount(camera_height=before.camera_height, tilt=before.tilt, hfov=before.hfov)
    np.testing.assert_array_equal(env.observation().rgb, first.rgb)


def test_turns_miss_by_the_error_that_is_set_and_the_same_ones_each_time(habitat, episode):
    env = make_env("houses", data_dir=habitat, width=8, height=6, turn_error=4.0)

    def headings():
        env.reset(episode)
        seen = [env.step(Action.TURN_LEFT).rotation for _ in range(60)]
        return np.unwrap([yaw_of_rotation(rotation) for rotation in seen])

    turns = np.degrees(np.diff(headings()))
    assert np.mean(turns) == pytest.approx(15, abs=2) and 2.5 < np.std(turns) < 5.5
    np.testing.assert_array_equal(np.degrees(np.diff(headings())), turns)
    before = env.observation()
    np.testing.assert_array_equal(env.step(Action.MOVE_FORWARD).rotation, before.rotation)


def test_a_wall_stops_a_head_on_step_and_the_flag_says_so(tmp_path):
    env = make_env(
        "houses",
        scene=room(tmp_path / "r.glb", box((4, 2.5, 0.2), (0, 1.25, -1))),
        width=8,
        height=6,
    )
    env.set_state([0, 0, -0.7], AHEAD)
    seen = env.step(Action.MOVE_FORWARD)
    assert seen.collided
    assert -0.9 + 0.1 <= seen.position[2] <= -0.7


@pytest.mark.parametrize("sliding", [True, False])
def test_only_sliding_moves_along_a_wall(tmp_path, sliding):
    env = make_env(
        "houses",
        scene=room(tmp_path / "r.glb", box((4, 2.5, 0.2), (0, 1.25, -1))),
        width=8,
        height=6,
        sliding=sliding,
    )
    env.set_state([0, 0, -0.75], rotation_of_yaw(np.radians(60)))
    for _ in range(3):
        seen = env.step(Action.MOVE_FORWARD)
    assert seen.collided
    assert (seen.position[0] < -0.5) == sliding


@pytest.mark.parametrize("up", ["y", "z"])
def test_the_up_axis_of_the_file_is_an_option(tmp_path, up):
    scene = room(tmp_path / "r.glb", box((1, 2, 0.2), (0, 1, -2)), up=up)
    env = make_env("houses", scene=scene, up=up, width=32, height=24)
    env.set_state([0, 0, 0], AHEAD)
    seen = env.render()
    assert seen.depth[12, 16] == pytest.approx(1.9, abs=1e-3)
    assert seen.rgb[12, 16].tolist() == [200, 30, 30]
    assert seen.depth[0, 0] == 0, "nothing is hit above the horizon"


def test_the_wrong_up_axis_is_named(tmp_path):
    plate = trimesh.creation.box((6, 6, 0.001))
    (tmp_path / "r.glb").write_bytes(trimesh.exchange.gltf.export_glb(trimesh.Scene([plate])))
    with pytest.raises(InputError, match="up"):
        make_env("houses", scene=tmp_path / "r.glb", up="y")


def test_textures_are_upright_and_the_right_way_round(tmp_path):
    # top row red, green
    colors = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)
    image = Image.fromarray(np.repeat(np.repeat(colors, 32, axis=0), 32, axis=1))
    corners = np.array([[-1, 0.25, -1], [1, 0.25, -1], [1, 2.25, -1], [-1, 2.25, -1]], float)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
    visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [1, 1], [0, 1]], material=material)
    picture = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    env = make_env("houses", scene=room(tmp_path / "r.glb", picture), width=64, height=48, hfov=90)
    env.set_state([0, 0, 0], AHEAD)
    rgb = env.render().rgb
    assert [rgb[v, u].tolist() for v, u in ((12, 20), (12, 44), (36, 20), (36, 44))] == [
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [255, 255, 0],
    ]


def test_back_faces_are_not_drawn(env, tmp_path):
    env = make_env(
        "houses", scene=room(tmp_path / "r.glb", box((1, 2.5, 1), (0, 1.25, 0))), width=8, height=6
    )
    env.set_state([0, 0, 0], AHEAD)  # inside the box
    assert not (env.render().rgb == [200, 30, 30]).all(axis=-1).any()


def stairs(rise=0.2, run=0.3, count=14):
    steps = [
        box((2, rise * (n + 1), run), (0, rise * (n + 1) / 2, -1 - run * n)) for n in range(count)
    ]
    top = rise * count
    return [*steps, box((2, 0.2, 4), (0, top - 0.1, -1 - run * (count - 0.5) - 2))], top


def test_stairs_join_two_storeys(tmp_path):
    steps, top = stairs()
    env = make_env("houses", scene=room(tmp_path / "r.glb", *steps, size=14.0), width=8, height=6)
    above = [0, top, -7.0]
    below = [0, 0.0, -7.0]
    assert env.snap_point(above)[1] == pytest.approx(top, abs=0.25)
    assert env.snap_point(below)[1] == pytest.approx(0, abs=0.25)
    up_the_stairs = env.geodesic_distance([0, 0, 0], above)
    assert 7.0 < up_the_stairs < 9.0
    assert env.geodesic_distance(below, above) > 8.0, "through the ceiling there is no way"
    env.set_state([0, 0, 0], AHEAD)
    for _ in range(60):
        action = env.expert_action(above, 0.25)
        if action == Action.STOP:
            break
        env.step(action)
    assert action == Action.STOP
    assert env.observation().position[1] == pytest.approx(top, abs=0.25)


def test_a_low_beam_blocks_the_way(tmp_path):
    beam = box((6, 0.2, 0.3), (0, 1.3, -1))
    env = make_env("houses", scene=room(tmp_path / "r.glb", beam), width=8, height=6)
    assert not env.is_navigable([0, 0, -1])
    low = make_env("houses", scene=tmp_path / "r.glb", width=8, height=6, agent_height=0.9)
    assert low.is_navigable([0, 0, -1])


def test_a_wider_agent_keeps_farther_from_walls(tmp_path):
    scene = room(tmp_path / "r.glb", box((4, 2.5, 0.2), (0, 1.25, -1)))
    assert make_env("houses", scene=scene, width=8, height=6).is_navigable([0, 0, -0.7])
    assert not make_env("houses", scene=scene, width=8, height=6, agent_radius=0.3).is_navigable(
        [0, 0, -0.7]
    )


def test_top_down_map_shows_where_one_can_stand(env):
    env.set_state([5.5, 0.001, 4.5], AHEAD)
    plan = env.top_down_map()
    rng = np.random.default_rng(0)
    for x, z in rng.uniform((0.1, 0.1), (10.9, 8.9), (200, 2)):
        row, column = (
            int((z - plan.origin[1]) / plan.resolution),
            int((x - plan.origin[0]) / plan.resolution),
        )
        assert plan.navigable[row, column] == env.is_navigable([x, 0.001, z])


def test_a_file_changed_on_disk_is_read_again(tmp_path):
    def looks():
        env = make_env("houses", scene=tmp_path / "r.glb", width=8, height=6)
        env.set_state([0, 0, 0], AHEAD)
        return env.render().depth[3, 4]

    room(tmp_path / "r.glb", box((2, 2.5, 0.2), (0, 1.25, -1)))
    near = looks()
    room(tmp_path / "r.glb", box((2, 2.5, 0.2), (0, 1.25, -2)), box((0.1, 0.1, 0.1), (2, 0.05, 2)))
    assert looks() == pytest.approx(near + 1, abs=1e-3)


def test_a_gl_context_used_from_another_thread_is_an_error_and_not_a_crash(env, episode):
    errors = []

    def elsewhere():
        try:
            env.render()
        except RuntimeError as error:
            errors.append(str(error))

    env.reset(episode)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(errors) == 1 and "thread" in errors[0]
    env.render()


def test_an_environment_can_live_in_another_thread(house_a, env):
    here = env.render().rgb
    pictures = []

    def elsewhere():
        other = make_env("houses", scene=house_a, width=64, height=48)
        pictures.append(other.render().rgb)
        other.close()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(pictures[0], here)


def test_many_environments_share_scene_and_surface(house_a):
    envs = [make_env("houses", scene=house_a, width=16, height=12) for _ in range(5)]
    assert len({id(e.mesh) for e in envs}) == 1
    for n, env in enumerate(envs):
        env.set_state([5.5, 0.001, 4.5], rotation_of_yaw(0.5 * n))
    pictures = {env.render().rgb.tobytes() for env in envs}
    assert len(pictures) == 5


def test_the_surface_of_a_scene_long_past_is_given_back_without_a_garbage_collection(
    house_a, tmp_path
):
    first = make_env("houses", scene=house_a, width=16, height=12)
    assert np.isfinite(first.geodesic_distance([5.5, 0.001, 4.5], [1.5, 0.001, 4.5]))
    surface = weakref.ref(first.mesh)
    first.close()
    gc.disable()
    try:
        for n in range(CACHED_SCENES):
            make_env(
                "houses", scene=room(tmp_path / f"{n}.glb", size=2.0), width=16, height=12
            ).close()
        assert surface() is None
    finally:
        gc.enable()


# Bad input


@pytest.mark.parametrize(
    "options, word",
    [
        ({"hfov": 0}, "hfov"),
        ({"width": 0}, "width"),
        ({"width": 3.5}, "width"),
        ({"height": 100_000}, "image"),
        ({"agent_radius": -1}, "agent_radius"),
        ({"max_steps": 0}, "max_steps"),
        ({"forward_step": float("nan")}, "forward_step"),
        ({"up": "x"}, "up"),
        ({"no_such_option": 1}, "no_such_option"),
    ],
)
def test_a_bad_setting_is_named(house_a, options, word):
    with pytest.raises(InputError, match=word):
        make_env("houses", scene=house_a, **options)


def test_an_unknown_backend_is_named():
    with pytest.raises(InputError, match="gazebo"):
        make_env("gazebo")


def test_a_missing_scene_is_an_error_with_its_path(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.glb"):
        make_env("houses", scene=tmp_path / "nowhere.glb")


def test_a_damaged_scene_is_an_error_with_its_path(tmp_path, house_a):
    (tmp_path / "cut.glb").write_bytes(house_a.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.glb"):
        make_env("houses", scene=tmp_path / "cut.glb")


def test_asking_without_a_scene_is_an_error():
    env = make_env("houses", width=8, height=6)
    for ask in (
        env.render,
        env.top_down_map,
        lambda: env.is_navigable([0, 0, 0]),
        lambda: env.step(Action.STOP),
    ):
        with pytest.raises(InputError, match="scene"):
            ask()


@pytest.mark.parametrize(
    "position, rotation",
    [
        ([0, 0], AHEAD),
        ([0, 0, float("nan")], AHEAD),
        ([0, 0, 0], [0, 0, 0, 0]),
        ([0, 0, 0], [0, 0, 1]),
    ],
)
def test_a_bad_pose_is_refused(env, position, rotation):
    with pytest.raises(InputError, match="position"):
        env.set_state(position, rotation)


def test_points_that_are_not_finite_are_nowhere(env):
    nan = [0.0, float("nan"), 0.0]
    assert not env.is_navigable(nan)
    assert env.snap_point(nan) is None
    assert env.geodesic_distance(nan, [5.5, 0, 4.5]) == np.inf


def test_a_closed_environment_says_so(house_a):
    env = make_env("houses", scene=house_a, width=8, height=6)
    env.close()
    env.close()
    with pytest.raises(InputError):
        env.render()


def test_without_opengl_the_packages_to_install_are_named(monkeypatch, house_a):
    import moderngl

    from sim_bridge import renderer

    def fails(**_):
        raise Exception("libEGL.so.1 not loaded")

    monkeypatch.setattr(moderngl, "create_context", fails)
    monkeypatch.setattr(renderer, "of_thread", threading.local())
    with pytest.raises(InputError, match="libegl1 libgl1 libgl1-mesa-dri"):
        make_env("houses", scene=house_a)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_environment_that_was_forked_says_so(env):
    env.render()
    child = os.fork()
    if child == 0:  # nothing but the check may run here: the context's own threads did not survive
        try:
            env.render()
        except RuntimeError as error:
            os._exit(42 if "fork" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_a_scene_with_textures_of_several_sizes_and_instances_is_drawn(tmp_path):
    def panel(image, x):
        corners = np.array(
            [[x - 0.4, 0.5, -1], [x + 0.4, 0.5, -1], [x + 0.4, 2, -1], [x - 0.4, 2, -1]], float
        )
        visual = trimesh.visual.TextureVisuals(
            uv=[[0, 0], [1, 0], [1, 1], [0, 1]],
            material=trimesh.visual.material.PBRMaterial(
                baseColorTexture=image, baseColorFactor=[255, 128, 255, 255]
            ),
        )
        return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)

    panels = [
        panel(Image.new("RGB", (8, 8), (200, 200, 0)), -0.5),
        panel(Image.new("RGB", (16, 4), (0, 200, 200)), 0.5),
    ]
    env = make_env("houses", scene=room(tmp_path / "r.glb", *panels), width=64, height=48, hfov=90)
    env.set_state([0, 0, 0], AHEAD)
    rgb = env.render().rgb
    # colour of the texture times the factor
    assert rgb[24, 16].tolist() == [200, 100, 0]
    assert rgb[24, 48].tolist() == [0, 100, 200]


def test_a_mirrored_instance_shows_its_outside(tmp_path):
    scene = trimesh.load_scene(room(tmp_path / "r.glb"), process=False)
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[:3, 3] = [0, 2, 1.25]  # file axes: z up, so world z is -y
    cube = trimesh.creation.box((1, 0.2, 2.5))
    cube.visual.face_colors = [30, 30, 200, 255]
    scene.add_geometry(cube, transform=mirrored)
    (tmp_path / "m.glb").write_bytes(trimesh.exchange.gltf.export_glb(scene))
    env = make_env("houses", scene=tmp_path / "m.glb", width=32, height=24)
    env.set_state([0, 0, 0], AHEAD)
    seen = env.render()
    assert seen.depth[12, 16] == pytest.approx(1.9, abs=1e-3), (
        "the near side is in front, not culled"
    )
    assert seen.rgb[12, 16].tolist() == [30, 30, 200]
