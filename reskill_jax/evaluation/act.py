"""The policy as a player of text games, on the host: one episode, one symbol at a time.

`PolicyPlayer` keeps the same context, symbol for symbol, and encodes it in the same chunks as
`rollout`, so that in the same game it takes the same decisions, whatever engine the texts come
from.
"""

import functools
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.models import decoder, pieces
from reskill_jax.models.decoder import DecoderConfig, Params
from reskill_jax.models.sampling import masked_log_probs, sample
from reskill_jax.rollouts.compiled import CHUNK, SKILL_SYMBOLS
from reskill_jax.skills.bank import unreadable
from reskill_jax.skills.skill import Skill
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.commands import COMMAND_LENGTH
from reskill_jax.worlds.playing import PlayerStops

_MARKS = frozenset((sy.PROMPT, sy.SKILL))
_WELCOME = sy.SYMBOLS[sy.SYMBOL_ID["-= Welcome to TextWorld, ALFRED! =-\n"]]


class ContextFull(PlayerStops):
    """The context has no room for another command: the episode ends, as in `rollout`."""


@functools.cache
def _tokenizer() -> pieces.SentencePieceTokenizer:
    return pieces.household()


@functools.cache
def _pieces() -> re.Pattern:
    """Symbols as whole words, the longest first; else one word, else one white space."""
    known = sorted((s for s in sy.SYMBOLS[sy.PROMPT :] if s), key=len, reverse=True)
    whole = [re.escape(s) + (r"(?!\w)" if s[-1].isalnum() else "") for s in known]
    return re.compile("|".join(whole) + r"|[ \n]?[^\s,.]+|\s")


def text_symbols(text: str) -> list[int]:
    """Symbols of what an engine says.

    Args:
      text: an opening or an answer, as the engines give it: without leading white space.

    Returns:
      Symbol ids; a word that the language lacks is UNKNOWN, and so is a text that imitates the
      prompt's own marks. Nothing raises.
    """
    if not text:
        return []
    if not text.startswith(_WELCOME):
        text = "\n" + text  # a phrase that opens an answer carries the line break before it
    found = _tokenizer().encode(text)
    if sy.UNKNOWN in found:
        # The tokenizer finds "apple" in "applesauce"; the compiled world goes by whole words.
        pieces = _pieces().findall(text)
        found = [sy.SYMBOL_ID.get(piece, sy.UNKNOWN) for piece in pieces if piece.strip()]
    # Only the prompt itself prompts and speaks of skills.
    return [sy.UNKNOWN if symbol in _MARKS else symbol for symbol in found]


@functools.lru_cache(maxsize=4096)
def _command_symbols(command: str) -> tuple[int, ...]:
    return tuple(sy.words(command))


@functools.partial(jax.jit, static_argnames="config", donate_argnums=1)
def _extend(params, cache, tokens, count, *, config):
    return decoder.extend(params, cache, tokens, count, config=config)


@functools.partial(jax.jit, static_argnames="config")
def _choose(params, hidden, allowed, key, turn, place, temperature, *, config):
    """The symbol, its log-probability, and by how much the best leads the second best."""
    logits = decoder.logits(params, hidden, config=config)[0]
    key = jax.random.fold_in(jax.random.fold_in(key, turn), place)
    symbol, log_prob = sample(key, logits, allowed, temperature=temperature)
    best, _ = jax.lax.top_k(masked_log_probs(logits, allowed), 2)
    return symbol, log_prob, best[0] - best[1]


class PolicyPlayer:
    """One episode of a policy with its skills; a `playing.Player`.

    Attributes:
      tokens: the context so far.
      fired: names of the skills in each turn's prompt.
      log_probs: of every symbol that was chosen among several, in order, under the distribution
        it was drawn from: 0 where the choice is greedy.
      margins: per command, the least difference of log-probability between the best and the
        second best symbol among its decisions (inf where nothing was to be decided): how near the
        greedy choice was to a tie.
      truncated: whether the context was full.
    """

    def __init__(
        self,
        params: Params,
        config: DecoderConfig,
        skills: Sequence[Skill] = (),
        *,
        capacity: int,
        temperature: float = 0.0,
        key: jax.Array | None = None,
    ):
        """Starts an episode.

        Args:
          params, config: the decoder.
          skills: in slot order.
          capacity: L, symbols of context at most.
          temperature: of sampling; 0 is greedy.
          key: random key, needed to sample; the same key as a rollout's row, the same noise.

        Raises:
          SkillError: a skill whose action has a word the language lacks.
          ValueError: a temperature without a key.
        """
        if temperature > 0 and key is None:
            raise ValueError("sampling (temperature > 0) needs a key")
        self._params, self._config = params, config
        self._capacity, self._temperature = capacity, temperature
        self._key = jax.random.key(0) if key is None else key
        self._skills = [(skill, _skill_line(skill)) for skill in skills]
        self._cache = decoder.init_cache(config, 1, capacity)
        self._hidden = jnp.zeros((1, config.width), config.dtype)
        self._encoded = 0
        self._last: str | None = None
        self._task = ""
        self.tokens: list[int] = []
        self.fired: list[tuple[str, ...]] = []
        self.log_probs: list[float] = []
        self.margins: list[float] = []
        self.truncated = False

    def act(self, observation: str, admissible: Sequence[str]) -> str:
        """Returns the next command, one of `admissible`.

        Raises:
          ContextFull: no room for another command.
          ValueError: nothing is admissible.
        """
        if not admissible:
            raise ValueError("no command is admissible")
        self.tokens += text_symbols(observation)
        self._read_skills(observation)
        self.tokens.append(sy.PROMPT)
        if len(self.tokens) + COMMAND_LENGTH > self._capacity:
            self.truncated = True
            raise ContextFull(
                f"{len(self.tokens)} of {self._capacity} symbols are used: no room for a command"
            )
        self._encode(CHUNK)
        command, spelled = self._spell(list(dict.fromkeys(admissible)))
        self.tokens += _command_symbols(command)[spelled:]  # forced, so no decisions
        self._last = command
        return command

    def _read_skills(self, observation: str) -> None:
        turn, left, fired = len(self.fired), SKILL_SYMBOLS, []
        if turn == 0:
            self._task = sy.task_of(observation)
        for skill, line in self._skills:
            trigger = skill.trigger
            if trigger.concerns(self._task) and trigger.fires(
                turn=turn, last_action=self._last, observation=observation
            ):
                fired.append(skill.name)
                if len(line) <= left:
                    self.tokens += line
                    left -= len(line)
        self.fired.append(tuple(fired))

    def _spell(self, commands: list[str]) -> tuple[str, int]:
        """A command, and how many of its symbols were spelled until it was the only one left."""
        margin, place = float("inf"), 0
        while True:
            spellings = [_command_symbols(command) for command in commands]
            if place and (len(commands) == 1 or min(map(len, spellings)) <= place):
                break  # the second: names of unknown words read the same; the first one it is
            options = {spelling[place] for spelling in spellings}
            symbol = min(options)
            if len(options) > 1:
                symbol, found = self._decide(options, place)
                margin = min(margin, found)
            self.tokens.append(symbol)
            commands = [c for c, s in zip(commands, spellings, strict=True) if s[place] == symbol]
            place += 1
            if len(commands) > 1:
                self._encode(1)
        self.margins.append(margin)
        return commands[0], place

    def _decide(self, options: set[int], place: int) -> tuple[int, float]:
        allowed = np.zeros(self._config.vocabulary, bool)
        allowed[list(options)] = True
        symbol, log_prob, margin = _choose(
            self._params,
            self._hidden,
            allowed,
            self._key,
            np.int32(len(self.fired) - 1),
            np.int32(place),
            np.float32(self._temperature),
            config=self._config,
        )
        self.log_probs.append(float(log_prob))
        return int(symbol), float(margin)

    def _encode(self, chunk: int) -> None:
        """Encodes what the cache does not hold yet."""
        while self._encoded < len(self.tokens):
            new = self.tokens[self._encoded : self._encoded + chunk]
            padded = np.zeros((1, chunk), np.int32)
            padded[0, : len(new)] = new
            self._hidden, self._cache = _extend(
                self._params,
                self._cache,
                padded,
                np.array([len(new)], np.int32),
                config=self._config,
            )
            self._encoded += len(new)


def _skill_line(skill: Skill) -> list[int]:
    line = [sy.SKILL, *sy.words(skill.action)]
    if sy.UNKNOWN in line:
        raise unreadable(skill, sy.lacking(skill.action))
    return line
