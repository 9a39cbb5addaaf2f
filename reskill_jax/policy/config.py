"""The shape of a decoder: what a description of weights says, checked field by field."""

import dataclasses
from typing import Any

import numpy as np

_SIZES = ("vocabulary", "width", "layers", "heads", "kv_heads", "mlp")
_MAX_SIZE = 2**31 - 1  # of an axis
_SMALLEST, _LARGEST = 1e-37, 3e38  # of float32


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder. Hashable, so it can be a static argument.

    Attributes:
      vocabulary: number of tokens V.
      width: D.
      layers: number of blocks.
      heads: query heads, a multiple of `kv_heads`.
      kv_heads: key/value heads K.
      mlp: hidden width M of the gated MLP.
      head_width: H; None = width // heads.
      rope_base: base of the rotary frequencies.
      norm_eps: epsilon of every RMSNorm.
      tie_embeddings: the unembedding is the transposed embedding.
      qkv_bias: biases on query, key and value (Qwen2).
      qk_norm: RMSNorm of each query and key head before the rotation (Qwen3).
      dtype: of activations and cache, "float32" or "bfloat16"; parameters, softmax, norms and
        logits are float32 always.
      remat: compute the activations of a block a second time for the gradient instead of keeping
        them: a third more work, and memory of one block instead of all.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    head_width: int | None = None
    rope_base: float = 10000.0
    norm_eps: float = 1e-6
    tie_embeddings: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self) -> None:
        """Checks types and shape; raises ValueError with one line."""
        for field in _SIZES if self.head_width is None else (*_SIZES, "head_width"):
            object.__setattr__(self, field, _size(field, getattr(self, field)))
        for field in ("rope_base", "norm_eps"):
            object.__setattr__(self, field, _positive(field, getattr(self, field)))
        for field in ("tie_embeddings", "qkv_bias", "qk_norm", "remat"):
            value = getattr(self, field)
            if not isinstance(value, bool):
                raise ValueError(f"DecoderConfig.{field} must be true or false, not {_told(value)}")
        if self.heads % self.kv_heads:
            raise ValueError(
                f"DecoderConfig.heads ({self.heads}) must be a multiple of kv_heads "
                f"({self.kv_heads})"
            )
        if self.head_width is None and self.width % self.heads:
            raise ValueError(
                f"DecoderConfig.width ({self.width}) must be a multiple of heads ({self.heads}), "
                "or head_width must be given"
            )
        if self.head_dim % 2:
            raise ValueError(f"the head width must be even for rotary positions: {self.head_dim}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(
                f"DecoderConfig.dtype must be float32 or bfloat16, not {_told(self.dtype)}"
            )

    @property
    def head_dim(self) -> int:
        """Head width H."""
        return self.width // self.heads if self.head_width is None else self.head_width

    @property
    def group(self) -> int:
        """Query heads per key/value head G."""
        return self.heads // self.kv_heads


def _size(field: str, value: Any) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise ValueError(f"DecoderConfig.{field} must be a whole number, not {_told(value)}")
    if not 1 <= value <= _MAX_SIZE:
        bound = ">= 1" if value < 1 else f"<= {_MAX_SIZE}"
        raise ValueError(f"DecoderConfig.{field} must be {bound}, not {_told(value)}")
    return int(value)


def _positive(field: str, value: Any) -> float:
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        raise ValueError(f"DecoderConfig.{field} must be a number, not {_told(value)}")
    if not _SMALLEST < value < _LARGEST:  # a NaN is neither
        raise ValueError(
            f"DecoderConfig.{field} must be positive and finite in float32, not {_told(value)}"
        )
    return float(value)


def _told(value: Any) -> str:
    """A value in at most 60 characters of one line."""
    try:
        told = repr(value)
    except ValueError:  # Python writes no integers of more than 4300 digits
        told = "a number of thousands of digits"
    return told if len(told) <= 60 else told[:57] + "..."
