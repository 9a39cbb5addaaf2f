"""The policy as a player of text games, on the host: one episode, one token at a time.

`PolicyPlayer` keeps the same context, token for token, and encodes it in the same chunks as
`rollouts.compiled.play`, so that in the same game it takes the same decisions, whatever engine the
texts come from.
"""

import functools
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.models import pieces
from reskill_jax.models.model import Model
from reskill_jax.models.params import Params
from reskill_jax.models.sampling import NO_TOKEN, masked_log_probs, sample_candidates
from reskill_jax.rollouts.compiled import CANDIDATES, CHUNK, SKILL_SYMBOLS, next_chunk
from reskill_jax.skills.bank import skill_line
from reskill_jax.skills.skill import Skill
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import Language
from reskill_jax.worlds.playing import PlayerStops

_MARKS = frozenset((sy.PROMPT, sy.SKILL))
_WELCOME = sy.SYMBOLS[sy.SYMBOL_ID["-= Welcome to TextWorld, ALFRED! =-\n"]]


class ContextFull(PlayerStops):
    """The context has no room for another command: the episode ends, as in the compiled world."""


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


@functools.partial(jax.jit, static_argnames="model", donate_argnums=1)
def _extend(params, cache, tokens, count, *, model):
    return model.extend(params, cache, tokens, count)


@functools.partial(jax.jit, static_argnames="model")
def _choose(params, hidden, support, key, turn, place, temperature, *, model):
    """The token, its log-probability, and by how much the best leads the second best."""
    logits = model.logits(params, hidden, support[None])[0]
    key = jax.random.fold_in(jax.random.fold_in(key, turn), place)
    token, log_prob = sample_candidates(
        key, logits, support, vocab_size=model.vocab_size, temperature=temperature
    )
    best, _ = jax.lax.top_k(masked_log_probs(logits, support != NO_TOKEN), 2)
    return token, log_prob, best[0] - best[1]


class PolicyPlayer:
    """One episode of a policy with its skills; a `playing.Player`.

    Attributes:
      tokens: the context so far.
      fired: names of the skills in each turn's prompt.
      log_probs: of every token that was chosen among several, in order, under the distribution
        it was drawn from: 0 where the choice is greedy.
      margins: per command, the least difference of log-probability between the best and the
        second best token among its decisions (inf where nothing was to be decided): how near the
        greedy choice was to a tie.
      truncated: whether the context was full.
    """

    def __init__(
        self,
        params: Params,
        model: Model,
        language: Language,
        skills: Sequence[Skill] = (),
        *,
        context_length: int,
        temperature: float = 0.0,
        key: jax.Array | None = None,
    ):
        """Starts an episode.

        Args:
          params, model: of the policy. language: the household's, in the model's tokens.
          skills: in slot order.
          context_length: L, tokens of context at most.
          temperature: of sampling; 0 is greedy.
          key: random key, needed to sample; the same key as a rollout's row, the same noise.

        Raises:
          SkillError: a skill whose action has a word the language lacks.
          ValueError: a temperature without a key.
        """
        if temperature > 0 and key is None:
            raise ValueError("sampling (temperature > 0) needs a key")
        self._params, self._model, self._language = params, model, language
        self._context_length, self._temperature = context_length, temperature
        self._key = jax.random.key(0) if key is None else key
        self._skills = [(skill, _skill_line(skill)) for skill in skills]
        self._cache = model.init_cache(1, context_length)
        self._hidden = jnp.zeros((1, model.width), model.dtype)
        self._encoded = 0
        self._last: str | None = None
        self._task = ""
        self.tokens: list[int] = list(language.frame.start)
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
        language = self._language
        self.tokens += language.spell(text_symbols(observation), opening=True)
        self._read_skills(observation)
        self.tokens += language.frame.ask
        if len(self.tokens) + language.action_tokens(_WORLD) > self._context_length:
            self.truncated = True
            raise ContextFull(
                f"{len(self.tokens)} of {self._context_length} tokens are used: no room for a "
                "command"
            )
        command, rest = self._spell(list(dict.fromkeys(admissible)))
        self.tokens += rest  # forced, so no decisions
        self._last = command
        return command

    def _read_skills(self, observation: str) -> None:
        turn, left, fired = len(self.fired), SKILL_SYMBOLS, []
        if turn == 0:
            self._task = sy.task_of(observation)
        for skill, line in self._skills:
            trigger = skill.trigger
            if trigger.applies_to_task(self._task) and trigger.fires(
                turn=turn, last_action=self._last, observation=observation
            ):
                fired.append(skill.name)
                if len(line) <= left:
                    self.tokens += self._language.spell(line, opening=False)
                    left -= len(line)
        self.fired.append(tuple(fired))

    def _spell(self, commands: list[str]) -> tuple[str, list[int]]:
        """A command, and those of its tokens that were left once it was the only one.

        A spelling is a command's tokens and the token behind it; names of words that the language
        lacks read the same, and the first of them is meant.
        """
        spelled: dict[tuple[int, ...], str] = {}
        for command in commands:
            tokens = self._language.spell(_command_symbols(command), opening=True)
            spelled.setdefault((*tokens, *self._language.frame.answered), command)
        margin, place, written, chunk = float("inf"), 0, 0, CHUNK
        by_symbol = self._language.identity  # then a token without a choice counts as one, too
        while len(spelled) > 1 or (by_symbol and written == 0):
            options = {spelling[written] for spelling in spelled}
            token = min(options)
            if by_symbol or len(options) > 1:
                self._encode(chunk)
                chunk = next_chunk(self._language)
            if len(options) > 1:
                token, found = self._decide(options, place)
                margin = min(margin, found)
            self.tokens.append(token)
            place += by_symbol or len(options) > 1
            spelled = {s: c for s, c in spelled.items() if s[written] == token}
            written += 1
        self.margins.append(margin)
        ((spelling, command),) = spelled.items()
        return command, list(spelling[written:])

    def _decide(self, options: set[int], place: int) -> tuple[int, float]:
        support = np.full(max(CANDIDATES, len(options)), NO_TOKEN, np.int32)
        support[: len(options)] = sorted(options)
        token, log_prob, margin = _choose(
            self._params,
            self._hidden,
            support,
            self._key,
            np.int32(len(self.fired) - 1),
            np.int32(place),
            np.float32(self._temperature),
            model=self._model,
        )
        self.log_probs.append(float(log_prob))
        return int(token), float(margin)

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
                model=self._model,
            )
            self._encoded += len(new)


_WORLD = HouseholdWorld()


def _skill_line(skill: Skill) -> list[int]:
    return skill_line(
        skill, header=sy.SKILL, encode=sy.words, unknown=sy.UNKNOWN, lacking=sy.lacking
    )
