"""Language models as pure functions, and checkpoints of real ones."""

from .checkpoint import LoadedModel, load_model, new_model, save_model
from .families import ModelError
from .model import Decoder, Model
from .tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "Decoder",
    "LoadedModel",
    "Model",
    "ModelError",
    "Tokenizer",
    "load_model",
    "load_tokenizer",
    "new_model",
    "save_model",
]
