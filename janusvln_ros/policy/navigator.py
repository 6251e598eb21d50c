"""The navigator: an instruction and camera frames in, one action per frame out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN
from janusvln_ros.model import checkpoint as files
from janusvln_ros.model.checkpoint import Generation
from janusvln_ros.model.config import Decoding, Memory
from janusvln_ros.model.memory import FrameWindow, SpatialMemory
from janusvln_ros.model.quantization import (
    PRECISIONS,
    SPATIAL_PRECISIONS,
    quantize_language,
    quantized_spatial_memory,
    unquantized_dtype,
)
from janusvln_ros.policy.decision import Decision
from janusvln_ros.policy.decoding import (
    ActionTree,
    action_tree,
    most_probable,
    parse_action,
    repetition_penalty,
)
from janusvln_ros.policy.preprocess import MERGE, PATCH, pixel_rows, resize, spatial_input, to_rgb
from janusvln_ros.policy.prompt import Style
from janusvln_ros.policy.reading import Dual, NonFiniteError, Reading, Released, require_finite
from janusvln_ros.policy.tokenizer import load_tokenizer

__all__ = ["Navigator", "NonFiniteError", "as_device"]

STAGES = ("preprocess", "spatial", "vision", "prefill", "decode")


@dataclass(frozen=True)
class _Encoded:
    """A frame after both encoders."""

    vision: Tensor  # [n, D]
    geometry: Tensor  # [n, D]
    spatial: Tensor  # [P, 2C], special tokens first
    grid: tuple[int, int]


class Navigator:
    """
    Follows one instruction at a time: ``reset(instruction)``, then ``step(frame)`` for every
    frame.

    Both memories have a fixed size and belong to the episode. A step changes them only when it is
    committed, as the last thing it does: one that fails, or is taken back, leaves them as they
    were.

    Not thread-safe: one thread owns a navigator.

    Args:
        model: the network, in evaluation mode.
        tokenizer: of the same checkpoint.
        memory: ``released`` or ``dual``; the one the checkpoint was trained for if None.
        decoding: ``free`` or ``constrained``; the one the checkpoint was trained for if None.
        prompt: which of the two published prompts (``released`` only).
        generation: end tokens and repetition penalty; the end token of the config and no penalty
            if None.
        keep_scores: keep scores and spatial tokens in every `Decision`.
        allow_untrained_memory: accept a ``memory`` that the checkpoint was not trained for.
        spatial_precision: ``int8`` or ``float8`` keeps the spatial memory in one byte a number;
            the weights' dtype if None.
        semantic_window: ``dual``: first and last frames that the language model remembers, to
            knock its memory out; as in the config if None.
        use_geometry: False leaves the spatial encoder's share out of every token, to knock it out.
        cuda_graphs: ``dual`` on a GPU: replay the language model from a recording once the window
            is full.

    Raises:
        InputError: an unknown mode, a ``memory`` that the checkpoint was not trained for, or a
            tokenizer of another checkpoint.
    """

    def __init__(
        self,
        model: JanusVLN,
        tokenizer: PreTrainedTokenizerBase,
        *,
        memory: Memory | None = None,
        decoding: Decoding | None = None,
        prompt: Style = "evaluation",
        generation: Generation | None = None,
        keep_scores: bool = False,
        allow_untrained_memory: bool = False,
        spatial_precision: str | None = None,
        semantic_window: tuple[int, int] | None = None,
        use_geometry: bool = True,
        cuda_graphs: bool = False,
    ) -> None:
        config, navigation = model.config, model.config.navigation
        self.model, self.tokenizer, self.keep_scores = model, tokenizer, keep_scores
        self.memory: Memory = memory or navigation.memory
        self.decoding: Decoding = decoding or navigation.decoding
        self.generation = generation or Generation(files.end_tokens(config))
        for name, value, choices in (
            ("memory", self.memory, ("released", "dual")),
            ("decoding", self.decoding, ("free", "constrained")),
            ("prompt", prompt, ("evaluation", "training")),
            ("spatial_precision", spatial_precision, (None, *SPATIAL_PRECISIONS)),
        ):
            if value not in choices:
                raise InputError(f"{name} is {value!r}: choose {' or '.join(map(str, choices))}")
        if self.memory == "dual" and navigation.memory != "dual" and not allow_untrained_memory:
            raise InputError(
                "memory is 'dual', but this checkpoint was trained for 'released' and "
                "would answer at random: "
                "use memory='released', train one for dual, or pass "
                "allow_untrained_memory=True to measure it anyway"
            )
        pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        if pad != config.image_token_id or len(tokenizer) > config.text.vocab_size:
            raise InputError(
                f"the tokenizer ({len(tokenizer)} tokens, image token {pad}) does not "
                f"fit the network ({config.text.vocab_size}, {config.image_token_id}): "
                "take both from one checkpoint"
            )
        self._tree: ActionTree | None = (
            action_tree(tokenizer) if self.decoding == "constrained" else None
        )
        answer_tokens = 0 if self._tree else navigation.max_new_tokens
        trained_with = (
            (navigation.initial_frames, navigation.window_frames)
            if navigation.semantic_memory
            else (0, 0)
        )
        kept = FrameWindow(*(semantic_window or trained_with))
        graphs = cuda_graphs and model.device.type == "cuda"
        self._reading: Reading = (
            Dual(model, tokenizer, answer_tokens, kept, graphs)
            if self.memory == "dual"
            else Released(model, tokenizer, prompt, answer_tokens)
        )
        self._spatial: SpatialMemory | None = None
        self._spatial_precision = spatial_precision
        self._use_geometry = use_geometry
        self._decided: Action | None = None  # about the frame read last
        self._led_here: Action | None = None  # what was decided about the frame remembered last
        self._frame_shape: tuple[int, ...] | None = None  # of the episode's raw frames
        self._instruction: str | None = None
        self._seen = 0
        self._pending = False

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        *,
        memory: Memory | None = None,
        decoding: Decoding | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        prompt: Style = "evaluation",
        keep_scores: bool = False,
        allow_untrained_memory: bool = False,
        spatial_precision: str | None = None,
        semantic_window: tuple[int, int] | None = None,
        use_geometry: bool = True,
        cuda_graphs: bool = False,
    ) -> "Navigator":
        """
        Read network, tokenizer and generation settings of a checkpoint.

        Args:
            checkpoint: a folder, or a hub id.
            device: "cpu", "cuda", "cuda:1" ...
            dtype: of the weights; float32 on a CPU and the checkpoint's own elsewhere if None.
                "int8" and "int4" are weight-only precisions of the language model, see
                `janusvln_ros.model.quantization`.
            memory, decoding, prompt, keep_scores, allow_untrained_memory, spatial_precision,
            semantic_window, use_geometry, cuda_graphs: see the class.

        Raises:
            InputError: a checkpoint, device or mode that cannot be used; the message says what to
                do.
        """
        target = as_device(device)
        folder = files.find(checkpoint)
        dtype = dtype or ("float32" if target.type == "cpu" else None)
        model = files.load(
            folder,
            dtype=unquantized_dtype(dtype, target),
            device="cpu" if dtype in PRECISIONS else target,
        )
        if dtype in PRECISIONS:
            quantize_language(model, str(dtype), target)
        return cls(
            model,
            load_tokenizer(folder),
            memory=memory,
            decoding=decoding,
            prompt=prompt,
            generation=files.generation(folder, model.config),
            keep_scores=keep_scores,
            allow_untrained_memory=allow_untrained_memory,
            spatial_precision=spatial_precision,
            semantic_window=semantic_window,
            use_geometry=use_geometry,
            cuda_graphs=cuda_graphs,
        )

    @property
    def trained(self) -> bool:
        """
        Whether the weights were trained, as the checkpoint says; random ones answer at random.
        """
        return self.model.config.navigation.trained

    @property
    def instruction(self) -> str | None:
        """The instruction being followed; None before the first `reset`."""
        return self._instruction

    @property
    def frames_seen(self) -> int:
        """Frames remembered or forgotten since `reset`."""
        return self._seen

    @property
    def spatial_frames(self) -> list[int]:
        """
        Numbers of the frames in the spatial memory, ascending; frame 0 is the episode's first.
        """
        return self._spatial.frames if self._spatial and self._seen else []

    @property
    def memory_bytes(self) -> int:
        """
        Bytes of all memories, those of the language model included: made at the first frame, the
        same from then on.
        """
        return (self._spatial.nbytes if self._spatial else 0) + self._reading.nbytes

    def reset(self, instruction: str, *, allow_empty: bool = False) -> None:
        """
        Begin a new episode: both memories are emptied.

        Args:
            instruction: what to do, in words.
            allow_empty: accept a blank instruction, to measure what the words are good for.

        Raises:
            InputError: no text, a blank one, one with marks of the prompt, or one beyond the
                context; the old episode then goes on.
        """
        if not isinstance(instruction, str):
            raise InputError(f"the instruction is a {type(instruction).__name__}: give text")
        if not instruction.strip() and not allow_empty:
            raise InputError("the instruction is empty: say where to go")
        self._reading.begin(instruction)
        self._instruction = instruction
        self._led_here = None
        self._frame_shape = None
        self._pending = False
        self._seen = 0
        if self._spatial:
            self._spatial.reset()

    @torch.no_grad()
    def step(
        self,
        rgb: np.ndarray,
        *,
        commit: bool = True,
        keep_scores: bool | None = None,
        executed: Action | None = None,
    ) -> Decision:
        """
        Look at the current frame and decide.

        Args:
            rgb: uint8 [H, W, 3]; all frames of an episode have one size.
            commit: remember the frame. With False the decision can be taken back: `commit`
                remembers it, the next step otherwise forgets it.
            keep_scores: as in the class, for this step.
            executed: the action that led to this frame, if it is not the one decided last; matters
                only where ``navigation.action_memory`` is ``executed``.

        Raises:
            InputError: no episode, a frame that is none or has another size than the others; the
                memories stay as they were.
            NonFiniteError: weights or numbers went bad; the memories stay as they were.
        """
        keep = self.keep_scores if keep_scores is None else keep_scores
        clock = _Clock(self.model.device)
        frame = self._encode(rgb, clock)
        self._reading.executed = executed if executed is not None else self._led_here
        with clock.stage("prefill"):
            hidden_1D = self._reading.read(frame.vision, frame.geometry, frame.grid, self._tree)
            scores_1V = self._score(hidden_1D)
        with clock.stage("decode"):
            decision = self._choose(scores_1V) if self._tree else self._write(scores_1V)
        self._read(rgb)
        self._decided = decision.action
        if commit:
            self.commit()
        return Decision(
            action=decision.action,
            text=decision.text,
            token_ids=decision.token_ids,
            scores=decision.scores if keep else None,
            probabilities=decision.probabilities,
            timings=clock.timings(),
            spatial_tokens=frame.spatial.cpu() if keep else None,
        )

    @torch.no_grad()
    def observe(self, rgb: np.ndarray, *, executed: Action | None = None) -> None:
        """
        Remember a frame without deciding, while somebody else drives: memories have no gaps.

        Args:
            rgb, executed: as `step`.

        Raises:
            InputError: as `step`.
        """
        frame = self._encode(rgb, _Clock(self.model.device))
        self._reading.executed = executed if executed is not None else self._led_here
        self._reading.observe(frame.vision, frame.geometry, frame.grid)
        self._read(rgb)
        self._decided = None
        self.commit()

    def commit(self) -> None:
        """
        Remember the frame of a ``step(rgb, commit=False)``.

        Raises:
            InputError: there is none.
        """
        if not self._pending:
            raise InputError("there is no frame to remember: call step(rgb, commit=False) first")
        assert self._spatial
        self._spatial.commit()
        self._reading.commit()
        self._pending = False
        self._led_here = self._decided
        self._seen += 1

    def _read(self, rgb: np.ndarray) -> None:
        self._frame_shape = rgb.shape[:2]
        self._pending = True

    def _encode(self, rgb: np.ndarray, clock: "_Clock") -> _Encoded:
        """
        Both encoders on the current frame; it is written beside what the spatial memory holds, and
        remembered by ``commit`` only.
        """
        if self._instruction is None:
            raise InputError("there is no episode yet: call reset(instruction) first")
        self._pending = False
        model, device = self.model, self.model.device
        with clock.stage("preprocess"):
            rgb = to_rgb(rgb)
            if self._seen and rgb.shape[:2] != self._frame_shape:
                was, now = (
                    "x".join(map(str, reversed(shape)))
                    for shape in (self._frame_shape or (), rgb.shape[:2])
                )
                raise InputError(
                    f"the frame is {now} pixels, the episode's others were {was}: "
                    "reset() before changing the camera's size"
                )
            resized = resize(rgb, model.config.navigation.image_width)
            height, width = resized.shape[:2]
            image_3HW = torch.from_numpy(spatial_input(resized)).to(device)
            rows_np, grid_thw = pixel_rows(resized)
            grid = (height // PATCH // MERGE, width // PATCH // MERGE)
            if grid_thw[1:] != (MERGE * grid[0], MERGE * grid[1]):
                raise InputError(
                    f"navigation.image_width {width} gives the vision tower more "
                    "pixels than it takes: choose a smaller one"
                )
            rows = torch.from_numpy(rows_np).to(device)
        with clock.stage("spatial"):
            memory = self._spatial_memory(height, width)
            spatial_PC = model.spatial.encode_frame(image_3HW, memory)
            geometry_nD = model.geometry(spatial_PC, height, width)
        with clock.stage("vision"):
            vision_nD = model.encode_vision(rows, torch.tensor([grid_thw]))
            require_finite(vision_nD, "the vision tower's tokens")
            require_finite(geometry_nD, "the spatial encoder's tokens")
        if not self._use_geometry:
            geometry_nD = torch.zeros_like(geometry_nD)
        return _Encoded(vision_nD, geometry_nD, spatial_PC, grid)

    def _spatial_memory(self, height: int, width: int) -> SpatialMemory:
        navigation = self.model.config.navigation
        tokens = self.model.spatial.tokens(height, width)
        if self._spatial is None or (not self._seen and self._spatial.tokens != tokens):
            self._spatial = None  # given back before as much is asked for again
            window = FrameWindow(navigation.initial_frames, navigation.window_frames)
            if self._spatial_precision:
                self._spatial = quantized_spatial_memory(
                    self.model.spatial, height, width, window, self._spatial_precision
                )
            else:
                self._spatial = self.model.spatial.new_memory(height, width, window)
        return self._spatial

    def _score(self, hidden_1D: Tensor) -> Tensor:
        """Scores of the next token, float32 [rows, V]."""
        scores_1V = self.model.lm_head(hidden_1D).float()
        require_finite(scores_1V, "the language model's scores")
        return scores_1V

    def _penalized(self, scores_1V: Tensor, answer: tuple[int, ...]) -> Tensor:
        # The dual mode has no penalty: its prompt holds the action words and every picture, so a
        # penalty would only distort.
        penalty = self.generation.repetition_penalty if self.memory == "released" else 1.0
        return repetition_penalty(scores_1V, [*self._reading.prompt, *answer], penalty)

    def _write(self, scores_1V: Tensor) -> Decision:
        """
        Free decoding: the most likely token, again and again, until an end token or the limit.
        """
        tokens: list[int] = []
        kept = []
        while True:
            scores_1V = self._penalized(scores_1V, tuple(tokens))
            kept.append(scores_1V)
            tokens.append(int(scores_1V[0].argmax()))
            if (
                tokens[-1] in self.generation.eos_token_ids
                or len(tokens) >= self.model.config.navigation.max_new_tokens
            ):
                break
            scores_1V = self._score(self._reading.answer(tokens[-1]))
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        return Decision(parse_action(text), text, tokens, scores=torch.cat(kept).cpu())

    def _choose(self, scores_TV: Tensor) -> Decision:
        """
        Constrained decoding: the most probable of the four words, from the scores where they part.
        """
        assert self._tree
        rows = [
            self._penalized(scores_TV[row + 1][None], branch.prefix)
            for row, branch in zip(self._tree.rows, self._tree.branches)
        ]
        scores_BV = torch.cat(rows).cpu()
        probabilities = self._tree.probabilities(scores_BV)
        action = most_probable(probabilities)
        return Decision(
            action,
            action.name,
            list(self._tree.words[action]),
            scores=scores_BV,
            probabilities=probabilities,
        )


class _Clock:
    """Seconds spent in each stage of a step; on a GPU a stage ends when its work is done."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = time.perf_counter()
        self._stages = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._stages[name] += time.perf_counter() - start

    def timings(self) -> dict[str, float]:
        return {**self._stages, "total": time.perf_counter() - self._start}


def as_device(device: str | torch.device) -> torch.device:
    """A device of torch that is there; InputError otherwise."""
    try:
        result = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device is {device!r}: choose cpu or cuda") from error
    if result.type not in ("cpu", "cuda"):
        raise InputError(f"device is {device!r}: choose cpu or cuda")
    if result.type == "cuda" and (
        not torch.cuda.is_available() or (result.index or 0) >= torch.cuda.device_count()
    ):
        count = torch.cuda.device_count()
        raise InputError(
            f"device is {device!r}, but torch sees {count} CUDA devices: choose cpu, "
            "or install a driver and a CUDA build of torch"
        )
    return result
