"""Recipes: typed, overridable, and clear about mistakes."""

import dataclasses
import json

import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.files import share_dir
from janusvln_ros.training.recipes import Recipe, load_recipe, save_recipe


@pytest.mark.parametrize("name", ["base", "extra", "tiny", "tiny-encoders"])
def test_shipped_recipe_is_valid(name):
    assert isinstance(load_recipe(name), Recipe)


def test_wrong_name_is_an_error_that_suggests_the_right_one():
    with pytest.raises(InputError, match="did you mean 'learning_rate'"):
        load_recipe("tiny", ["learningrate=1"])


def test_wrong_recipe_is_an_error_that_suggests_the_right_one():
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        load_recipe("tinny")


@pytest.mark.parametrize(
    "override",
    ["batch=two", "memory=both", "bf16=1", "learning_rate=fast", "data=3", "batch", "batch=1.5"],
)
def test_value_of_the_wrong_type_names_the_field(override):
    with pytest.raises(InputError, match=override.split("=")[0]):
        load_recipe("tiny", [override])


def test_every_field_can_be_overridden():
    recipe = load_recipe(
        "tiny",
        [
            "learning_rate=1e-4",
            "data=[a, b]",
            "vision_learning_rate=null",
            "max_steps=7",
            "memory=released",
        ],
    )
    assert (
        recipe.learning_rate,
        recipe.data,
        recipe.vision_learning_rate,
        recipe.max_steps,
        recipe.memory,
    ) == (1e-4, ["a", "b"], None, 7, "released")


def test_saved_recipe_reads_back_the_same(tmp_path):
    recipe = load_recipe("base", ["seed=3"])
    save_recipe(recipe, tmp_path / "r.yaml")
    assert load_recipe(str(tmp_path / "r.yaml")) == recipe


def test_base_recipe_is_the_published_one():
    recipe = load_recipe("base")
    published = {
        "learning_rate": 2e-5,
        "projector_learning_rate": 1e-5,
        "vision_learning_rate": 1e-6,
        "weight_decay": 0.01,
        "warmup_ratio": 0.03,
        "schedule": "cosine",
        "epochs": 1.0,
        "batch": 1,
        "accumulate": 8,
        "seed": 42,
        "bf16": True,
        "gradient_checkpointing": True,
        "lam": 0.2,
        "train_language_model": True,
        "train_mergers": True,
        "train_vision_tower": False,
        "train_spatial_encoder": False,
        "memory": "released",
        "prompt": "training",
        "save_steps": 1000,
    }
    assert {name: getattr(recipe, name) for name in published} == published


def test_extra_recipe_differs_from_base_only_in_weights_and_data():
    base, extra = (dataclasses.asdict(load_recipe(name)) for name in ("base", "extra"))
    assert {name for name in base if base[name] != extra[name]} == {
        "model",
        "semantic_model",
        "spatial_model",
        "data",
        "output",
    }


def test_deepspeed_and_fsdp_files_are_json():
    folder = share_dir() / "config" / "train"
    assert json.loads((folder / "zero3.json").read_text())["zero_optimization"]["stage"] == 3
    assert (
        "Qwen2_5_VLDecoderLayer"
        in json.loads((folder / "fsdp.json").read_text())["transformer_layer_cls_to_wrap"]
    )
