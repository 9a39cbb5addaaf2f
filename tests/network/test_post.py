"""One POST, against sockets that misbehave."""

import contextlib
import json
import socket
import threading
import time

import pytest

from reskill_jax.network.post import PostError, post

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def listen():
    """Starts a server of one connection: `listen(pieces, pause)` -> its address, what it heard."""
    with contextlib.ExitStack() as stack:

        def start(pieces, pause=0.0):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            heard = []

            def answer():
                with contextlib.suppress(OSError):  # the other side may give up
                    connection, _ = listener.accept()
                    with connection:
                        while not b"".join(heard).endswith(b"}"):  # as every body does
                            heard.append(connection.recv(1 << 16))
                        for piece in pieces:
                            connection.sendall(piece)
                            time.sleep(pause)

            threading.Thread(target=answer, daemon=True).start()
            return f"http://127.0.0.1:{listener.getsockname()[1]}/ask?how=so", heard

        yield start


def ask(url, *, seconds=10.0, most_bytes=1 << 20, **options):
    return post(url, {"a": "ä"}, seconds=seconds, most_bytes=most_bytes, **options)


def failure(url, **options):
    with pytest.raises(PostError) as caught:
        ask(url, **options)
    return caught.value.failure


def test_an_answer(listen):
    url, heard = listen([OK + b"X-Say: so\r\nContent-Length: 2\r\n\r\n{}"])
    response = ask(url, headers={"X-Key": "k"})
    assert (response.status, response.body, response.headers["x-say"]) == (200, b"{}", "so")
    head, _, body = b"".join(heard).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /ask?how=so HTTP/1.1\r\n") and b"X-Key: k" in head
    assert json.loads(body) == {"a": "ä"} and body.isascii()


def test_redirects_are_answers(listen):
    elsewhere = b"Location: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
    url, _ = listen([b"HTTP/1.1 302 x\r\n" + elsewhere])
    assert ask(url).status == 302


@pytest.mark.parametrize(
    "before, drop",
    [
        (b"", OK[:1]),
        (OK, b"X"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
        (OK + b"Content-Length: 1000\r\n\r\n", b" "),
    ],
    ids=["a status", "a header", "the size of a chunk", "a body"],
)
def test_the_deadline_is_one_of_everything(listen, before, drop):
    """A byte now and then never runs into the time limit of a single read."""
    url, _ = listen([before, *[drop] * 100], pause=0.05)
    began = time.monotonic()
    assert failure(url, seconds=0.4) == "timeout"
    assert time.monotonic() - began < 3.0


@pytest.mark.parametrize(
    "answer, kind",
    [
        (OK + b"Content-Length: 9\r\n\r\n{}", "broken"),
        (b"no HTTP\r\n\r\n", "broken"),
        (b"", "broken"),
        (OK + b"Content-Length: 4000\r\n\r\n" + b" " * 4000, "large"),
    ],
)
def test_answers_that_are_none(listen, answer, kind):
    assert failure(listen([answer])[0], most_bytes=1000) == kind


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert failure(f"http://127.0.0.1:{port}") == "unreachable"


def test_a_key_that_comes_back_is_not_told(listen):
    url, _ = listen([OK + b"Content-Length: 12\r\n\r\nsaid: s3cret"])
    assert ask(url, secret="s3cret").body == b"said: ***"


def test_a_proxy_is_asked_with_its_password(listen, monkeypatch):
    url, heard = listen([OK + b"Content-Length: 2\r\n\r\n{}"])
    monkeypatch.setenv("http_proxy", url.replace("http://", "http://me:p%40ss@").split("/ask")[0])
    monkeypatch.setenv("no_proxy", "")
    assert ask("http://model.example/v1").body == b"{}"
    head = b"".join(heard)
    assert head.startswith(b"POST http://model.example/v1 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6cEBzcw==" in head  # me:p@ss
