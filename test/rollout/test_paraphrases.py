"""What people say about ways, drawn for training and for the episodes of a data set."""

from pathlib import Path

import numpy as np
import pytest

from janusvln_ros.data.episodes import is_unseen_text
from janusvln_ros.errors import InputError
from janusvln_ros.rollout import paraphrases
from janusvln_ros.rollout.paraphrases import RETOLD, paraphrase, retold, routes
from janusvln_ros.rollout.tally import Scene
from sim_bridge.homes.dataset import home_seed
from sim_bridge.homes.episodes import make_episodes, make_home
from sim_bridge.homes.language.lexicon import HELD_OUT_WORDS

DATA = Path("no file is read")


@pytest.fixture(scope="module")
def facts():
    return routes(7, 3)


@pytest.fixture(scope="module")
def home():
    return make_home("house_00000", home_seed(0, "house", 0))


@pytest.fixture(scope="module")
def episodes(home):
    return [episode for episode, _ in make_episodes(home, 6, 0, unseen=False)]


@pytest.fixture
def known(home, monkeypatch):
    """The home of the episodes is known."""
    scene = Scene(home.plan, home.things)
    monkeypatch.setattr(paraphrases, "scene_of", lambda data_dir, episode: scene)


def words(text):
    return set(text.lower().replace(",", " ").replace(".", " ").split())


def test_another_seed_tells_of_other_homes(facts):
    assert routes(7, 3) == facts and routes(8, 3) != facts


def test_what_training_says_has_no_word_held_out_and_no_text_of_unseen_splits(facts):
    rng = np.random.default_rng(1)
    said = [paraphrase(rng, facts)[0] for _ in range(200)]
    assert not any(words(text) & HELD_OUT_WORDS or is_unseen_text(text) for text in said)
    odd = [paraphrase(rng, facts, held_out=True)[0] for _ in range(60)]
    assert sum(bool(words(text) & HELD_OUT_WORDS) for text in odd) > 20


def test_a_thing_that_is_known_by_the_first_rooms_colour_alone_stays_a_thing(facts):
    rng = np.random.default_rng(2)
    drawn = [paraphrase(rng, facts) for _ in range(1500)]
    told = [(said, plain) for said, plain in drawn if "thing" in words(plain)]
    # generator 1 says so; who says "the lamp with the colour of ..." is told of a lamp
    assert told and all("thing" in words(said) for said, _ in told)
    kinds = [plain for _, plain in drawn if "where you started" in plain.split(".")[-2]]
    assert any("the thing with" not in plain for plain in kinds)


def test_ways_are_told_in_the_mirror_too_and_plain_sentences_follow(facts):
    seen = set()
    for k in range(300):
        _, plain = paraphrase(np.random.default_rng(k), facts[:1])
        seen |= {w for w in ("left", "right") if plain.startswith(f"Turn {w}")}
    assert seen in ({"left", "right"}, set())


@pytest.mark.parametrize("form", RETOLD)
def test_an_episode_is_always_told_in_the_same_words_whoever_else_is(known, episodes, form):
    texts = retold(DATA, episodes, form, 1)
    assert retold(DATA, episodes[::-1][:3], form, 1).items() <= texts.items()
    assert all(texts[e.identity] != e.instruction for e in episodes)


def test_plain_sentences_say_what_the_same_telling_says(known, episodes):
    said, plain = (retold(DATA, episodes, form, 1) for form in ("retold", "retold_plainly"))
    for episode in episodes:
        goal = episode.info["goal_landmark"].split()[-1]
        assert goal in plain[episode.identity]
        hands = words(plain[episode.identity]) & {"left", "right"}
        assert hands <= {h for h in ("left", "right") if h in said[episode.identity].lower()}


def test_ways_outside_generated_homes_cannot_be_told_anew(episodes, monkeypatch):
    monkeypatch.setattr(paraphrases, "scene_of", lambda data_dir, episode: None)
    with pytest.raises(InputError, match="generated homes"):
        retold(DATA, episodes, "retold", 1)
