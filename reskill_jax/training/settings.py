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
from reskill_jax.models.tokenizer import Tokenizer
from reskill_jax.rollouts.prompt import TextPrompt
from reskill_jax.skills.patterns import TriggerError
from reskill_jax.skills.skill import SkillError
from reskill_jax.skills.skillmd import SkillFileError
from reskill_jax.storage.mirror import Mirror
from reskill_jax.storage.writers import load_packages
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.creators import creator_of, lacks
from reskill_jax.training.lifecycle import make_bank, starting_skills
from reskill_jax.training.own import algorithm_for
from reskill_jax.training.sections import ModelConfig, PromptConfig
from reskill_jax.worlds.host_worlds import MadeWorld, reward_of_module, world_given
from reskill_jax.worlds.language import (
    Frame,
    Language,
    LanguageError,
    symbol_language,
    token_language,
)
from reskill_jax.worlds.registry import make_named_world
from reskill_jax.worlds.world import CompiledWorld, HostWorld, compiled_of

__all__ = [
    "Policy",
    "TrainingError",
    "check_kind",
    "check_settings",
    "load_policy",
    "open_to_train",
    "open_world",
]


class TrainingError(ValueError):
    """A run that cannot begin or go on; the message says why and what to do."""


class Policy(NamedTuple):
    """A language model that plays a world."""

    params: Any
    model: Model
    language: Language  # of the world's symbols; of a world of plain language an empty one
    notes: tuple[str, ...] = ()  # what a person should know about it
    loaded: LoadedModel | None = None  # where it comes from, if that is a checkpoint of the Hub
    prompt: TextPrompt | None = None  # how it is asked in a world of plain language

    def games_at_once(self, config: TrainConfig) -> int | None:
        """Most games of an evaluation in memory at a time: as many as a step plays; None = all."""
        plain = self.prompt is None and self.language.identity
        return None if plain else config.groups * config.group_size


def load_policy(
    settings: ModelConfig,
    world: CompiledWorld | HostWorld,
    *,
    loaded: LoadedModel | None = None,
    mesh: Mesh | None = None,
    read_params: bool = True,
    prompt: PromptConfig | None = None,
) -> Policy:
    """Reads a model, and the table of the world's symbols in its tokens.

    Args:
      settings: what to read.
      world: that it plays.
      loaded: a checkpoint that was read before; `settings.path` is then not looked at.
      mesh: of devices; each gets its part of a checkpoint's tensors, one tensor at a time.
      read_params: False checks a checkpoint's files, and leaves its parameters where they are.
      prompt: how it is asked in a world of plain language; None = as by default.

    Raises:
      TrainingError, WeightsError, ModelError: it cannot be read, or does not play this world.
    """
    path, compiled = settings.path, compiled_of(world)
    if hasattr(world, "open") and prompt is not None and not prompt.constrained:
        compiled = None  # free text is plain language, in a world of symbols too

    def speaking(read: LoadedModel) -> Policy:
        if compiled is None:
            return _text_model(read, settings, prompt or PromptConfig(), world)
        return _language_model(read, settings, compiled)

    if loaded is not None:
        return speaking(loaded)
    if settings.is_folder:
        if not Path(path).is_dir():
            raise TrainingError(f"the model {path}: there is no such folder")
        placed = None if mesh is None else functools.partial(_shardings, mesh)
        read = load_model(
            path,
            dtype=settings.dtype,
            attention=settings.attention,
            shardings=placed,
            read_params=read_params,
        )
        return speaking(read)
    if compiled is None:
        raise TrainingError(
            f"plain language is spoken here; the model {path} knows the household's words alone; "
            "choose the folder of a language model with --model"
        )
    if path.endswith(".safetensors"):
        if not Path(path).is_file():
            raise TrainingError(f"the model {path}: there is no such file")
        params, config, _ = weights.load(path)
    else:
        params, config, _ = weights.load_pretrained(path)
    if config.vocabulary != len(compiled.language):
        raise TrainingError(
            f"the model {path} has {config.vocabulary} tokens, but the language of this world has "
            f"{len(compiled.language)}; choose another --model"
        )
    return Policy(params, Decoder(config), symbol_language(compiled))


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


def _pieces(
    loaded: LoadedModel,
    settings: ModelConfig,
    instruction: str,
    prompt: str,
    thinking: bool = False,
) -> tuple[chat.Pieces, bool, tuple[str, ...]]:
    """The fixed pieces around what is said, whether they are plain text, and notes about them.

    Raises:
      TrainingError: there is no chat template where one is asked for. ModelError: it is unusable.
    """
    path = loaded.folder
    template = None if settings.prompt == "plain" else chat.read_template(path)
    if template is None and settings.prompt == "chat":
        raise TrainingError(f"the model {path} has no chat template; --model.prompt plain")
    if template is None:
        return chat.plain_pieces(instruction, prompt), True, ()
    pieces = chat.cut_template(*template, instruction, thinking=thinking)
    notes: tuple[str, ...] = ()
    if pieces.rewrites:
        notes = (
            "the chat template writes earlier turns in another way than the last one; here they "
            "stay as they were said",
        )
    return pieces, False, notes


def _with_tokenizer(loaded: LoadedModel) -> Tokenizer:
    if loaded.tokenizer is None:
        raise TrainingError(f"the model {loaded.folder} has no tokenizer in its folder")
    return loaded.tokenizer


def _language_model(loaded: LoadedModel, settings: ModelConfig, world: CompiledWorld) -> Policy:
    tokenizer, path = _with_tokenizer(loaded), loaded.folder
    try:
        pieces, plain, notes = _pieces(loaded, settings, world.instruction, world.prompt)
        start = tuple(tokenizer.encode(pieces.start))
        if plain:  # templates write it themselves
            start = (*tokenizer.start, *start)
        frame = Frame(
            start, tuple(tokenizer.encode(pieces.ask)), tuple(tokenizer.encode(pieces.answered))
        )
        language = token_language(
            world, lambda text: tokenizer.encode(text, control=False), frame, space=plain
        )
    except (ModelError, LanguageError) as error:
        raise TrainingError(f"the model {path}: {error}") from error
    model = Decoder(dataclasses.replace(loaded.model.config, remat=True))
    return Policy(loaded.params, model, language, notes, loaded._replace(params={}))


def _text_model(
    loaded: LoadedModel, settings: ModelConfig, asked: PromptConfig, world: Any
) -> Policy:
    """A language model in a world of plain language."""
    tokenizer, path = _with_tokenizer(loaded), loaded.folder
    instruction = str(getattr(world, "instruction", "") or "")
    try:
        pieces, plain, notes = _pieces(
            loaded, settings, instruction, "\n> ", thinking=asked.thinking_tokens > 0
        )
        prompt = TextPrompt(
            tokenizer,
            pieces,
            form=asked.answer,
            before=tokenizer.start if plain else (),
            skill_tokens=asked.skill_tokens,
            message_tokens=asked.message_tokens,
        )
    except ModelError as error:
        raise TrainingError(f"the model {path}: {error}") from error
    model = Decoder(dataclasses.replace(loaded.model.config, remat=True))
    silent = Language((), (), (), Frame())
    return Policy(loaded.params, model, silent, notes, loaded._replace(params={}), prompt)


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


def open_world(config: TrainConfig, given: Any = None) -> CompiledWorld | MadeWorld:
    """The world that a configuration names; one on the host with where workers get it from.

    Args:
      config: of the run.
      given: a world that was handed in, instead of the one that is named.

    Raises:
      WorldError, WorldNameError: it cannot be made. GamesError: its games cannot be read.
    """
    if given is None:
        return make_named_world(
            config.world,
            rooms=config.rooms,
            seed=config.seed,
            games=config.games,
            reward=config.reward,
        )
    if not hasattr(given, "open"):
        return given
    reward = None if config.reward is None else reward_of_module(config.reward)
    return world_given(given)._replace(reward=reward)


def open_to_train(config: TrainConfig, given: Any = None) -> CompiledWorld | MadeWorld:
    """See `open_world`; with settings that a world of this kind has.

    Raises:
      TrainingError: see `check_kind`. Besides, the errors of `open_world`.
    """
    opened = open_world(config, given)
    check_kind(config, opened)
    return opened


def check_kind(config: TrainConfig, opened: CompiledWorld | MadeWorld) -> None:
    """Checks what is set for one kind of worlds alone, compiled or on the host, before training.

    Args:
      config: of the run. opened: of `open_world`.

    Raises:
      TrainingError: something is set that worlds of this kind do not have.
    """
    compiled = not isinstance(opened, MadeWorld)
    if not compiled and config.evidence.every > 0:
        raise TrainingError(
            f"evidence.every must be 0 in a world on the host, got {config.evidence.every}: only "
            "in compiled worlds the policy is asked about its episodes"
        )
    if compiled and config.prompt.overflow != "invalid":
        raise TrainingError(
            f"prompt.overflow = {config.prompt.overflow} is for worlds on the host; in compiled "
            "worlds an episode whose context is full is over"
        )
    if compiled and config.reward is not None:
        raise TrainingError(f"reward {config.reward} is for worlds on the host; others give it")


def check_settings(config: TrainConfig, *, resume: bool = False) -> None:
    """Reads what a configuration names: algorithm, policy, bank, creator, devices, mirror.

    A run that is resumed has its skills in its checkpoint, so its bank is not read.

    Raises:
      TrainingError, WeightsError: the policy cannot be read, or does not fit the world.
      TrainingError: `bank` names no readable skills, or some that this world cannot run.
      WorldNameError, OwnPartError: an algorithm or creator of one's own cannot be used.
      MeshError: there are too few devices. MirrorError: there can be no such mirror.
    """
    algorithm_for(config)
    opened = open_to_train(config)
    world = opened.world if isinstance(opened, MadeWorld) else opened
    policy = load_policy(config.model, world, read_params=False, prompt=config.prompt)
    if (compiled := compiled_of(world)) is not None and policy.prompt is None:
        check_fit(config, policy, compiled)
    try:
        make_bank(config, world, [() if resume else starting_skills(config, world)])
    except (SkillFileError, SkillError, TriggerError, OSError) as error:
        raise TrainingError(f"--bank {config.bank}: {error}") from error
    if (lack := lacks(config.creator)) is not None:
        raise TrainingError(lack)
    creator_of(config, world)
    load_packages(config.log)
    if config.mesh != MeshShape():
        make_mesh(config.mesh)
    if config.mirror is not None:
        Mirror(config.mirror, config.name)
