"""What only files and devices tell about the settings of a run: found out before it begins."""

from pathlib import Path
from typing import Any

from reskill_jax.devices.mesh import make_mesh
from reskill_jax.devices.shape import MeshShape
from reskill_jax.models import weights
from reskill_jax.models.decoder import DecoderConfig
from reskill_jax.skills.patterns import TriggerError
from reskill_jax.skills.skill import SkillError
from reskill_jax.skills.skillmd import SkillFileError
from reskill_jax.storage.mirror import Mirror
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.lifecycle import make_bank, starting_skills
from reskill_jax.worlds.household.world import HouseholdWorld


class TrainingError(ValueError):
    """A run that cannot begin or go on; the message says why and what to do."""


def load_policy(name: str) -> tuple[Any, DecoderConfig]:
    """Shipped weights by name, or a .safetensors file by path."""
    if name.endswith(".safetensors"):
        if not Path(name).is_file():
            raise TrainingError(f"the policy {name}: there is no such file")
        params, policy, _ = weights.load(name)
    else:
        params, policy, _ = weights.load_pretrained(name)
    return params, policy


def check_fit(config: TrainConfig, policy: DecoderConfig, world: HouseholdWorld) -> None:
    """Checks that policy, world and settings fit together.

    Raises:
      TrainingError: they do not.
    """
    if policy.vocabulary != world.vocabulary:
        raise TrainingError(
            f"the policy {config.policy} has {policy.vocabulary} tokens, but the language of the "
            f"household world has {world.vocabulary}; choose another --policy"
        )
    least = world.intro_symbols + 1 + world.command_length
    if config.capacity < least:
        raise TrainingError(
            f"a context of {config.capacity} tokens has no room for the introduction and a "
            f"command; --capacity must be at least {least}"
        )


def check_settings(config: TrainConfig, *, resume: bool = False) -> None:
    """Reads what a configuration names: the policy, the bank, the devices, the mirror.

    A run that is resumed has its skills in its checkpoint, so its bank is not read.

    Raises:
      TrainingError, WeightsError: the policy cannot be read, or does not fit the world.
      TrainingError: `bank` names no readable skills, or some that this world cannot run.
      MeshError: there are too few devices. MirrorError: there can be no such mirror.
    """
    _, policy = load_policy(config.policy)
    check_fit(config, policy, HouseholdWorld(spec=config.rooms))
    try:
        make_bank(config, [() if resume else starting_skills(config)])
    except (SkillFileError, SkillError, TriggerError, OSError) as error:
        raise TrainingError(f"--bank {config.bank}: {error}") from error
    if config.mesh != MeshShape():
        make_mesh(config.mesh)
    if config.mirror is not None:
        Mirror(config.mirror, config.name)
