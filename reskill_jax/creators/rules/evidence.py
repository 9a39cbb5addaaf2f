"""How the share of moments at which an action followed differs between successes and failures."""

from typing import NamedTuple

import numpy as np

from .cues import Decisions

_PRIOR = 2.0  # episodes' worth of the base rate


class Evidence(NamedTuple):
    """Statistics of W conditions x C cues x K classes of actions, speaking for doing it."""

    effect: np.ndarray  # [W, C, K] difference of the success rates
    score: np.ndarray  # [W, C, K] standard score of the difference of the shares
    slope: np.ndarray  # [W, C, K] success per share, by least squares
    slope_error: np.ndarray  # [W, C, K]
    follow: np.ndarray  # [W, C, K] mean share f
    spread: np.ndarray  # [W, C, K] standard deviation of f
    correlation: np.ndarray  # [W, C, K] of f and success, absolute
    coverage: np.ndarray  # [W, C, K] weighted share of all episodes with such a moment
    rate: np.ndarray  # [W, C] share of the episodes with the word in which the cue occurs
    support: np.ndarray  # [W, C, K] episodes with a moment of the rarer of the two behaviours
    regular: np.ndarray  # [W, C, K] mean share f of the successes, an even one added
    usual: np.ndarray  # [W, C, K] mean share f of all episodes, an even one added
    moments: np.ndarray  # [W, C, K] mean number of moments in an episode that has any


class _Shares(NamedTuple):
    """How often the action followed the cue, episode by episode."""

    moments: np.ndarray  # [C, K, E] how many
    present: np.ndarray  # [C, K, E] 1 where there was such a moment
    f: np.ndarray  # [C, K, E] share of them at which it followed; 0 where there was none


class _Side(NamedTuple):
    """The episodes of one outcome."""

    by: np.ndarray  # [W, E] their weights
    n: np.ndarray  # [W, C, K] weight of those with a moment
    followed: np.ndarray  # [W, C, K] sum of f

    @property
    def mean(self) -> np.ndarray:
        """[W, C, K] mean of f."""
        return self.followed / self.n


class _Comparison(NamedTuple):
    """Successes and failures side by side; all [W, C, K]."""

    difference: np.ndarray  # of the mean shares
    error: np.ndarray  # its standard error
    share: np.ndarray  # success rate among the episodes with a moment
    between: np.ndarray  # variance of success
    variance: np.ndarray  # of f, over both sides


def measure(
    occurs: np.ndarray,
    acts: np.ndarray,
    could: np.ndarray,
    words: np.ndarray,
    decisions: Decisions,
    success: np.ndarray,
    weight: np.ndarray,
) -> Evidence:
    """Computes the evidence.

    Args:
      occurs: [C, D] bool: the cue occurs at the decision.
      acts: [K, D] bool: the action of the decision belongs to the class.
      could: [K, D] bool: an action of the class was possible.
      words: [W, E] bool: the episode's goal has the word.
      decisions: D decisions of E episodes.
      success: [E] bool.
      weight: [E] float.
    """
    shares = _shares(occurs, acts, could, decisions.first)
    moments, present, f = shares
    weighted = words * weight  # [W, E]
    won_by = weighted * success
    won, lost = _side(shares, won_by), _side(shares, weighted - won_by)
    difference, error, share, between, variance = _compare(shares, won, lost)
    said = words * 1.0  # [W, E]
    occurring = (np.add.reduceat(occurs, decisions.first, axis=1, dtype=np.float64) > 0) * 1.0
    in_play = (weight > 0) * 1.0
    some = _total((f > 0) * in_play, said)
    other = _total(((f < 1) & (present > 0)) * in_play, said)
    return Evidence(
        effect=_effect(won, lost, share),
        score=difference / error,
        slope=between * difference / variance,
        slope_error=between * error / variance,
        follow=_mean(won, lost),
        spread=np.sqrt(variance),
        correlation=np.abs(difference) * np.sqrt(between / variance),
        coverage=_total(present, weighted) / max(float(weight.sum()), 1e-9),
        rate=_total(occurring, said) / np.maximum(words.sum(axis=1), 1)[:, None],
        support=np.minimum(some, other),
        regular=(_total(f, words * success) + 0.5) / (_total(present, words * success) + 1),
        usual=(_total(f, said) + 0.5) / (_total(present, said) + 1),
        moments=_total(moments, said) / np.maximum(_total(present, said), 1),
    )


def _total(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Sums over episodes with weights: [..., E] x [W, E] -> [W, ...]."""
    return np.moveaxis(values @ by.T, -1, 0)


def _shares(occurs: np.ndarray, acts: np.ndarray, could: np.ndarray, first: np.ndarray) -> _Shares:
    """Counts moments episode by episode; first: [E] index of each episode's first decision."""

    def per_episode(of_class: np.ndarray) -> np.ndarray:  # [K, D] -> [C, K, E]
        values = of_class.astype(np.float32)
        counts = [np.add.reduceat(values * cue, first, axis=1) for cue in occurs]
        return np.stack(counts).astype(np.float64)

    count, joint = per_episode(could | acts), per_episode(acts)
    present = (count > 0).astype(np.float64)
    return _Shares(count, present, joint / np.maximum(count, 1))


def _side(shares: _Shares, by: np.ndarray) -> _Side:
    n = np.maximum(_total(shares.present, by), 1e-9)
    return _Side(by, n, _total(shares.f, by))


def _mean(won: _Side, lost: _Side) -> np.ndarray:
    """[W, C, K] mean of f over both sides."""
    return (won.followed + lost.followed) / (won.n + lost.n)


def _compare(shares: _Shares, won: _Side, lost: _Side) -> _Comparison:
    mean = _mean(won, lost)
    even = mean * (1 - mean)  # variance of f if it were all or nothing
    var_s, number_s = _spread(shares, won, even)
    var_f, number_f = _spread(shares, lost, even)
    both = (won.n > 1e-6) & (lost.n > 1e-6)  # moments on one side alone cannot be compared
    difference = np.where(both, won.mean - lost.mean, 0.0)
    error = np.sqrt(var_s / (number_s + 1) + var_f / (number_f + 1)) + 1e-6
    share = won.n / (won.n + lost.n)
    between = share * (1 - share)
    variance = share * var_s + (1 - share) * var_f + between * difference**2 + 1e-9
    return _Comparison(difference, error, share, between, variance)


def _spread(shares: _Shares, side: _Side, even: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance of f, drawn to `even` by the prior, and the effective number of episodes."""
    number = side.n**2 / np.maximum(_total(shares.present, side.by**2), 1e-9)
    variance = np.maximum(_total(shares.f * shares.f, side.by) / side.n - side.mean**2, 0.0)
    return (number * variance + _PRIOR * even) / (number + _PRIOR), number


def _effect(won: _Side, lost: _Side, share: np.ndarray) -> np.ndarray:
    """[W, C, K] the same data as success rates, for people: followed minus did not follow."""
    n0, s0 = won.n + lost.n - won.followed - lost.followed, won.n - won.followed
    p1 = (won.followed + _PRIOR * share) / (won.followed + lost.followed + _PRIOR)
    p0 = (s0 + _PRIOR * share) / (n0 + _PRIOR)
    return p1 - p0
