"""Settings: what is shipped can be read, and a typing mistake is an error that names itself."""

import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.rollout.settings import Settings, load_settings, on_device


@pytest.mark.parametrize("name", ["houses", "r2r", "rxr", "scalevln"])
def test_shipped_settings_name_every_field(name):
    import dataclasses

    import yaml

    from janusvln_ros.files import share_dir

    assert load_settings(name).dataset == name
    content = yaml.safe_load((share_dir() / "config/eval" / f"{name}.yaml").read_text())
    for field in dataclasses.fields(Settings):
        assert field.name in content
        if dataclasses.is_dataclass(getattr(Settings(), field.name)):
            names = {f.name for f in dataclasses.fields(getattr(Settings(), field.name))} - {
                "options"
            }
            assert set(content[field.name]) == names, f"{name}.yaml: {field.name}"


def test_r2r_has_the_published_numbers():
    s = load_settings("r2r")
    assert (
        s.env.width,
        s.env.height,
        s.env.hfov,
        s.env.camera_height,
        s.env.agent_height,
        s.env.agent_radius,
    ) == (640, 480, 79.0, 1.25, 1.5, 0.1)
    assert (s.env.forward_step, s.env.turn_step, s.env.sliding, s.env.max_steps) == (
        0.25,
        15.0,
        True,
        500,
    )
    assert (
        s.rules.max_steps,
        s.rules.not_understood,
        s.thresholds.success,
        s.thresholds.oracle,
        s.seed,
    ) == (400, "stop", 3.0, 3.0, 42)
    assert (s.expert.waypoint_radius, s.expert.stop_radius, s.sharding) == (1.8, 0.25, "published")
    d = s.dagger
    assert (d.p, d.data_it, d.num_future_steps, d.error_rate, d.max_errors) == (0.0, 3, 1, 0.8, 12)
    assert (d.save_distance, d.efficiency_helped, d.efficiency_alone) == (0.5, 0.93, 0.85)


def test_single_values_can_be_changed():
    s = load_settings(
        "r2r",
        [
            "rules.max_steps=300",
            "languages=[en, hi-IN]",
            "policy.memory=dual",
            "split=val_seen",
            "env.hfov=90",
        ],
    )
    assert (s.rules.max_steps, s.languages, s.policy.memory, s.split, s.env.hfov) == (
        300,
        ("en", "hi-IN"),
        "dual",
        "val_seen",
        90.0,
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("rules.max_step=3", "unknown key 'max_step'; did you mean 'max_steps'?"),
        ("seed=many", "seed is 'many'"),
        ("rules=3", "rules is 3, not a section"),
        ("seed.x=3", "seed is a value, not a section"),
        ("rules.max_steps", "write FIELD=VALUE"),
        ("rules.max_steps=0", "give 1 or more"),
        ("rules.not_understood=guess", "give 'fail' or 'stop'"),
        ("baselines.random=[1, 2]", "random is"),
        ("dagger.p=2", "give a probability"),
        ("seed=[", "is no YAML"),
    ],
)
def test_mistake_is_an_error_that_names_it(change, reason):
    with pytest.raises(InputError, match=None) as error:
        load_settings("houses", [change])
    assert reason in str(error.value)


def test_missing_settings_file_names_those_there_are():
    with pytest.raises(InputError, match="houses, r2r, rxr, scalevln"):
        load_settings("reverie")


def test_habitat_draws_on_the_card_of_the_workers_model_unless_told_otherwise():
    habitat = load_settings("r2r")
    assert on_device(habitat, "cuda:3").env.options == {"gpu": 3} and on_device(
        habitat, "cuda"
    ).env.options == {"gpu": 0}
    assert on_device(habitat, None) == on_device(habitat, "cpu") == habitat
    fixed = load_settings("r2r", ["env.options.gpu=-1"])
    assert on_device(fixed, "cuda:3") == fixed and on_device(
        load_settings("houses"), "cuda:3"
    ) == load_settings("houses")
