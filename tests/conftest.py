"""Eight simulated CPU devices and a persistent compilation cache, set before jax starts."""

import ctypes
import gc
import os
import signal
import sys
from pathlib import Path

_CACHE = Path(__file__).resolve().parent.parent / ".cache" / "jax"

os.environ["JAX_PLATFORMS"] = "cpu"
_flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in _flags:
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

import dataclasses  # noqa: E402
import functools  # noqa: E402
import json  # noqa: E402
import types  # noqa: E402
from typing import NamedTuple  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tokenizers  # noqa: E402
from hypothesis import settings  # noqa: E402

from reskill_jax.models import weights  # noqa: E402
from reskill_jax.models.decoder import DecoderConfig  # noqa: E402
from reskill_jax.models.families import read_config  # noqa: E402
from reskill_jax.models.layout import parts  # noqa: E402
from reskill_jax.models.model import Decoder  # noqa: E402
from reskill_jax.models.tensors import write_tensors  # noqa: E402
from reskill_jax.rollouts.compiled import play as play_rows  # noqa: E402
from reskill_jax.rollouts.episodes import Record, Rollouts  # noqa: E402
from reskill_jax.skills.skill import Skill, Trigger  # noqa: E402
from reskill_jax.training import config as configs  # noqa: E402
from reskill_jax.training import loop  # noqa: E402
from reskill_jax.training import runner as runners  # noqa: E402
from reskill_jax.training.config import replace  # noqa: E402
from reskill_jax.training.lifecycle import make_bank  # noqa: E402
from reskill_jax.training.proposals import put_on_trial  # noqa: E402
from reskill_jax.training.settings import Policy  # noqa: E402
from reskill_jax.training.state import init_state  # noqa: E402
from reskill_jax.training.step import train_step  # noqa: E402
from reskill_jax.worlds.household import symbols  # noqa: E402
from reskill_jax.worlds.household.world import HouseholdWorld  # noqa: E402
from reskill_jax.worlds.language import symbol_language  # noqa: E402

# Compilation makes the first example slow, so there is no deadline; examples are the same each run.
# A test that needs more examples takes a multiple of what the profile has.
settings.register_profile("full", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("quick", settings.get_profile("full"), max_examples=5)
settings.load_profile("full")


# Programs of tests compute next to nothing, nearly all of the time goes into compiling them: a step
# of training takes 9 s this way instead of 31. The last flag is no promise of XLA's, and an unknown
# one ends the process; so it is left out where it was not tried.
CHEAP_PROGRAMS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if jax.__version_info__[:2] == (0, 10):
    CHEAP_PROGRAMS.append("--xla_cpu_use_fusion_emitters=false")

# Folders whose files share programs: those of the training step, and those of the world's games.
SHARING = {
    **dict.fromkeys(
        ("tests/training/", "tests/rollouts/", "tests/evaluation/", "tests/storage/"), "step"
    ),
    "tests/devices/": "step",
    "tests/creators/test_llm_runs": "step",
    "tests/worlds/household/": "games",
}

ENOUGH = 1_000_000_000  # bytes in use, beyond which programs are dropped after a file


def pytest_addoption(parser):
    parser.addoption(
        "--quick",
        action="store_true",
        help="without the tests marked slow, with fewer examples, compiled without optimization",
    )


# In the background of a script, or under nohup, these are ignored, and so they are in every process
# that a test starts: signals that a test sends would be waited for in vain.
USUAL_HANDLERS = {signal.SIGINT: signal.default_int_handler}
if hasattr(signal, "SIGHUP"):
    USUAL_HANDLERS[signal.SIGHUP] = signal.SIG_DFL


def pytest_configure(config):
    for number, handler in USUAL_HANDLERS.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if config.getoption("quick"):
        settings.load_profile("quick")
        new = [flag for flag in CHEAP_PROGRAMS if flag not in os.environ["XLA_FLAGS"]]
        os.environ["XLA_FLAGS"] = " ".join([os.environ["XLA_FLAGS"], *new])


def pytest_collection_modifyitems(config, items):
    if config.getoption("quick"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files, and folders whose files share large programs, stay whole: one process compiles them.

    Without --quick these folders are too much for one process, and every file is on its own.
    """
    if not config.getoption("quick"):
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return next((what for at, what in SHARING.items() if file.startswith(at)), file)

    return Scheduling(config, log)


# The smallest run in which a skill can be proposed, tried and decided. Tests that are about other
# things train with these sizes, so that they share compiled programs.
SMALLEST = replace(
    configs.smallest(),
    steps=12,
    max_turns=6,
    context_length=76,
    trial=dict(concurrent=3, rule="means", min_steps=2, min_episodes=20, max_steps=4),
    slots=8,
    creator=dict(reservoir=8),
    eval_every=4,
    eval_tasks=16,
)

LOOK = symbols.symbol(" look")


@dataclasses.dataclass(frozen=True)
class LookingWorld(HouseholdWorld):
    """A household in which looking around wins: an untrained policy has both outcomes at once."""

    def step(self, task, state, cursor):
        looked = self.action(task, cursor)[0] == LOOK
        state, step = super().step(task, state, cursor)
        reward = looked.astype(jnp.float32)
        return state, step._replace(reward=reward, success=looked, done=looked)


def resident_bytes():
    """Memory this process holds; 0 where it cannot be told."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def give_memory_back():
    gc.collect()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """What a file has compiled does not stay forever: a process of the suite needs 2 GB at most."""
    yield
    if resident_bytes() > ENOUGH:
        give_memory_back()
    if resident_bytes() > ENOUGH:
        jax.clear_caches()  # who needs a program again finds it in the compilation cache
        give_memory_back()


@pytest.fixture(scope="session")
def smallest():
    """The smallest configuration of a run."""
    return SMALLEST


@pytest.fixture(scope="session")
def looking_world():
    """The class of `LookingWorld`."""
    return LookingWorld


# --- a policy and a world in which something can be won, and the programs that tests share -------

POLICY = DecoderConfig(
    vocabulary=symbols.VOCABULARY_SIZE, width=32, layers=1, heads=2, kv_heads=1, mlp=64
)
MODEL, LANGUAGE = Decoder(POLICY), symbol_language(HouseholdWorld())


def looking_at(name, *, rooms):
    """`make_world`, of the world in which looking around wins."""
    return LookingWorld(spec=rooms)


class Played(NamedTuple):
    """Episodes, and what was said in them."""

    rollouts: Rollouts
    record: Record

    def __getattr__(self, name):
        return getattr(self.rollouts if hasattr(self.rollouts, name) else self.record, name)


def program(config, world, *, axis_name=None):
    """The training step as a function of (state, games)."""
    return functools.partial(
        train_step,
        world=world,
        model=MODEL,
        language=LANGUAGE,
        algorithm=runners.algorithm_of(config),
        config=config,
        axis_name=axis_name,
    )


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """The tiny policy as a file."""
    path = tmp_path_factory.mktemp("policy") / "tiny.safetensors"
    weights.save(path, MODEL.init(jax.random.key(2)), {"made by": "tests"}, POLICY)
    return path


CHAT = (
    "{% for m in messages %}{{ '<|' + m.role.replace('assistant', 'agent') + '|>\n' + m.content "
    "+ '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|agent|>\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory):
    """A tiny checkpoint as the Hub has it: random weights, and a token for every byte."""
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    folder.mkdir()
    settings = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 260,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    config, source = read_config(settings)
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(0, 0.2, shape).astype(np.float32) + (len(shape) == 1)
        for part in parts(config, source)
        for name, shape in zip(part.names, part.shapes, strict=True)
    }
    shapes = {name: ("F32", array.shape) for name, array in arrays.items()}
    write_tensors(folder / "model.safetensors", shapes, arrays.__getitem__)
    letters = {letter: i for i, letter in bytes_to_letters().items()}
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={c: i for c, i in letters.items()}, merges=[])
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    for name in ("<|system|>", "<|user|>", "<|agent|>", "<|end|>"):
        made.add_special_tokens([tokenizers.AddedToken(name, special=True, normalized=False)])
    made.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def bytes_to_letters():
    """Byte -> the letter that stands for it in byte-level BPE (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }


@pytest.fixture(scope="session")
def lab(smallest, weights_file, looking_world):
    """One configuration, and its compiled step and rollout (state arguments are donated)."""
    config = dataclasses.replace(smallest, model=configs.ModelConfig(str(weights_file)))
    world = looking_world(spec=config.rooms)
    policy = Policy((), MODEL, LANGUAGE)
    step = loop.make_runner(config, world, policy).step  # the loop's own program, for both
    saved = jax.tree.map(jnp.asarray, weights.load(weights_file)[0])

    def params():
        return jax.tree.map(jnp.copy, saved)

    def state(arms=((),), config=config):
        bank = make_bank(config, world, [list(arm) for arm in arms])
        return init_state(config, params(), bank, width=MODEL.width)

    def on_trial(state, *parts, config=config, kind="bundle"):
        """The state in which the trials of these parts begin."""
        tested = types.SimpleNamespace(kind=kind)
        for part in parts:
            state = put_on_trial(state, part, tested, config)
        return state

    @jax.jit
    def played(keys, params, games, bank, arms, temperature):
        played = play_rows(
            keys,
            params,
            games,
            bank,
            arms,
            world=world,
            model=MODEL,
            language=LANGUAGE,
            max_turns=config.max_turns,
            context_length=config.context_length,
            temperature=temperature,
        )
        return Played(*played)

    def play(keys, params, games, bank, arms, temperature=1.0):
        return played(keys, params, games, bank, arms, jnp.float32(temperature))

    def skill(name, action, kind="general", pattern=None):
        return Skill(name, "For tests.", action, Trigger(kind, pattern))

    return types.SimpleNamespace(
        config=config,
        model=MODEL,
        language=LANGUAGE,
        policy=policy,
        world=world,
        make_world=looking_at,
        params=params,
        state=state,
        on_trial=on_trial,
        step=step,
        program=program,
        play=play,
        make=jax.jit(jax.vmap(functools.partial(world.make, split="train"))),
        skill=skill,
    )
