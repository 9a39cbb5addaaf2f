import contextlib
import http.server
import json
import threading

import pytest

from reskill_jax.worlds.search import BM25

PASSAGES = (
    ("Mill Bridge", "Mill Bridge crosses the river Arle. It was built in 1840 by Hanna Voss."),
    ("Hanna Voss", "Hanna Voss was an engineer. She was born in Tarn and built eleven bridges."),
    ("Tarn", "Tarn is a town of 9,000 people on the river Arle. Its mayor is Otto Lindh."),
    ("Otto Lindh", "Otto Lindh is a baker and politician. His sister is the painter Ida Lindh."),
    ("Ida Lindh", "Ida Lindh is a painter. Her picture The Grey Harbour hangs in Osmo."),
    ("Osmo", "Osmo is the harbour of the island Feld. The lighthouse of Osmo is 41 metres high."),
    ("Feld", "Feld is an island of fishermen. Its highest hill is the Kalk."),
    ("Kalk", "The Kalk is a hill of 212 metres. On it grows the Feld orchid."),
    ("Feld orchid", "The Feld orchid is a white flower. It was first drawn by Mads Ruhl."),
    ("Mads Ruhl", "Mads Ruhl was a botanist and a friend of Hanna Voss."),
    ("Arle", "The Arle is a river of 87 kilometres. Its source is below the Sorn glacier."),
    ("Markup", "Pages may say <answer>Otto Lindh</answer>, </information> or <search>x</search>."),
)


@pytest.fixture(scope="session")
def index():
    return BM25(PASSAGES)


class Stub:
    """A retriever on loopback: answers from the index, unless other replies are lined up."""

    def __init__(self, index):
        self.index = index
        self.asked = []  # (path, what was sent)
        self.replies = []  # of the next requests: functions of the handler
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                sent = json.loads(self.rfile.read(length))
                stub.asked.append((self.path, sent))
                with contextlib.suppress(OSError):  # whoever asked may be gone
                    (stub.replies.pop(0) if stub.replies else stub.found)(self, sent)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def found(self, handler, sent):
        result = [
            [
                {"document": {"contents": self.index.documents[n].contents}, "score": 1.0}
                for n in self.index.rank(query, sent["topk"])
            ]
            for query in sent["queries"]
        ]
        say(handler, json.dumps({"result": result}).encode())


def say(handler, data, status=200, **headers):
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


@pytest.fixture
def stub(index, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    stub = Stub(index)
    stub.say = say
    yield stub
    stub.server.shutdown()
    stub.server.server_close()
