"""
How the language model reads an episode: the two modes of memory, behind one small interface.

`Released` reads, at every step, a prompt of at most ``num_history + 1`` pictures anew, as the
published code does. `Dual` reads every frame once and keeps what it understood. Both are given a
frame's appearance and geometry, and return the hidden states that score the answer; both change
what they remember only in ``commit``.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.dual import (
    FrameLayout,
    SemanticMemory,
    read_answer,
    read_frame,
    read_prompt,
)
from janusvln_ros.model.janusvln import StepCache, prompt_positions
from janusvln_ros.model.memory import FrameWindow
from janusvln_ros.policy.decoding import ActionTree
from janusvln_ros.policy.history import sample_history
from janusvln_ros.policy.prompt import (
    Style,
    dual_prefix_ids,
    executed_ids,
    frame_ids,
    leaf_ids,
    released_prompt_ids,
)

FEATURE_FRAMES = 512
"""
Frames of features set aside in the released mode: no episode of VLN-CE is longer.

A longer one doubles them, again and again.
"""


class NonFiniteError(InputError):
    """The network produced numbers that are not finite; the frame was not remembered."""


def require_finite(values: Tensor, what: str) -> None:
    """Raise NonFiniteError if a number of ``values`` is not finite."""
    if not bool(torch.isfinite(values).all()):
        raise NonFiniteError(
            f"{what} are not finite numbers: the checkpoint is damaged, or its dtype "
            "too narrow; try another copy, or dtype='float32'"
        )


class Reading(Protocol):
    """
    What the navigator needs of a mode.

    ``executed`` is the action that led to the current frame, None before the first one or where
    nobody knows; it only matters to a `Dual` whose checkpoint remembers actions.
    """

    executed: Action | None

    def begin(self, instruction: str) -> None:
        """
        A new episode: forget everything.

        InputError (and nothing forgotten) if the instruction cannot be used.
        """

    def read(
        self,
        vision_nD: Tensor,
        geometry_nD: Tensor,
        grid: tuple[int, int],
        tree: ActionTree | None,
    ) -> Tensor:
        """
        Read the current frame (``grid`` merge groups) and the question; hidden states [1 + tree
        tokens, D], the question's last row first.
        """

    def observe(self, vision_nD: Tensor, geometry_nD: Tensor, grid: tuple[int, int]) -> None:
        """Read the current frame without a question."""

    def answer(self, token: int) -> Tensor:
        """Read one more token of the answer; the hidden state [1, D] that scores the next."""

    def commit(self) -> None:
        """Remember the frame that was read last."""

    @property
    def prompt(self) -> Sequence[int]:
        """Tokens of the prompt read last, for the repetition penalty."""

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered."""


class Released:
    """
    The published way: history frames sampled evenly, all of them read again with the geometry of
    the current one.

    What the vision tower says of a frame never changes and is kept. On a GPU it is kept in the
    host's memory, so that the device's does not depend on the length of the episode; nine pictures
    travel at each step.
    """

    def __init__(
        self, model: JanusVLN, tokenizer: PreTrainedTokenizerBase, style: Style, answer_tokens: int
    ) -> None:
        self.model, self.tokenizer, self.style, self.answer_tokens = (
            model,
            tokenizer,
            style,
            answer_tokens,
        )
        self.executed: Action | None = None
        self.seen = 0
        self.instruction = ""
        self.features_FnD: Tensor | None = None
        self.cache: StepCache | None = None
        self._prompts: dict[
            tuple[int, tuple[int, int]], tuple[list[int], Tensor, Tensor, int]
        ] = {}
        self._prompt: list[int] = []
        self._begun = False
        self._next = 0

    @property
    def prompt(self) -> Sequence[int]:
        """See `Reading`."""
        return self._prompt

    @property
    def nbytes(self) -> int:
        """See `Reading`."""
        return (self.features_FnD.nbytes if self.features_FnD is not None else 0) + (
            self.cache.nbytes if self.cache else 0
        )

    def begin(self, instruction: str) -> None:
        """See `Reading`."""
        ids = released_prompt_ids(self.tokenizer, instruction, 1, 1, self.style)
        check_context(self.model, len(ids), self.answer_tokens)
        self.instruction = instruction
        self.seen = 0
        self._begun = False
        self._prompts.clear()

    def observe(self, vision_nD: Tensor, geometry_nD: Tensor, grid: tuple[int, int]) -> None:
        """See `Reading`: only the frame's appearance is kept."""
        n, D = vision_nD.shape
        if self.features_FnD is None or (self.seen == 0 and self.features_FnD.shape[1:] != (n, D)):
            self.features_FnD = self._features(FEATURE_FRAMES, n, D, vision_nD)
        elif self.seen == len(self.features_FnD):
            longer = self._features(2 * self.seen, n, D, vision_nD)
            longer[: self.seen] = self.features_FnD
            self.features_FnD = longer
        self.features_FnD[self.seen] = vision_nD

    @staticmethod
    def _features(frames: int, n: int, D: int, like: Tensor) -> Tensor:
        # Filled, not only reserved, so that memory does not grow while an episode is driven.
        return torch.full(
            (frames, n, D), 0.0, dtype=like.dtype, pin_memory=like.device.type == "cuda"
        )

    def read(
        self,
        vision_nD: Tensor,
        geometry_nD: Tensor,
        grid: tuple[int, int],
        tree: ActionTree | None,
    ) -> Tensor:
        """See `Reading`."""
        model, device = self.model, vision_nD.device
        # Asked first, as it may refuse the instruction.
        indices = sample_history(self.seen + 1, model.config.navigation.num_history)
        ids, ids_L, positions_3L, self._next = self._prompt_of(len(indices), grid)
        self.observe(vision_nD, geometry_nD, grid)
        assert self.features_FnD is not None
        images_knD = self.features_FnD[indices].to(device, non_blocking=True)
        embeds_LD = model.embed(ids_L, model.fuse(images_knD, geometry_nD).flatten(0, 1))

        self._prompt = ids
        cache = self._cache(grid, tree)
        cache.length = ids.index(model.config.image_token_id)
        # what stands before the first picture is the same at every step: read once
        if not self._begun:
            cache.length, begin = 0, cache.length
            model.read_last(embeds_LD[:begin], positions_3L[:, :begin], cache)
            require_finite(
                cache.v_L1HND[:, :, :, :begin], "the prompt's values in the language model"
            )
            self._begun = True
        hidden_1D = model.read_last(
            embeds_LD[cache.length :], positions_3L[:, cache.length :], cache
        )
        if tree is None or not tree.tokens:
            return hidden_1D
        branches_TD = model.language.embed_tokens(torch.tensor(tree.tokens, device=device))
        positions_3T = (self._next + torch.tensor(tree.depths, device=device)).expand(3, -1)
        visible_TK = torch.cat(
            [torch.ones(len(tree.tokens), len(ids), dtype=torch.bool), tree_mask(tree.parents)],
            dim=1,
        ).to(device)
        return torch.cat([hidden_1D, model.read(branches_TD, positions_3T, cache, visible_TK)])

    def _prompt_of(
        self, images: int, grid: tuple[int, int]
    ) -> tuple[list[int], Tensor, Tensor, int]:
        """
        Ids (as a list and on the device), positions and next position of a prompt with so many
        images; the same ones come at every step.
        """
        key = (images, grid)
        if key not in self._prompts:
            config, device = self.model.config, self.model.device
            most = config.navigation.num_history + 1
            for k in (images, most):  # whether the longest prompt fits is known at the first frame
                ids = released_prompt_ids(
                    self.tokenizer, self.instruction, k, grid[0] * grid[1], self.style
                )
                positions_3L, end = prompt_positions(ids, config.image_token_id, *grid)
                check_context(self.model, end, self.answer_tokens)
                self._prompts[k, grid] = (
                    ids,
                    torch.tensor(ids, device=device),
                    positions_3L.to(device),
                    end,
                )
        return self._prompts[key]

    def _cache(self, grid: tuple[int, int], tree: ActionTree | None) -> StepCache:
        longest = len(self._prompt_of(self.model.config.navigation.num_history + 1, grid)[0])
        rows = longest + max(self.answer_tokens, len(tree.tokens) if tree else 0)
        if self.cache is None or self.cache.capacity < rows:
            text = self.model.config.text
            heads, head_dim = (
                text.num_key_value_heads or text.num_attention_heads,
                text.hidden_size // text.num_attention_heads,
            )
            self._begun = False
            self.cache = StepCache(
                text.num_hidden_layers, heads, head_dim, rows, self.model.dtype, self.model.device
            )
        return self.cache

    def answer(self, token: int) -> Tensor:
        """See `Reading`."""
        assert self.cache is not None
        device = self.model.device
        position_31 = torch.full((3, 1), self._next, device=device)
        hidden_1D = self.model.read(
            self.model.language.embed_tokens(torch.tensor([token], device=device)),
            position_31,
            self.cache,
        )
        self.cache.length += 1
        self._next += 1
        return hidden_1D

    def commit(self) -> None:
        """See `Reading`."""
        self.seen += 1


class Dual:
    """
    The paper's way: each frame is read once, with its own geometry, and remembered; see
    `janusvln_ros.model.dual`.

    With ``navigation.action_memory = "executed"`` the executed action stands before each frame, in
    the memory.
    """

    def __init__(
        self,
        model: JanusVLN,
        tokenizer: PreTrainedTokenizerBase,
        answer_tokens: int,
        window: FrameWindow,
        cuda_graphs: bool = False,
    ) -> None:
        self.model, self.tokenizer, self.answer_tokens, self.window = (
            model,
            tokenizer,
            answer_tokens,
            window,
        )
        self.cuda_graphs = cuda_graphs
        self.executed: Action | None = None
        self.question = leaf_ids(tokenizer)
        self.memory: SemanticMemory | None = None
        self._prompt: list[int] = []
        self._begun = False
        self._frame: list[int] = []

    @property
    def prompt(self) -> Sequence[int]:
        """See `Reading`."""
        return self._prompt

    @property
    def nbytes(self) -> int:
        """See `Reading`."""
        return self.memory.nbytes if self.memory else 0

    def begin(self, instruction: str) -> None:
        """See `Reading`. The prompt is read with the first frame."""
        ids = dual_prefix_ids(self.tokenizer, instruction)
        check_context(self.model, len(ids) + len(self.question), self.answer_tokens)
        self._prompt, self._begun = ids, False

    def read(
        self,
        vision_nD: Tensor,
        geometry_nD: Tensor,
        grid: tuple[int, int],
        tree: ActionTree | None,
    ) -> Tensor:
        """See `Reading`."""
        branches = (tree.tokens, tree.parents, tree.depths) if tree else ((), (), ())
        return self._read(vision_nD, geometry_nD, grid, self.question, *branches)

    def observe(self, vision_nD: Tensor, geometry_nD: Tensor, grid: tuple[int, int]) -> None:
        """See `Reading`."""
        self._read(vision_nD, geometry_nD, grid, [], (), (), ())
        assert self.memory is not None
        begin = self.memory.remembered_rows  # no scores will tell
        require_finite(
            self.memory.v_LKND[:, :, begin : begin + self.memory.layout.rows],
            "the frame's values in the language model",
        )

    def _read(
        self,
        vision_nD: Tensor,
        geometry_nD: Tensor,
        grid: tuple[int, int],
        question: Sequence[int],
        *branches: Sequence[int],
    ) -> Tensor:
        model = self.model
        before = (
            executed_ids(self.tokenizer, self.executed)
            if model.config.navigation.action_memory == "executed"
            else []
        )
        layout = FrameLayout(*grid, before=len(before))
        if self.memory is None or (
            self.memory.layout != layout and not (self._begun and self.memory.seen)
        ):
            self._begun = False
            leaf = len(self.question) + max(self.answer_tokens, len(branches[0]))
            self.memory = SemanticMemory(
                model.config.text,
                self.window,
                layout,
                leaf,
                dtype=model.dtype,
                device=model.device,
                cuda_graphs=self.cuda_graphs,
            )
            self._frame = frame_ids(self.tokenizer, grid[0] * grid[1])
        if not self._begun:
            read_prompt(model.language, self.memory, self._prompt)
            require_finite(
                self.memory.v_LKND[:, :, : self.memory.prompt_rows],
                "the instruction's values in the language model",
            )
            self._begun = True
        return read_frame(
            model.language,
            self.memory,
            [*before, *self._frame],
            model.fuse(vision_nD, geometry_nD),
            question,
            *branches,
        )

    def answer(self, token: int) -> Tensor:
        """See `Reading`."""
        assert self.memory is not None
        return read_answer(self.model.language, self.memory, token)

    def commit(self) -> None:
        """See `Reading`."""
        assert self.memory is not None
        self.memory.commit()


def tree_mask(parents: Sequence[int]) -> Tensor:
    """Which tokens of a tree see which, bool [T, T]: each sees itself and those it follows."""
    visible_TT = torch.eye(len(parents), dtype=torch.bool)
    for i, parent in enumerate(parents):
        if parent >= 0:
            visible_TT[i] |= visible_TT[parent]
    return visible_TT


def check_context(model: JanusVLN, positions: int, answer_tokens: int) -> None:
    """
    Raise InputError if a prompt of so many positions and its answer go beyond what the language
    model was made for.
    """
    limit = model.config.text.max_position_embeddings
    if positions + answer_tokens > limit:
        need = f"a prompt of {positions} positions and {answer_tokens} for the answer"
        raise InputError(
            f"the instruction makes {need}, the language model takes {limit}: shorten it"
        )
