"""Search question answering: questions, a retriever that is asked, answers that are scored."""

from .bm25 import BM25
from .phantom import PhantomWiki, generate
from .protocol import Found, Question, SearchError
from .retriever import Retriever
from .world import SearchQA

__all__ = [
    "BM25",
    "Found",
    "PhantomWiki",
    "Question",
    "Retriever",
    "SearchError",
    "SearchQA",
    "generate",
]
