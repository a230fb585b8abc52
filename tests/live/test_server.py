"""The page's server: who is answered, what they are sent, and what becomes of slow ones."""

import http.client
import importlib.util
import json
import socket
import sys
import time
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from modessm_jax.live import server as served
from modessm_jax.live.sentences import LONGEST
from modessm_jax.live.server import MAX_CLIENTS, MAX_MESSAGE, MAX_WAITING, Server
from tests.live.clients import open_deaf_page, open_page

ABOUT = {"title": "a decoder"}
NEWS = {"type": "news", "phonemes": [["AH", 0, 1]], "words": [["a", 0, 1]], "tentative": ["b"]}


@pytest.fixture
def server(sentences):
    with Server("127.0.0.1", 0, ABOUT, sentences) as running:
        yield running


def get(server, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def received(client) -> dict:
    return json.loads(client.recv(timeout=10))


def wait_for(condition) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not come about in 10 s")


def test_the_page_is_three_files_and_allows_no_other_host(server):
    text = ""
    for path in ("/", "/page.css", "/page.js"):
        status, headers, body = get(server, path)
        assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
        text += body.decode()
    assert "://" not in text.replace("://${location.host}", "")
    assert get(server, "/etc/passwd")[0] == get(server, "/../server.py")[0] == 404


def test_a_page_is_sent_what_there_is_and_then_what_is_new(server, sentences):
    old = sentences.add({"text": "before"})
    server.publish(NEWS)
    server.publish(NEWS | {"tentative": []})
    with open_page(server.port) as client:
        hello = received(client)
        assert hello["title"] == "a decoder" and hello["sentences"] == [old]
        forming = {"words": NEWS["words"] * 2, "phonemes": NEWS["phonemes"] * 2, "tentative": []}
        assert hello["forming"] == forming
        server.publish(NEWS)
        assert received(client) == NEWS
        server.publish({"type": "sentence"})
        assert received(client) == {"type": "sentence"}
    with open_page(server.port) as client:
        assert not any(received(client)["forming"].values())


def test_a_correction_is_saved_and_everybody_is_told(server, sentences):
    sentences.add({"text": "hollow"})
    with open_page(server.port) as first, open_page(server.port) as second:
        assert received(first)["type"] == received(second)["type"] == "hello"
        first.send(json.dumps({"corrects": 1, "text": "hello"}))
        found = received(first)
        assert found == received(second) and found["type"] == "correction"
    assert sentences.shown()[0]["corrected"] == "hello"
    assert json.loads(sentences.path.read_text().splitlines()[1])["text"] == "hello"


NO_CORRECTIONS = (
    *("no JSON", "[]", "{}", b"\xff", "[" * 8000, '{"corrects": 1e999, "text": "b"}'),
    *('{"corrects": 2, "text": "b"}', '{"corrects": 1, "text": ""}'),
)


@pytest.mark.parametrize("sent", NO_CORRECTIONS)
def test_what_is_no_correction_is_refused_and_said_so(server, sentences, sent):
    sentences.add({"text": "a"})
    with open_page(server.port) as client:
        received(client)
        client.send(sent)
        assert received(client)["type"] == "refused"
        client.send('{"corrects": 1, "text": "c"}')
        assert received(client)["type"] == "correction"


def test_a_message_that_is_too_large_ends_the_connection(server, sentences):
    sentences.add({"text": "a"})
    with open_page(server.port) as client:
        received(client)
        client.send(json.dumps({"corrects": 1, "text": "b" * LONGEST}))
        assert received(client)["type"] == "correction"
        client.send("b" * (MAX_MESSAGE + 1))
        with pytest.raises(ConnectionClosed) as closed:
            received(client)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1", "http://localhost:1", "null", None]
)
def test_another_origin_is_refused(server, origin):
    with pytest.raises(InvalidStatus, match="403"), open_page(server.port, origin=origin):
        pass


def test_another_host_name_is_refused(server):
    assert get(server, "/", Host=f"evil.example:{server.port}")[0] == 403
    assert get(server, "/", Host=f"localhost:{server.port}")[0] == 200
    assert get(server, "/", Host=f"[::1]:{server.port}")[0] == 200


def test_another_address_needs_a_token(sentences):
    with Server("0.0.0.0", 0, ABOUT, sentences) as server:
        assert server.token and server.url.endswith(f"/?token={server.token}")
        for query in ("", "?token=", "?token=x", "?token=%C3%A9"):
            assert get(server, "/" + query)[0] == 403
            with pytest.raises(InvalidStatus, match="403"), open_page(server.port, query):
                pass
        assert get(server, f"/?token={server.token}")[0] == 200
        query = f"?token={server.token}"
        with (
            pytest.raises(InvalidStatus, match="403"),
            open_page(server.port, query, "http://evil.example"),
        ):
            pass
        with open_page(server.port, query) as client:
            assert received(client)["type"] == "hello"


def test_this_machine_needs_none(server):
    assert server.token is None and server.url == f"http://127.0.0.1:{server.port}/"


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("192.168.0.7", False), ("", False), ("localhost.evil.example", False)],
)  # fmt: skip
def test_addresses_of_this_machine(host, local):
    assert served.is_local(host) == local


def test_clients_are_few(server):
    with ExitStack() as stack:
        clients = [stack.enter_context(open_page(server.port)) for _ in range(MAX_CLIENTS)]
        for client in clients:
            received(client)
        with pytest.raises(InvalidStatus, match="503"), open_page(server.port):
            pass
        clients[0].close()
        wait_for(lambda: len(server._clients) < MAX_CLIENTS)  # pyright: ignore
        with open_page(server.port) as client:
            assert received(client)["type"] == "hello"


def test_a_client_that_reads_nothing_is_dropped_and_others_are_not(server):
    deaf = open_deaf_page(server.port)
    with open_page(server.port) as quick:
        assert received(quick)["type"] == "hello"
        wait_for(lambda: len(server._clients) == 2)  # pyright: ignore
        large = {"type": "news", "phonemes": [], "words": [], "tentative": [], "x": "x" * 100_000}
        for _ in range(MAX_WAITING + 100):  # 35 MB, more than the kernel holds
            server.publish(large)
            assert len(received(quick)["x"]) == 100_000
        assert len(server._clients) == 1  # pyright: ignore
    deaf.close()


def test_strangers_do_no_harm(server):
    for sent in (b"", b"\x00" * 100, b"POST / HTTP/1.1\r\n\r\n", b"GET " + b"x" * 100_000):
        with socket.create_connection(("127.0.0.1", server.port)) as stranger:
            stranger.sendall(sent)
    with open_page(server.port) as client:
        received(client)
        client.socket.shutdown(socket.SHUT_RDWR)  # gone without a word
    server.publish(NEWS)
    with open_page(server.port) as client:
        assert received(client)["type"] == "hello"


def test_a_port_in_use_is_an_error(server, sentences):
    with pytest.raises(OSError, match="address already in use"):
        Server("127.0.0.1", server.port, ABOUT, sentences).__enter__()


def test_without_websockets_their_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "websockets.asyncio.server", None)
    spec = importlib.util.find_spec(served.__name__)
    assert spec is not None and spec.loader is not None
    with pytest.raises(ImportError, match=r"pip install 'modessm_jax\[live\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
