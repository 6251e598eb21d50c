"""
Train by a recipe.

  janusvln train tiny-encoders                     teach the small network's encoders to see
  janusvln train tiny                              clone the expert, dual memory
  janusvln train base --set model=... data=...     the published first stage; 'extra' the second
  torchrun --nproc-per-node 8 -m janusvln_ros.cli.main train base --set fsdp=config/train/fsdp.json

Any field of a recipe is overridden with --set (values are YAML): --set learning_rate=1e-4
data=[a.jsonl,b.jsonl] max_steps=200. 'janusvln train RECIPE --show' prints every field with its
value. A run that was stopped or killed goes on from its last state when the same command is given
again. Results go to the recipe's 'output': checkpoint/ (what 'janusvln evaluate policy' takes),
state/ (to go on from; safe to delete when done), recipe.yaml, result.json and TensorBoard logs.
"""

import argparse
import contextlib
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import yaml

from janusvln_ros.cli.options import JSON, SET, option
from janusvln_ros.cli.output import answer, say
from janusvln_ros.data.left_out import left_out_page
from janusvln_ros.errors import require
from janusvln_ros.files import require_folder

OPTIONS = (
    option("recipe", help="tiny-encoders, tiny, base, extra, or the path of your own .yaml"),
    option(
        "changes", nargs="*", default=[], metavar="FIELD=VALUE", help="the same as --set, anywhere"
    ),
    SET,
    option(
        "--show",
        action="store_true",
        help="print the recipe with the overrides applied and do nothing",
    ),
    JSON,
)


def run(args: argparse.Namespace) -> int:
    """Run the recipe; prints where the checkpoint is."""
    from janusvln_ros.training.recipes import load_recipe  # the libraries of training: seconds

    words = [args.recipe, *args.changes]
    named = [word for word in words if "=" not in word or Path(word).is_file()]
    told = ", ".join(named) or "none"
    require(len(named) == 1, f"name one recipe, not {told}; write FIELD=VALUE for a change to it")
    changes = [word for word in words if word not in named]
    recipe, first = load_recipe(named[0], changes + args.set), _is_first()
    if args.show:
        if first:
            answer(
                args.json,
                asdict(recipe),
                lambda fields: yaml.safe_dump(fields, sort_keys=False).removesuffix("\n"),
            )
        return 0
    require_folder(recipe.output)
    from janusvln_ros.training.run import train

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # the trainer prints its log; stdout is kept for the result
    with contextlib.redirect_stdout(sys.stderr):
        result = train(recipe)
    if not first:
        return 0
    answer(
        args.json,
        result,
        lambda result: (
            f"trained {result['steps']} steps, loss {result['loss']}; checkpoint in "
            f"{result['checkpoint']}"
        ),
    )
    if result.get("left_out"):
        say("\n".join(left_out_page(result, result["trajectories"], "trajectories")))
    return 0


def _is_first() -> bool:
    """Whether this process is the one of those that torchrun started which speaks for all."""
    from janusvln_ros.rollout.shards import Cluster

    return Cluster.from_environment().rank == 0
