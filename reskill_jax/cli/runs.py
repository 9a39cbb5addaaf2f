"""Finding the folder of a run."""

from pathlib import Path

from reskill_jax.cli.errors import CommandLineError, RunError


def find_run(run: str) -> Path:
    """The folder of a run given as a folder or as a name in runs/."""
    places = [folder for folder in (Path(run), Path("runs") / run) if folder.is_dir()]
    for folder in places:
        if (folder / "config.json").is_file():
            return folder
    if places:
        return places[0]
    known = sorted(p.parent.name for p in Path("runs").glob("*/config.json"))
    hint = f"runs/ holds: {', '.join(known)}" if known else "there is no run in runs/ yet"
    raise CommandLineError(f"there is no run '{run}'; {hint}")


def check_run(folder: Path) -> None:
    """Refuses a folder that is no run, or one whose configuration cannot be read.

    Raises:
      RunError: in one line.
    """
    from reskill_jax.training.config import TrainConfig
    from reskill_jax.training.config_file import read_stored_config

    stored = folder / "config.json"
    if not stored.is_file():
        raise RunError(f"{folder} is no run folder: it has no config.json")
    read_stored_config(stored, TrainConfig())


def check_briefly(folder: Path) -> None:
    """As `check_run`, without the types of all settings, which take a second to import.

    Raises:
      RunError, ConfigError: in one line.
    """
    from reskill_jax.storage.log_schema import CONFIG, check
    from reskill_jax.training.config_file import read_config

    stored = folder / "config.json"
    if not stored.is_file():
        raise RunError(f"{folder} is no run folder: it has no config.json")
    try:
        check(read_config(stored), CONFIG)
    except ValueError as error:
        told = str(error)
        raise RunError(told if str(stored) in told else f"{stored}: {told}") from error
