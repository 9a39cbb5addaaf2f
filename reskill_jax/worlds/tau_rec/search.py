"""Search over a catalog: BM25 (Okapi), with a floor for the weight of common tokens.

S. Robertson, H. Zaragoza, "The probabilistic relevance framework: BM25 and beyond", 2009. The
variant is the benchmark's: tokens that are in more than half of the documents, whose weight would
be negative, get a quarter of the average weight. Everything is float64.

There is no stemming, no list of stop words, and punctuation stays on a word. Genres, director and
cast count as one token each, so a name of two words, which a query is split into, never matches.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from .catalog import Film

K1, B, EPSILON = 1.5, 0.75, 0.25
MOST_RESULTS = 20


def tokens_of(film: Film) -> list[str]:
    """The document of a film."""
    names = [*film["genres"], film["director"], *film["cast"]]
    title, overview = film["title"].lower().split(), film["overview"].lower().split()
    return [*title, *overview, *(name.lower() for name in names)]


class SearchIndex:
    """An index of films.

    Attributes:
      lengths: tokens of each film. mean_length: of them.
      idf: token -> weight. average_idf: over all tokens, negative weights included.
    """

    def __init__(self, films: Sequence[Film]):
        """Counts the tokens of all films."""
        counts = [Counter(tokens_of(film)) for film in films]
        self._ids = tuple(film["id"] for film in films)
        self.lengths = tuple(sum(count.values()) for count in counts)
        self.mean_length = sum(self.lengths) / len(films)
        holding: Counter[str] = Counter()
        for count in counts:
            holding.update(count.keys())
        raw = {
            token: math.log(len(films) - n + 0.5) - math.log(n + 0.5)
            for token, n in holding.items()
        }
        self.average_idf = sum(raw.values()) / max(len(raw), 1)
        floor = EPSILON * self.average_idf
        self.idf: Mapping[str, float] = {t: floor if w < 0 else w for t, w in raw.items()}
        self._found: dict[str, list[tuple[int, float]]] = {}  # token -> (film, score)
        for n, (count, length) in enumerate(zip(counts, self.lengths, strict=True)):
            for token, f in count.items():
                shrunk = f + K1 * (1 - B + B * length / self.mean_length)
                score = self.idf[token] * (f * (K1 + 1) / shrunk)
                self._found.setdefault(token, []).append((n, score))

    def scores(self, query: str) -> list[float]:
        """[films] score of each; a token that is repeated counts as often."""
        scores = [0.0] * len(self._ids)
        for token in query.lower().split():
            for n, score in self._found.get(token, ()):
                scores[n] += score
        return scores

    def search(self, query: str, *, most: int = MOST_RESULTS) -> list[tuple[str, float]]:
        """Ids and scores of the best films, ties in the catalog's order; none has a score of 0."""
        scores = self.scores(query)
        order = sorted(range(len(scores)), key=lambda n: -scores[n])[:most]
        return [(self._ids[n], scores[n]) for n in order if scores[n] > 0]
