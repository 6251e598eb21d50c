"""
Everything the navigator does to be fast changes nothing: against a naive network that keeps
nothing and computes all, every step.

Each test here fails when its short cut is wrong by one frame;
`test_short_cut_that_is_wrong_by_one_frame_shows` proves it.
"""

import copy

import numpy as np
import pytest
import torch

from janusvln_ros.model.checkpoint import Generation
from janusvln_ros.model.memory import FrameWindow, SpatialMemory
from janusvln_ros.model.network import prompt_positions
from janusvln_ros.policy import Action, Navigator, NavigatorOptions, context
from janusvln_ros.policy import picture as picture_module
from janusvln_ros.policy.decoding import repetition_penalty
from janusvln_ros.policy.preprocess import pixel_rows, resize, spatial_input
from janusvln_ros.policy.prompt import released_prompt_ids, sample_history

INSTRUCTION = "turn left at the door, then stop."
PENALTY = 1.3


class Naive:
    """
    The released mode without a memory of anything: all frames from the raw pictures, all rows, no
    cache, at every call.
    """

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer

    @torch.no_grad()
    def prompt(self, frames):
        model, navigation = self.model, self.model.config.navigation
        resized = [resize(rgb, navigation.image_width) for rgb in frames]
        height, width = resized[0].shape[:2]
        images = torch.from_numpy(np.stack([spatial_input(r) for r in resized]))
        spatial = model.spatial(
            images[None], FrameWindow(navigation.initial_frames, navigation.window_frames)
        )[0, -1]
        geometry = model.geometry(spatial, height, width)
        indices = sample_history(len(frames), navigation.num_history)
        rows, grids = zip(*(pixel_rows(resized[i]) for i in indices))
        vision = model.encode_vision(torch.from_numpy(np.concatenate(rows)), torch.tensor(grids))
        fused = vision + model.config.lam * geometry.repeat(len(indices), 1)
        ids = released_prompt_ids(self.tokenizer, INSTRUCTION, len(indices), len(geometry))
        return ids, fused, (grids[0][1] // 2, grids[0][2] // 2)

    @torch.no_grad()
    def scores(self, frames, answer=()):
        """
        Scores of what follows the prompt and ``answer``, penalty included, from one pass over
        everything and all rows of the head.
        """
        ids, fused, grid = self.prompt(frames)
        ids = [*ids, *answer]
        positions, _ = prompt_positions(ids, self.model.config.image_token_id, *grid)
        language = self.model.language
        output = language(
            inputs_embeds=self.model.embed(torch.tensor(ids), fused)[None],
            position_ids=positions[:, None],
            use_cache=False,
        )
        return repetition_penalty(self.model.lm_head(output.last_hidden_state)[0], ids, PENALTY)[
            -1
        ]


@pytest.fixture(scope="module")
def naive(network, tokenizer):
    return Naive(copy.deepcopy(network), tokenizer)


def released(network, tokenizer, decoding="free"):
    navigator = Navigator(
        network,
        tokenizer,
        NavigatorOptions(memory="released", decoding=decoding, keep_scores=True),
        generation=Generation((402,), PENALTY),
    )
    navigator.reset(INSTRUCTION)
    return navigator


@pytest.fixture(scope="module")
def naive_walk(naive, frames):
    """The first token's scores at every step."""
    return torch.stack([naive.scores(frames[: t + 1]) for t in range(14)])


def walk(navigator, frames):
    return torch.stack([navigator.step(rgb).scores[0] for rgb in frames[:14]])


def test_every_step_equals_computing_everything_anew(network, tokenizer, naive_walk, frames):
    torch.testing.assert_close(
        walk(released(network, tokenizer), frames), naive_walk, atol=1e-4, rtol=1e-4
    )


def test_tokens_of_an_answer_equal_reading_prompt_and_answer_anew(
    network, tokenizer, naive, frames
):
    navigator = released(network, tokenizer)
    for t in range(7):
        decision = navigator.step(frames[t])
        answer = []
        for token, row in zip(decision.token_ids, decision.scores, strict=True):
            torch.testing.assert_close(
                row, naive.scores(frames[: t + 1], answer), atol=1e-4, rtol=1e-4
            )
            assert token == int(row.argmax())
            answer.append(token)
        assert len(answer) == 3 or answer[-1] == 402


def test_forced_tokens_change_no_probability(network, tokenizer, naive, frames):
    """
    Constrained decoding reads a few branch tokens at once; here every word is read token by token,
    each from the start.
    """
    navigator = released(network, tokenizer, "constrained")
    tree = navigator.tree
    for t in range(6):
        decision = navigator.step(frames[t])
        expected = {}
        for action, word in tree.words.items():
            chance = 1.0
            for i, token in enumerate(word):
                rivals = sorted({w[i] for w in tree.words.values() if w[:i] == word[:i]})
                odds = torch.softmax(
                    naive.scores(frames[: t + 1], word[:i])[rivals].double(), dim=-1
                )
                chance *= float(odds[rivals.index(token)])
            expected[action] = chance
        assert decision.probabilities == pytest.approx(expected, abs=1e-4)
        assert decision.action == max(Action, key=expected.get)
    assert tree.tokens, (
        "the tokenizer must spell the words in several tokens, else nothing was tested"
    )


def test_one_image_and_one_preprocessing_a_step(network, tokenizer, frames, monkeypatch):
    navigator = released(copy.deepcopy(network), tokenizer)
    images, prepared, head_rows = [], [], []
    encode = navigator.model.encode_vision
    navigator.model.encode_vision = lambda rows, grid: (
        images.append(len(grid)),
        encode(rows, grid),
    )[1]
    monkeypatch.setattr(picture_module, "resize", lambda *a: (prepared.append(1), resize(*a))[1])
    navigator.model.lm_head.register_forward_hook(
        lambda module, inputs, output: head_rows.append(len(inputs[0]))
    )
    walk(navigator, frames)
    assert images == [1] * 14 and len(prepared) == 14
    assert set(head_rows) == {1}


def test_the_last_pair_of_spatial_blocks_is_not_there(network):
    assert (
        len(network.spatial.frame_blocks)
        == len(network.spatial.global_blocks)
        == network.config.spatial.depth - 1
    )


@pytest.mark.parametrize("mode", ["released", "dual"])
def test_buffers_are_made_at_the_first_frame_and_never_again(network, tokenizer, frames, mode):
    navigator = Navigator(
        network,
        tokenizer,
        NavigatorOptions(memory=mode, decoding="constrained", allow_untrained_memory=True),
    )
    navigator.reset(INSTRUCTION)

    def buffers():
        r = navigator.context
        language = (
            (r.features_FMD, r.cache.k_BZNKH)
            if mode == "released"
            else (r.memory.k_BZNKH, r.memory.v_BZNKH)
        )
        return [
            (t.data_ptr(), t.shape)
            for t in (navigator.spatial.k_BZNKH, navigator.spatial.v_BZNKH, *language)
        ]

    navigator.step(frames[0])
    first, size = buffers(), navigator.memory_bytes
    for rgb in frames[1:]:
        navigator.step(rgb)
    navigator.reset(INSTRUCTION)
    navigator.step(frames[0])
    assert buffers() == first and navigator.memory_bytes == size


def test_episode_longer_than_was_set_aside_goes_on(
    network, tokenizer, naive_walk, frames, monkeypatch
):
    monkeypatch.setattr(context, "FEATURE_FRAMES", 3)
    torch.testing.assert_close(
        walk(released(network, tokenizer), frames), naive_walk, atol=1e-4, rtol=1e-4
    )


def later_history(n, k):
    return [min(i + 1, n - 1) for i in sample_history(n, k)]


def shifted_features(self, indices):
    return self.original[[max(i - 1, 0) for i in indices]]


@pytest.mark.parametrize(
    "wrong", ["history", "features", "slot", "window", "initial", "first frame", "geometry"]
)
def test_short_cut_that_is_wrong_by_one_frame_shows(
    network, tokenizer, naive_walk, frames, monkeypatch, wrong
):
    network = copy.deepcopy(network)
    navigator = released(network, tokenizer)
    if wrong == "history":
        monkeypatch.setattr(context, "sample_history", later_history)
    elif wrong == "features":  # every frame kept in its neighbour's place
        kept, read = navigator.context, navigator.context.read

        def late(frame):
            if kept.seen:
                kept.features_FMD[kept.seen - 1] = frame.vision_MD
            return read(frame)

        kept.read = late
    elif wrong == "slot":  # a frame overwrites one that is still to be seen
        monkeypatch.setattr(
            FrameWindow,
            "slot",
            lambda self, f: (
                f
                if f < self.initial
                else self.initial + (f - self.initial + (f >= 6)) % (self.window + 1)
            ),
        )
    elif wrong in ("window", "initial"):
        made = network.spatial.new_memory
        network.spatial.new_memory = lambda h, w, fw, _: made(
            h, w, FrameWindow(fw.initial + (wrong == "initial"), fw.window + (wrong == "window"))
        )
    elif wrong == "first frame":  # the second frame is taken for the first as well
        encode = network.spatial.encode_frame

        def twice(image, memory):
            if memory.seen != 1:
                return encode(image, memory)
            alone = SpatialMemory(
                len(network.spatial.global_blocks),
                2,
                16,
                memory.tokens,
                memory.window,
                torch.float32,
                "cpu",
            )
            return encode(image, alone)

        network.spatial.encode_frame = twice
    else:  # the geometry of the frame before
        fuse, before = network.fuse, []

        def late_geometry(vision, geometry):
            before.append(geometry)
            return fuse(vision, before[-2] if len(before) > 1 else geometry)

        network.fuse = late_geometry
    difference = (walk(navigator, frames) - naive_walk).abs().amax(dim=1)
    assert difference.max() > 1e-2, difference
