"""
How well a checkpoint tells noise and what it may not understand from what it was taught:

    python benchmarks/understanding.py [CHECKPOINT] [--results RUN/results.jsonl] [--json FILE]

Of 50 texts that are no instructions, how many are refused (wanted: 90 % or more); of 500 that are,
from the generator in homes of their own, held-out words and patterns in half of them, and written
by hand in the manner of R2R and RxR, how many are refused (wanted: at most 2 %) and how many are
warned of. With the results of an evaluation: how often it warned where the drive failed, and where
it succeeded. The thresholds of `janusvln_ros.policy.understanding` were chosen by it. Prints the
texts that were judged wrongly, for whoever goes on.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from janusvln_ros.errors import require
from janusvln_ros.evaluation.intervals import wilson
from janusvln_ros.files import atomic_write
from janusvln_ros.policy import default_checkpoint
from janusvln_ros.policy.understanding import Vocabulary, understanding
from sim_bridge.homes.dataset import home_seed
from sim_bridge.homes.episodes import make_episodes, make_home
from sim_bridge.homes.language import route_facts, tell

UNDERSTANDABLE = 500
ROUTES_PER_HOME = 6
TEXTS_PER_ROUTE = 4
SEED, FAMILY = 91, "understanding"
"""Of homes that belong to no split."""

NOISE = tuple(
    """
asdf
qwe rty
....
12345
aaaaaaaaaaaa
x
k k k k k k
?!?!
fjdksla fjdksla
lkjhgf poiuyt mnbvcx
sdfkj sldkfj wieur xcmvn
test 123
hmm
uh um er hmm
hello
hi there how are you doing
good morning everybody
what is the weather like today?
who won the football match last night?
how old are you?
tell me a joke
play some jazz music
set a timer for ten minutes
what time is it
banana invoice Tuesday
purple monkey economics
elephant bitcoin parliament sunshine
the quick brown fox jumps over the lazy dog
lorem ipsum dolor sit amet consectetur adipiscing elit
to be or not to be, that is the question
colourless green ideas sleep furiously
I had pasta for dinner yesterday
my sister studies biology at the university
the stock market fell by three percent on Monday
we hold these truths to be self-evident
happy birthday dear grandmother
SELECT * FROM users WHERE id = 7;
https://example.org/index.html?page=2
user@example.org
def main(): return None
0x7fff5fbff8a0
3.14159 2.71828
走到门口
подойди к двери
अगले कमरे में जाओ
ドアまで進んで
🚪🚪🚪
la la la la la
zxcvbnm qwertyuiop
n0t4w0rd 4t 4ll
""".strip().splitlines()
)

BY_HAND = tuple(
    """
go left
stop
turn around
straight then right
to the sofa
walk forward
take a right
left, left, right
past the table and stop
into the hallway
please go to the red lamp
enter the blue room
find the bathtub
second door on the right
behind you, then through the door
Walk past the bed and out of the bedroom. Turn left and stop at the top of the stairs.
Exit the bathroom, turn right, walk down the hallway and stop in front of the second door.
Walk through the kitchen past the refrigerator and wait next to the dining room table.
Go straight down the hall and into the office at the end. Stop by the desk.
Leave the closet and turn left. Go past the nightstand and wait by the door to the balcony.
Turn around and walk through the living room. Stop beside the fireplace.
Go around the couch and enter the doorway on the left. Wait near the sink.
Walk up to the bookshelf, make a sharp left, and continue until you reach the piano.
With the window behind you, head through the archway and stop next to the round table.
Walk along the counter, turn right at the refrigerator, and stop just inside the pantry.
Exit the laundry room. Turn left, then right, and stop at the entrance to the bathroom.
Go down the corridor, passing two doors on your left, and enter the third. Stop at the bed.
Head towards the glass doors, turn left before them and wait by the potted plant.
Walk straight through the foyer, past the mirror, and stop at the foot of the staircase.
Turn right and go past the washing machine. Stop when you get to the ladder.
Leave the room by the door nearest the wardrobe and go into the room across the hall.
Walk between the sofa and the television and go through the door on the far side.
Cross the room diagonally and stop in front of the clock in the corner.
You are facing a wall. Turn to your left and you will see a bed. Walk past it and stop.
You are standing in front of a door. Turn right, walk past the chairs and stop at the desk.
You start in a bedroom facing the window, turn around until you see the open door, go out of it.
Now you are in a hallway. Walk straight to the end of it, and there take the door to your right.
Turn slightly to your left, go forward and you will see a white door, go through that door.
We are in a room with green walls. Go out of the door to the right of the shelf and stop there.
Okay, so you want to go out of this room, take a left, and stop once you're at the fridge.
Move forward to the brown cabinet, then make a left and move to the far end of the room.
Keep the wall on your right and walk until you come to an opening, then turn into it.
In front of you is a table with chairs. Go around it, through the doorway and stop at the rug.
Step out of the bathroom, turn left and walk straight until you reach the toilet in the next room.
You'll see a hallway to your right, go down it, and at the end enter the door on the left.
head to the box in the corner of the next room
GO THROUGH THE DOOR AND STOP AT THE CHAIR
trun lfet and go thruogh the dor
could you please drive to the barrel in the hallway
leave this room and go to the room with blue walls, wait by the stove
go past the column, not the ladder, and stop at the plant
out the door, left, second room on the right
door, hallway, right, red room, bathtub
forward until the wall, then right until the door
take the door on the other side of the room and look for the yellow box
walk to the end of the hall and turn toward the lamp
go back the way you came and stop at the stool
continue past the fireplace and out the opposite door
turn your back to the bed and walk straight ahead
the green chair in the first room on the left
""".strip().splitlines()
)
"""Directions that people might give, in the manner of R2R and RxR."""


def generated(count: int) -> list[str]:
    """``count`` texts of the generator for routes in homes of their own, half with what is held
    out of training."""
    rng, texts = np.random.default_rng(SEED), list[str]()
    home = 0
    while len(texts) < count:
        one = make_home(f"{FAMILY}_{home}", home_seed(SEED, FAMILY, home), generator=2)
        for episode, _ in make_episodes(one, ROUTES_PER_HOME, 3, unseen=True):
            facts = route_facts(one.plan, one.things, episode)
            texts += [tell(rng, facts, held_out=k % 2 == 0) for k in range(TEXTS_PER_ROUTE)]
        home += 1
    return texts[:count]


def verdicts(texts: Iterable[str], vocabulary: Vocabulary) -> list[str]:
    """What each text is to the checkpoint."""
    return [understanding(text, vocabulary).verdict for text in texts]


def share(found: Sequence[bool]) -> dict[str, Any]:
    """A rate with its 95 % interval."""
    if not found:
        return {"of": 0, "rate": None, "rate_ci95": None}
    return {
        "of": len(found),
        "rate": sum(found) / len(found),
        "rate_ci95": list(wilson(sum(found), len(found))),
    }


def of_results(path: Path, vocabulary: Vocabulary) -> dict[str, Any]:
    """How often it warns or refuses where drives failed and where they succeeded, at 3 and 1 m."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = verdicts((line["instruction_given"] for line in lines), vocabulary)
    warned = [verdict != "understood" for verdict in told]
    return {
        f"{key}_{end}": share([w for w, x in zip(warned, lines) if (x[key] > 0) == good])
        for key in ("success", "success_1m")
        for end, good in (("failed", False), ("reached", True))
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("checkpoint", nargs="?", type=Path, default=default_checkpoint())
    parser.add_argument("--results", type=Path, help="results.jsonl of an evaluation with it")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    vocabulary = Vocabulary.load(args.checkpoint)
    require(
        vocabulary is not None,
        f"{args.checkpoint} does not say what it was taught with (words.json and "
        "words.safetensors), so that nothing is refused or warned of: give one that 'janusvln "
        "train' wrote",
    )
    assert vocabulary is not None
    texts = {
        "noise": list(NOISE),
        "by_hand": list(BY_HAND),
        "generated": generated(UNDERSTANDABLE - len(BY_HAND)),
    }
    told = {name: verdicts(group, vocabulary) for name, group in texts.items()}
    figures: dict[str, Any] = {
        f"{name}_{verdict}": share([v == verdict for v in told[name]])
        for name in texts
        for verdict in ("noise", "doubtful")
    }
    good = told["by_hand"] + told["generated"]
    figures["understandable_noise"] = share([v == "noise" for v in good])
    figures["understandable_doubtful"] = share([v == "doubtful" for v in good])
    if args.results:
        figures |= of_results(args.results, vocabulary)
    for name, group in texts.items():
        for text, verdict in zip(group, told[name]):
            if (verdict == "noise") != (name == "noise") or verdict == "doubtful":
                reasons = "; ".join(understanding(text, vocabulary).reasons)
                print(f"{name}, {verdict}: {text!r}: {reasons}")
    for name, group in told.items():
        print(f"{name}: {dict(Counter(group))}")
    for name, value in figures.items():
        rate = "-" if value["rate"] is None else f"{100 * value['rate']:.1f} %"
        print(f"{name:24} {rate} of {value['of']}")
    if args.json:
        atomic_write(args.json, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
