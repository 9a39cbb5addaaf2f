"""What only files and devices tell about the settings of a run: found out before it begins."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reskill_jax.devices.mesh import make_mesh
from reskill_jax.devices.shape import MeshShape
from reskill_jax.models import chat, weights
from reskill_jax.models.checkpoint import LoadedModel, load_model
from reskill_jax.models.config import DecoderConfig
from reskill_jax.models.families import ModelError
from reskill_jax.models.model import Decoder, Model
from reskill_jax.models.sharding import param_specs
from reskill_jax.skills.patterns import TriggerError
from reskill_jax.skills.skill import SkillError
from reskill_jax.skills.skillmd import SkillFileError
from reskill_jax.storage.mirror import Mirror
from reskill_jax.training.config import ModelConfig, TrainConfig
from reskill_jax.training.lifecycle import make_bank, starting_skills
from reskill_jax.worlds.language import (
    Frame,
    Language,
    LanguageError,
    symbol_language,
    token_language,
)
from reskill_jax.worlds.registry import make_world
from reskill_jax.worlds.world import CompiledWorld


class TrainingError(ValueError):
    """A run that cannot begin or go on; the message says why and what to do."""


class Policy(NamedTuple):
    """A language model that plays a world."""

    params: Any
    model: Model
    language: Language
    notes: tuple[str, ...] = ()  # what a person should know about it
    loaded: LoadedModel | None = None  # where it comes from, if that is a checkpoint of the Hub

    def games_at_once(self, config: TrainConfig) -> int | None:
        """Most games of an evaluation in memory at a time: as many as a step plays; None = all."""
        return None if self.language.identity else config.groups * config.group_size


def load_policy(
    settings: ModelConfig,
    world: CompiledWorld,
    *,
    loaded: LoadedModel | None = None,
    mesh: Mesh | None = None,
    read_params: bool = True,
) -> Policy:
    """Reads a model, and the table of the world's symbols in its tokens.

    Args:
      settings: what to read.
      world: that it plays.
      loaded: a checkpoint that was read before; `settings.path` is then not looked at.
      mesh: of devices; each gets its part of a checkpoint's tensors, one tensor at a time.
      read_params: False checks a checkpoint's files, and leaves its parameters where they are.

    Raises:
      TrainingError, WeightsError, ModelError: it cannot be read, or does not play this world.
    """
    path = settings.path
    if loaded is not None:
        return _language_model(loaded, settings, world)
    if settings.is_folder:
        if not Path(path).is_dir():
            raise TrainingError(f"the model {path}: there is no such folder")
        placed = None if mesh is None else functools.partial(_shardings, mesh)
        read = load_model(path, dtype=settings.dtype, shardings=placed, read_params=read_params)
        return _language_model(read, settings, world)
    if path.endswith(".safetensors"):
        if not Path(path).is_file():
            raise TrainingError(f"the model {path}: there is no such file")
        params, config, _ = weights.load(path)
    else:
        params, config, _ = weights.load_pretrained(path)
    if config.vocabulary != len(world.language):
        raise TrainingError(
            f"the model {path} has {config.vocabulary} tokens, but the language of this world has "
            f"{len(world.language)}; choose another --model"
        )
    return Policy(params, Decoder(config), symbol_language(world))


def _shardings(mesh: Mesh, config: DecoderConfig) -> Any:
    """Where a decoder's parameters lie on a mesh."""
    model = Decoder(config)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    specs = param_specs(model, shapes, mesh)
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def _language_model(loaded: LoadedModel, settings: ModelConfig, world: CompiledWorld) -> Policy:
    tokenizer, path = loaded.tokenizer, loaded.folder
    if tokenizer is None:
        raise TrainingError(f"the model {path} has no tokenizer in its folder")
    template = None if settings.prompt == "plain" else chat.read_template(path)
    if template is None and settings.prompt == "chat":
        raise TrainingError(f"the model {path} has no chat template; --model.prompt plain")
    notes: tuple[str, ...] = ()
    try:
        if template is None:
            pieces = chat.plain_pieces(world.instruction, world.prompt)
        else:
            pieces = chat.cut_template(*template, world.instruction)
            if pieces.rewrites:
                notes = (
                    "the chat template writes earlier turns in another way than the last one; "
                    "here they stay as they were said",
                )
        start = tuple(tokenizer.encode(pieces.start))
        if template is None:  # templates write it themselves
            start = (*tokenizer.start, *start)
        frame = Frame(
            start, tuple(tokenizer.encode(pieces.ask)), tuple(tokenizer.encode(pieces.answered))
        )
        language = token_language(
            world,
            lambda text: tokenizer.encode(text, control=False),
            frame,
            space=template is None,
        )
    except (ModelError, LanguageError) as error:
        raise TrainingError(f"the model {path}: {error}") from error
    model = Decoder(dataclasses.replace(loaded.model.config, remat=True))
    return Policy(loaded.params, model, language, notes, loaded._replace(params={}))


def check_fit(config: TrainConfig, policy: Policy, world: CompiledWorld) -> None:
    """Checks that policy, world and settings fit together.

    Raises:
      TrainingError: they do not.
    """
    language = policy.language
    needed = language.action_tokens(world) + len(language.frame.ask)
    least = len(language.frame.start) + world.introduction_length + needed
    if config.context_length < least:
        raise TrainingError(
            f"a context of {config.context_length} tokens has no room for the introduction and a "
            f"command; --context-length must be at least {least}"
        )


def check_settings(config: TrainConfig, *, resume: bool = False) -> None:
    """Reads what a configuration names: the policy, the bank, the devices, the mirror.

    A run that is resumed has its skills in its checkpoint, so its bank is not read.

    Raises:
      TrainingError, WeightsError: the policy cannot be read, or does not fit the world.
      TrainingError: `bank` names no readable skills, or some that this world cannot run.
      MeshError: there are too few devices. MirrorError: there can be no such mirror.
    """
    world = make_world(config.world, rooms=config.rooms)
    check_fit(config, load_policy(config.model, world, read_params=False), world)
    try:
        make_bank(config, world, [() if resume else starting_skills(config, world)])
    except (SkillFileError, SkillError, TriggerError, OSError) as error:
        raise TrainingError(f"--bank {config.bank}: {error}") from error
    if config.mesh != MeshShape():
        make_mesh(config.mesh)
    if config.mirror is not None:
        Mirror(config.mirror, config.name)
