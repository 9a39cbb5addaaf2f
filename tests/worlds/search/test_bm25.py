import math
import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reskill_jax.worlds.search import BM25, Found, SearchError
from reskill_jax.worlds.search.bm25 import MOST_WORDS, words

# Words with the title: 4, 4, 8, 4, 4, 4, 4; average 32 / 7.
SMALL = (
    ("t", "fox fox x"),  # fox twice in four words
    ("t", "fox x x"),  # once in four
    ("t", "fox x x x x x x"),  # once in eight
    ("t", "owl x x"),
    ("t", "x x x"),
    ("t", "x x y"),
    ("t", "x x y"),
)


def score(frequency, length, holding, *, count=7, average=32 / 7):
    weight = math.log((count - holding + 0.5) / (holding + 0.5))
    return weight * frequency * 2.2 / (frequency + 1.2 * (0.25 + 0.75 * length / average))


def test_the_ranking_is_that_of_the_formula():
    small = BM25(SMALL, topk=7)
    assert small.rank("fox") == [0, 1, 2]
    # by hand, the first: ln(4.5 / 3.5) * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 4 / 4.571))
    assert [round(score(f, n, 3), 3) for f, n in ((2, 4), (1, 4), (1, 8))] == [0.358, 0.265, 0.192]
    # a word of one document counts more than one of three: 1.545 against 0.358
    assert small.rank("fox owl") == [3, 0, 1, 2]
    assert round(score(1, 4, 1), 3) == 1.545
    assert small.rank("y") == [5, 6]  # equal scores: in the order of the documents
    assert small.rank("y y owl") == small.rank("owl y")  # a word of a query counts once
    assert small.rank("y", topk=1) == [5]
    assert small.rank("nothing") == small.rank("") == small.rank("?!") == []


def test_questions_about_the_passages(index):
    def titles(query):
        return [index.documents[number].title for number in index.rank(query)]

    assert titles("Who built Mill Bridge?")[0] == "Mill Bridge"
    assert titles("mayor of Tarn")[:2] == ["Tarn", "Hanna Voss"]  # who was born there
    assert titles("sister of Otto Lindh")[:2] == ["Otto Lindh", "Markup"]  # the shortest others
    assert titles("lighthouse")[:2] == ["Osmo"]


def test_a_search_returns_title_and_text(index):
    found = index.search("Kalk orchid hill")
    assert isinstance(found, Found) and not found.error and len(found.passages) == 3
    assert (
        found.passages[0]
        == '"Kalk"\nThe Kalk is a hill of 212 metres. On it grows the Feld orchid.'
    )
    assert index.search("zzz") == Found()


@pytest.mark.parametrize(
    ("query", "means"),
    [
        ('Kalk" OR "Tarn', "kalk or tarn"),
        ("NEAR(Kalk Tarn, 2)", "near kalk tarn 2"),
        ("words:Kalk", "words kalk"),
        ("Kal*", "kal"),
        ("^Kalk AND NOT Tarn", "kalk and not tarn"),
        ("{words} : -Kalk + Tarn", "words kalk tarn"),
        ("'; DROP TABLE texts; --", "drop table texts"),
        ("Kalk\0Tarn\ud800", "kalk tarn"),
        ("KALK's", "kalk s"),
    ],
)
def test_nothing_in_a_query_is_a_command(index, query, means):
    assert words(query) == means.split()
    assert index.rank(query, 12) == index.rank(means, 12)
    assert index.rank("Kalk")[0] == 7


@given(st.text(st.characters()) | st.text('"*^:(){}-+ ORNEAT\0kalk'))
def test_any_query_works(query):
    index = _index()
    found = index.rank(query, 5)
    assert found == index.rank(query, 5) == index.rank(" ".join(words(query)), 5)
    assert len(found) == len(set(found)) <= 5 and set(found) <= set(range(3))


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4), st.text())
def test_any_document_works(documents, query):
    index = BM25(documents)
    assert [tuple(document) for document in index.documents] == documents
    assert len(index.search(query).passages) <= 3


_INDEXES = []


def _index():
    if not _INDEXES:
        _INDEXES.append(BM25([("Kalk", "a hill"), ("Tarn", "or a town"), ("", "near not and")]))
    return _INDEXES[0]


def test_long_queries(index):
    assert index.rank("x" * 200_000) == []
    many = " ".join(f"word{n}" for n in range(MOST_WORDS - 1))
    assert index.rank(f"{many} Kalk")[0] == 7
    assert index.rank(f"{many} more Kalk") == []
    assert index.rank("Kalk " * 100_000)[0] == 7


def test_letters_of_other_scripts_and_accents():
    index = BM25([("Éire", "straße"), ("नमस्ते", "दुनिया"), ("東京", "都")])
    assert index.rank("eire") == index.rank("STRASSE") == [0]
    assert index.rank("नमस्ते!") == [1] and index.rank("東京") == [2]


def test_it_crosses_processes_and_threads(index):
    again = pickle.loads(pickle.dumps(index))
    assert again.rank("river Arle", 12) == index.rank("river Arle", 12)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(index.rank("river Arle", 12)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [index.rank("river Arle", 12)] * 4


def test_what_is_no_index():
    with pytest.raises(SearchError, match="no documents"):
        BM25([])
    with pytest.raises(SearchError, match="topk is at least 1, not 0"):
        BM25(SMALL, topk=0)
