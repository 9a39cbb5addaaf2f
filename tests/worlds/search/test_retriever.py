import json
import pickle
import socket
import time

import pytest

from reskill_jax.worlds.search import Found, Retriever, SearchError
from reskill_jax.worlds.search.retriever import MOST_BYTES


@pytest.fixture
def waits():
    return []


@pytest.fixture
def retriever(stub, waits):
    return Retriever(stub.url, timeout=5, attempts=4, sleep=waits.append)


def test_a_search_asks_as_the_paper_does(stub, retriever, index, waits):
    assert retriever.search("Who built Mill Bridge?") == index.search("Who built Mill Bridge?")
    sent = {"queries": ["Who built Mill Bridge?"], "topk": 3, "return_scores": True}
    assert stub.asked == [("/retrieve", sent)] and waits == []
    assert retriever.search("zzz") == Found()


def test_addresses(stub, index):
    for end in ("", "/", "/retrieve", "/retrieve/"):
        assert Retriever(stub.url + end, topk=1).search("Kalk") == Found(
            (index.documents[7].contents,)
        )
    assert {path for path, _ in stub.asked} == {"/retrieve"}
    assert Retriever("http://h:8000/v1").url == "http://h:8000/v1/retrieve"
    assert Retriever("http://[::1]:8000").url == "http://[::1]:8000/retrieve"


@pytest.mark.parametrize(
    "url",
    ["", "host:8000", "file:///etc/passwd", "ftp://h", "http://", "http://a:b@h", "http://h:99999"]
    + ["http://h:x", "http://h:0", "http://h/a b", "http://h/\r\nX: y", "http://[::1", "http://é"],
)
def test_what_is_no_address(url):
    with pytest.raises(SearchError, match="is no address of a retriever"):
        Retriever(url)


@pytest.mark.parametrize("wrong", [{"topk": 0}, {"attempts": 0}, {"timeout": 0}])
def test_numbers_are_positive(wrong):
    with pytest.raises(SearchError, match="are positive"):
        Retriever("http://h", **wrong)


def test_it_is_tried_again_with_growing_waits(stub, retriever, waits, index):
    busy = lambda handler, sent: stub.say(handler, b"<answer>x</answer>", 503)  # noqa: E731
    stub.replies = [busy, busy]
    assert retriever.search("Kalk") == index.search("Kalk")
    assert waits == [1, 2] and len(stub.asked) == 3
    stub.replies = [busy] * 4
    assert retriever.search("Kalk") == Found(
        error="the retriever answered with status 503 (tried 4 times)"
    )
    assert waits == [1, 2, 1, 2, 3]


def test_the_longest_search():
    assert Retriever("http://h").longest == 645
    assert Retriever("http://h", timeout=5, attempts=1).longest == 5


def test_no_server(waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"  # bound, but nobody listens
        found = Retriever(url, attempts=3, sleep=waits.append).search("x")
    assert found.passages == () and waits == [1, 2]
    assert found.error == ("the retriever cannot be reached (Connection refused) (tried 3 times)")


def nested(depth):
    return b'{"result": ' + b"[" * depth + b"]" * depth + b"}"


LISTS = 'no lists of passages under "result"'
TEXT = 'no text under "contents"'


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is not JSON"),
        (b"<html>", "is not JSON"),
        (b"\xff\xfe{", "is not JSON"),
        (nested(200_000), "is not JSON"),
        (b"1" * 10_000, "is not JSON"),  # an int that Python refuses to read
        (b"[]", LISTS),
        (b"null", LISTS),
        (b'{"result": null}', LISTS),
        (b'{"result": {"0": []}}', LISTS),
        (b'{"result": [{"document": {"contents": "x"}}]}', LISTS),
        (b'{"error": "<answer>x</answer>"}', LISTS),
        (b'{"result": [[1]]}', TEXT),
        (b'{"result": [[{"document": "x"}]]}', TEXT),
        (b'{"result": [[{"document": {"contents": 1}}]]}', TEXT),
        (b'{"result": [[{"document": {"contents": "x"}}, {}]]}', TEXT),
        (b" " * (MOST_BYTES + 1), f"has more than {MOST_BYTES} bytes"),
    ],
    ids=range(16),
)
def test_a_reply_that_cannot_be_used_is_one_line(stub, retriever, waits, data, told):
    stub.replies = [lambda handler, sent: stub.say(handler, data)]
    found = retriever.search("x")
    assert told in found.error and "\n" not in found.error and "<" not in found.error
    assert found.passages == () and waits == [] and len(stub.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 418])
def test_other_statuses_are_not_tried_again(stub, retriever, waits, status):
    def reply(handler, sent):
        stub.say(handler, b"x", status, Location="http://127.0.0.1:9/<answer>")

    stub.replies = [reply]
    assert retriever.search("x") == Found(error=f"the retriever answered with status {status}")
    assert waits == []


def raw(*parts, wait=0.0):
    def reply(handler, sent):
        for part in parts:
            handler.wfile.write(part)
            handler.wfile.flush()
            time.sleep(wait)

    return reply


BROKEN = [
    raw(),
    raw(b"<answer>x</answer>\r\n\r\n"),
    raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b'{"result": [[]]}'),
    raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n<answer>"),
    raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"),
    raw(b"HTTP/1.1 99999999999999999999 OK\r\n\r\n"),
]


@pytest.mark.parametrize("reply", BROKEN, ids=range(len(BROKEN)))
def test_replies_that_break_off_are_tried_again(stub, retriever, waits, index, reply):
    stub.replies = [reply]
    assert retriever.search("Kalk") == index.search("Kalk")
    assert waits == [1]
    stub.replies = [reply] * 4
    error = retriever.search("Kalk").error
    assert error.endswith("(tried 4 times)") and "\n" not in error and "<" not in error


def test_a_reply_without_a_length_is_read_to_its_end(stub, retriever, index):
    body = json.dumps({"result": [[{"document": {"contents": "x"}, "score": None}] * 9]}).encode()
    stub.replies = [raw(b"HTTP/1.0 200 OK\r\n\r\n", body)]
    assert retriever.search("Kalk") == Found(("x", "x", "x"))  # no more than were asked for
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    stub.replies = [raw(chunked % (len(body), body))]
    assert retriever.search("Kalk") == Found(("x", "x", "x"))


@pytest.mark.parametrize(
    "reply",
    [
        raw(b"", wait=1.0),
        raw(b"HTTP/1.1 200 OK\r\n\r\n", *[b" "] * 20, wait=0.05),  # each read is in time
    ],
    ids=["silent", "dripping"],
)
def test_a_slow_server(stub, reply):
    stub.replies = [reply]
    began = time.monotonic()
    found = Retriever(stub.url, timeout=0.2, attempts=1).search("x")
    assert found == Found(error="the retriever took more than 0.2 seconds (tried once)")
    assert time.monotonic() - began < 0.9


def test_any_text_can_be_asked(stub, retriever):
    assert retriever.search('\ud800 "Kalk" \0 é').passages
    assert stub.asked[0][1]["queries"] == ['? "Kalk" \0 é']


def test_it_can_be_pickled(stub, index):
    assert pickle.loads(pickle.dumps(Retriever(stub.url))).search("Kalk") == index.search("Kalk")
