"""
The settings of a network: the published flat ``config.json`` and its two optional keys, read,
checked and written back.

A published file is a plain ``qwen2_5_vl`` config as transformers < 4.52 saves it: the language
model's settings lie flat at the top, the vision tower's under ``vision_config``, and only values
that differ from transformers' class defaults need to be there. Beside them stand the settings of
JanusVLN (``lam``, ``vggt_merger_hidden_dim``) and, optionally, ``vggt_config`` and ``navigation``;
where those two are absent, the sizes that the published code hard-codes hold.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar

from transformers import Qwen2_5_VLTextConfig
from transformers.activations import ACT2FN
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig

from janusvln_ros import schema
from janusvln_ros.documents import CONFIG_FILE, finite, read_network, require_network, whole
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import atomic_write
from janusvln_ros.limits import require_within
from janusvln_ros.model.memory import FrameWindow

Memory = Literal["released", "dual"]
Decoding = Literal["free", "constrained"]


@dataclass(frozen=True)
class SpatialConfig:
    """
    Sizes of the spatial encoder (key ``vggt_config``); the defaults are VGGT-1B.

    ``depth`` counts pairs of a frame block and a global block as published; the last pair never
    influences the result and is not built. ``image_size`` is the image side, in pixels, for which
    the position grid of the DINOv2 backbone was made.
    """

    embed_dim: int = 1024
    num_heads: int = 16
    depth: int = 24
    dino_depth: int = 24
    dino_num_heads: int = 16
    image_size: int = 518
    num_register_tokens: int = 4

    @property
    def num_special_tokens(self) -> int:
        """Tokens of a frame before its patches: one camera token and the registers."""
        return 1 + self.num_register_tokens

    @property
    def used_depth(self) -> int:
        """Alternating layers that are computed: the features are those of the last but one."""
        return self.depth - 1


@dataclass(frozen=True)
class NavigationConfig:
    """
    How the network is used (key ``navigation``); the defaults are what the published code
    hard-codes.

    ``memory`` and ``decoding`` are what the checkpoint was trained for. ``action_memory`` tells
    whether answers stay in the semantic memory, ``semantic_memory`` whether the language model
    remembers frames at all (both ``dual`` only; ablations). ``trained`` is False for a network
    with random weights.
    """

    num_history: int = 8
    image_width: int = 644
    initial_frames: int = 8
    window_frames: int = 48
    max_new_tokens: int = 24
    memory: Memory = "released"
    decoding: Decoding = "free"
    action_memory: Literal["none", "executed"] = "none"
    semantic_memory: bool = True
    trained: bool = True

    @property
    def window(self) -> FrameWindow:
        """Frames that the spatial memory keeps."""
        return FrameWindow(self.initial_frames, self.window_frames)

    @property
    def semantic_window(self) -> FrameWindow:
        """Frames that the language model's memory keeps."""
        return self.window if self.semantic_memory else FrameWindow(0, 0)


@dataclass(frozen=True)
class JanusVLNConfig:
    """
    Everything that defines a network: transformers' two configs, the spatial encoder, the fusion
    and the use.

    ``extra`` holds the keys of the file that mean nothing here; they are written back unchanged.
    """

    text: Qwen2_5_VLTextConfig
    vision: Qwen2_5_VLVisionConfig
    spatial: SpatialConfig = field(default_factory=SpatialConfig)
    navigation: NavigationConfig = field(default_factory=NavigationConfig)
    vggt_merger_hidden_dim: int = 4096
    lam: float = 0.2
    tie_word_embeddings: bool = False
    image_token_id: int = 151655
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    dtype: str = "float32"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], name: str = CONFIG_FILE) -> "JanusVLNConfig":
        """
        Build from the content of a ``config.json``; ``name`` is used in messages.

        Raises:
            InputError: another kind of model, a value of the wrong type, or sizes that do not fit
                each other.
        """
        flat = {
            key: value
            for key, value in {**_object(values, "text_config", name), **values}.items()
            if key != "text_config" and value is not None
        }
        require_network(values, name)
        vision_values = dict(_object(flat, "vision_config", name))
        flat.pop("vision_config", None)
        vision_values.pop("model_type", None)
        spatial = _section(SpatialConfig, flat.pop("vggt_config", {}), f"{name}: vggt_config")
        navigation = _section(NavigationConfig, flat.pop("navigation", {}), f"{name}: navigation")
        own = schema.typed(cls, {key: flat.pop(key) for key in _OWN_KEYS if key in flat}, name)
        dtype = str(flat.pop("torch_dtype", flat.pop("dtype", "float32"))).removeprefix("torch.")
        text_values = {key: flat.pop(key) for key in _TEXT_KEYS if key in flat}
        if isinstance(text_values.get("rope_scaling"), Mapping):
            text_values["rope_scaling"] = dict(text_values["rope_scaling"])
        _require_sizes(text_values, name)
        _require_sizes(vision_values, f"{name}: vision_config")
        _require_sizes({**asdict(spatial), **asdict(navigation), **own}, name)
        try:
            text = Qwen2_5_VLTextConfig(**text_values)
            vision = Qwen2_5_VLVisionConfig(**vision_values)
        # transformers raises several kinds, all about a value of the file
        except Exception as error:
            raise InputError(f"{name}: transformers does not accept it: {error}") from error
        config = cls(text, vision, spatial, navigation, dtype=dtype, extra=flat, **own)
        config.check(name)
        return config

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "JanusVLNConfig":
        """
        Read ``config.json`` in ``folder`` (or the file itself).

        Raises:
            InputError: no such file, no JSON, or a bad value.
        """
        path = Path(folder)
        path = path / CONFIG_FILE if path.is_dir() else path
        return cls.from_dict(read_network(path), str(path))

    def to_dict(self) -> dict[str, Any]:
        """The content of a ``config.json`` in the published flat layout (see module docstring)."""
        # transformers forgets the width of a window that is not used, and lists a type for every
        # layer: both are derived values.
        text = {
            key: value
            for key in _TEXT_KEYS
            if key not in ("rope_parameters", "layer_types")
            and (value := getattr(self.text, key, None)) is not None
        }
        rope = dict(self.text.rope_parameters or {})
        text["rope_theta"] = rope.pop("rope_theta")
        text["rope_scaling"] = {**rope, "type": "default", "rope_type": "default"}
        vision = {key: getattr(self.vision, key) for key in _VISION_KEYS}
        vision["fullatt_block_indexes"] = list(self.vision.fullatt_block_indexes)
        return {
            "architectures": ["Qwen2_5_VLForConditionalGenerationForJanusVLN"],
            "model_type": "qwen2_5_vl",
            "torch_dtype": self.dtype,
            **self.extra,
            **text,
            "tie_word_embeddings": self.tie_word_embeddings,
            "image_token_id": self.image_token_id,
            "vision_start_token_id": self.vision_start_token_id,
            "vision_end_token_id": self.vision_end_token_id,
            "vision_config": vision,
            "vggt_merger_hidden_dim": self.vggt_merger_hidden_dim,
            "lam": self.lam,
            "vggt_config": asdict(self.spatial),
            "navigation": asdict(self.navigation),
        }

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` into ``folder``, in the published flat layout."""
        atomic_write(Path(folder) / CONFIG_FILE, json.dumps(self.to_dict(), indent=1) + "\n")

    def check(self, name: str) -> None:
        """Raise InputError, with ``name`` in the message, where sizes do not fit each other."""
        rules = chain(_language_rules(self), _picture_rules(self))
        for holds, sentence in rules:
            require(holds, f"{name}: {sentence}")


def key_value_shape(text: Qwen2_5_VLTextConfig) -> tuple[int, int, int]:
    """Layers, heads and head size of the keys (and of the values) that a language model keeps."""
    heads = text.num_attention_heads
    return text.num_hidden_layers, text.num_key_value_heads or heads, text.hidden_size // heads


SIZES = {
    "LAYERS": ("num_hidden_layers", "max_window_layers", "depth", "dino_depth"),
    "WIDTH": (
        *("hidden_size", "intermediate_size", "vocab_size", "out_hidden_size", "embed_dim"),
        *("num_attention_heads", "num_key_value_heads", "num_heads", "dino_num_heads"),
        *("vggt_merger_hidden_dim", "max_position_embeddings", "image_size", "in_channels"),
        *("num_register_tokens", "window_size", "temporal_patch_size", "patch_size"),
        *("spatial_merge_size", "tokens_per_second", "sliding_window"),
    ),
    "FRAMES": ("num_history", "initial_frames", "window_frames", "max_new_tokens", "image_width"),
}
"""The keys whose values decide how large a network is, by their limit; any section."""
NOT_POSITIVE = {"initial_frames", "window_frames", "num_register_tokens", "max_window_layers"}
"""Those that may be 0."""
REAL = ("rms_norm_eps", "rope_theta", "initializer_range", "attention_dropout", "lam")
LARGE = 1e12
TOKENS = ("image_token_id", "vision_start_token_id", "vision_end_token_id")


def _require_sizes(values: Mapping[str, Any], name: str) -> None:
    """
    Refuse sizes that are no whole numbers, or larger than networks are, before anything of that
    size is made; numbers that are not finite too.
    """
    for bound, keys in SIZES.items():
        for key in keys:
            value = values.get(key)
            if value is None:
                continue
            least = 0 if key in NOT_POSITIVE else 1
            require(
                type(value) is int and value >= least,
                f"{name}: {key} is {value!r:.80}, it must be a whole number, at least {least}",
            )
            require_within(value, bound, f"{name}: {key} is")
    for key in REAL:
        if values.get(key) is not None:
            require(
                abs(finite(values[key], f"{name}: {key}")) < LARGE,
                f"{name}: {key} is {values[key]!r:.80}, it must be less than {LARGE:g}",
            )
    for key in TOKENS:
        if values.get(key) is not None:
            whole(values[key], f"{name}: {key}", 0)


Rules = Iterator[tuple[bool, str]]
"""Whether a rule holds, and the sentence to say where it does not."""


def _language_rules(config: JanusVLNConfig) -> Rules:
    text, vision = config.text, config.vision
    heads, (_, key_heads, head_size) = text.num_attention_heads, key_value_shape(text)
    rope = text.rope_parameters or {}
    section = rope.get("mrope_section") or [16, 24, 24]
    kind, ends = rope.get("rope_type", "default"), text.eos_token_id
    yield kind == "default", f"rope_scaling.type is {kind!r:.80}: 'mrope' is known here"
    for tower, name in ((text, "hidden_act"), (vision, "vision_config.hidden_act")):
        known = isinstance(tower.hidden_act, str) and tower.hidden_act in ACT2FN
        yield known, f"{name} is {tower.hidden_act!r:.80}, which transformers does not know"
    listed = ends if isinstance(ends, list | tuple) else [] if ends is None else [ends]
    yield (
        all(type(n) is int and n >= 0 for n in listed),
        f"eos_token_id is {ends!r:.80}, not a token or a list of some",
    )
    yield (
        isinstance(section, list | tuple) and all(type(n) is int for n in section),
        f"rope_scaling.mrope_section is {section!r:.80}, not a list of whole numbers",
    )
    yield from (
        (
            text.hidden_size % heads == 0,
            f"hidden_size {text.hidden_size} is no multiple of num_attention_heads {heads}",
        ),
        (
            heads % key_heads == 0,
            f"num_attention_heads {heads} is no multiple of num_key_value_heads {key_heads}",
        ),
        (
            2 * sum(section) == head_size,
            f"rope_scaling.mrope_section {[*section]} must add up to half of the head size "
            f"{head_size}",
        ),
        (
            not text.use_sliding_window,
            "use_sliding_window is true, but the memories are the only window here: "
            "set it to false",
        ),
        (
            vision.out_hidden_size == text.hidden_size,
            f"vision_config.out_hidden_size {vision.out_hidden_size} must equal hidden_size "
            f"{text.hidden_size}, since image and text tokens share a space",
        ),
    )


def _picture_rules(config: JanusVLNConfig) -> Rules:
    vision, spatial, width = config.vision, config.spatial, config.navigation.image_width
    yield (
        vision.hidden_size % vision.num_heads == 0,
        f"vision_config.hidden_size {vision.hidden_size} is no multiple of num_heads "
        f"{vision.num_heads}",
    )
    yield from (
        (
            (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
            == (14, 2, 2),
            "vision_config: patch_size must be 14, spatial_merge_size 2 and "
            "temporal_patch_size 2, as both encoders share one grid",
        ),
        (
            spatial.embed_dim % (4 * spatial.num_heads) == 0,
            f"vggt_config.embed_dim {spatial.embed_dim} must be a multiple of 4 x num_heads "
            f"{spatial.num_heads}",
        ),
        (
            spatial.embed_dim % spatial.dino_num_heads == 0,
            f"vggt_config.embed_dim {spatial.embed_dim} must be a multiple of dino_num_heads "
            f"{spatial.dino_num_heads}",
        ),
        (
            spatial.depth >= 2,
            f"vggt_config.depth is {spatial.depth}, it must be at least 2, as the last pair of "
            "blocks is never used",
        ),
        (
            spatial.image_size % 14 == 0,
            f"vggt_config.image_size {spatial.image_size} must be a multiple of 14",
        ),
        (
            width >= 28 and width % 14 == 0,
            f"navigation.image_width {width} must be a multiple of 14, at least 28",
        ),
    )


_OWN_KEYS = (
    "vggt_merger_hidden_dim",
    "lam",
    "tie_word_embeddings",
    "image_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
)
_TEXT_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
    "layer_types",
    "attention_dropout",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
_VISION_KEYS = (
    "depth",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "num_heads",
    "in_channels",
    "out_hidden_size",
    "patch_size",
    "spatial_merge_size",
    "window_size",
    "fullatt_block_indexes",
    "tokens_per_second",
    "temporal_patch_size",
    "initializer_range",
)


def _object(values: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    """The section ``key`` of a config, empty where there is none; raises InputError."""
    found = values.get(key) or {}
    require(isinstance(found, Mapping), f"{name}: {key} is {found!r:.80}, not a section")
    return found


Section = TypeVar("Section", SpatialConfig, NavigationConfig)


def _section(kind: type[Section], values: Any, name: str) -> Section:
    """Build a small section; keys that mean nothing here are named in the log and left out."""
    if isinstance(values, Mapping):
        known = {f.name for f in fields(kind)}
        if unknown := sorted(set(values) - known):
            logging.getLogger(__name__).warning(
                "%s: keys %s mean nothing here; known are %s", name, unknown, sorted(known)
            )
        values = {key: value for key, value in values.items() if key in known}
    return schema.build(kind, values, name)
