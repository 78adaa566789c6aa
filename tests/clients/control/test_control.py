"""The local endpoint and `rtvc control`: who is answered, what is refused and why, and how soon."""

import http.client
import http.server
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rtvc.cli import main
from rtvc.clients.control.call import Line
from rtvc.clients.control.change import Change, of_words, parsed
from rtvc.clients.control.endpoint import opened
from rtvc.clients.control.runtime import Address, address_of, addresses, announced, runtime_folder
from rtvc.errors import ConfigError, DeviceError, ServiceError

pytest.importorskip("aiohttp")
WEB = Path(__file__).parents[3] / "clients" / "web"


class Desk:
    """Remembers what it was told."""

    def __init__(self):
        self.told, self.voices, self.problem = [], [], None

    def status(self):
        return {"state": "running", "voice": "anna", "pitch": -2.0, "lag_p50_ms": 57.0}

    def change(self, change):
        if self.problem is not None:
            raise self.problem
        self.told.append((threading.current_thread().name, change.asked()))

    def devices(self):
        return [{"name": "Blue mic"}]

    def voice_of(self, name, recording):
        self.voices.append((name, recording))
        return {"name": name, "grade": "good", "advice": []}

    def voice_of_microphone(self, name, seconds):
        return {"name": name, "grade": "good", "advice": [], "seconds": seconds}


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def address(desk, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with opened(desk, pid=os.getpid(), page=WEB / "desk") as found, announced(found):
        yield found


def ask(address, path, *, method="GET", body=None, **headers):
    """One request; the token is sent unless another Authorization is."""
    connection = http.client.HTTPConnection(address.url.removeprefix("http://"), timeout=10)
    sent = {"Authorization": f"Bearer {address.token}"} | headers
    connection.request(method, path, body, {k: v for k, v in sent.items() if v is not None})
    response = connection.getresponse()
    return response.status, response.read(), response.headers


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("voice anna", {"voice": "anna"}),
        ("mix a:0.7 b:0.3", {"voice": {"a": 0.7, "b": 0.3}}),
        ("mix a b:2", {"voice": {"a": 1.0, "b": 2.0}}),
        ("pitch -2", {"pitch": -2.0}),
        ("pitch up", {"pitch": "up"}),
        ("prosody 0.5", {"prosody": 0.5}),
        ("bypass on", {"bypass": True}),
        ("mute", {"mute": "toggle"}),
        ("gate off", {"gate": False}),
        ("lookahead 25", {"lookahead": 25.0}),
        ("record start", {"record": True}),
        ("record stop", {"record": False}),
        ("virtual-mic on", {"virtual_mic": True}),
        ("input default", {"input": ""}),
        ("monitor off", {"monitor": None}),
        ("output Blue", {"output": "Blue"}),
    ],
)
def test_what_is_said_on_the_command_line(words, asked):
    assert of_words(words.split()).asked() == asked
    assert parsed(json.dumps(asked)).asked() == asked


@pytest.mark.parametrize(
    "words",
    [
        "pitch",
        "pitch 99",
        "pitch a b",
        "bypass maybe",
        "mix a:-1",
        "mix",
        "volume 3",
        "model_config x",
    ],
)
def test_what_makes_no_sense_is_refused(words):
    with pytest.raises(ConfigError):
        of_words(words.split())


@pytest.mark.parametrize("body", ["", "[]", '{"pitch": 30}', '{"pich": 1}', '{"pitch": NaN}'])
def test_what_is_no_change_is_refused_and_nothing_is_done(address, desk, body):
    status, text, _ = ask(address, "/v1/control", method="POST", body=body)
    assert status == 400 and json.loads(text)["error"] and not desk.told


def test_a_change_is_carried_out_by_one_thread_and_answered_with_the_state(address, desk):
    status, text, headers = ask(
        address, "/v1/control", method="POST", body='{"pitch": -2, "bypass": true}'
    )
    assert status == 200 and json.loads(text) == desk.status()
    assert desk.told == [("rtvc-changes_0", {"pitch": -2.0, "bypass": True})]
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_what_the_conversion_refuses_is_told(address, desk):
    desk.problem = DeviceError("no input device fits 'x'")
    status, text, _ = ask(address, "/v1/control", method="POST", body='{"input": "x"}')
    assert status == 409 and json.loads(text) == {"error": "no input device fits 'x'"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": None}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic x"}, 401),
        ({"Host": "evil.example:80"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_strangers_are_sent_away(address, desk, headers, status):
    for path, method in (("/v1/status", "GET"), ("/v1/control", "POST"), ("/v1/devices", "GET")):
        found, text, _ = ask(address, path, method=method, body='{"mute": true}', **headers)
        assert found == status and address.token.encode() not in text
    assert not desk.told


def said(caplog):
    """What we and the HTTP library logged."""
    return [entry for entry in caplog.records if entry.name.startswith(("rtvc", "aiohttp"))]


HOSTILE = {
    "a token that is no text": (b"GET /v1/status", b"Authorization: Bearer \xff\xfe", b"", 401),
    "half a surrogate": (b"GET /v1/status", b"Authorization: Bearer \xed\xa0\x80", b"", 401),
    "no request": (b"\x00\xff\x17", b"", b"", 400),
    "a header without end": (b"GET /", b"X: " + 100_000 * b"a", b"", 400),
    "compressed": (
        b"POST /v1/control",
        b"Content-Encoding: gzip\r\nContent-Length: 3",
        b"abc",
        415,
    ),
    "too long, announced": (b"POST /v1/control", b"Content-Length: 99999999999", b"", 413),
    "too long, in chunks": (
        b"POST /v1/control",
        b"Transfer-Encoding: chunked",
        8 * (b"1000\r\n" + 0x1000 * b"a" + b"\r\n") + b"0\r\n\r\n",
        413,
    ),
    "a length below nothing": (b"POST /v1/control", b"Content-Length: -1", b"", 400),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_request_is_refused_and_fills_no_terminal(address, desk, case, caplog):
    line, headers, body, status = HOSTILE[case]
    host = address.url.removeprefix("http://")
    own = (
        b""
        if b"Authorization" in headers
        else f"Authorization: Bearer {address.token}\r\n".encode()
    )
    request = b"%b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n\r\n%b" % (
        line,
        host.encode(),
        own,
        headers,
        body,
    )
    with socket.create_connection(host.split(":"), timeout=10) as stranger:
        stranger.sendall(request)
        answer = stranger.recv(65_536)
    assert answer.split()[1] == str(status).encode()
    assert ask(address, "/v1/status")[0] == 200 and not desk.told
    assert not said(caplog)


def test_a_recording_that_breaks_off_is_told_to_nobody_and_makes_no_voice(address, desk, caplog):
    host = address.url.removeprefix("http://")
    head = f"POST /v1/voices/me HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {address.token}"
    with socket.create_connection(host.split(":"), timeout=10) as stranger:
        stranger.sendall(f"{head}\r\nContent-Length: 1000\r\n\r\nabc".encode())
    assert ask(address, "/v1/status")[0] == 200
    assert not desk.voices and not said(caplog)


def test_a_fault_of_ours_is_logged_and_said(address, desk, caplog):
    desk.problem = RuntimeError("injected")
    status, body, _ = ask(address, "/v1/control", method="POST", body=b'{"mute": true}')
    assert status == 500 and b"went wrong" in body and b"injected" not in body
    assert "injected" in caplog.text
    assert ask(address, "/v1/status")[0] == 200


def test_a_page_under_a_name_that_was_made_to_point_here_gets_nothing(address):
    """DNS rebinding: the attacker's host name, our port; not even the page's files."""
    port = address.url.rpartition(":")[2]
    assert ask(address, "/", Host=f"evil.example:{port}")[0] == 403
    assert ask(address, "/", Host=f"localhost:{port}")[0] == 200
    assert ask(address, "/", Origin=f"http://127.0.0.1:{port}")[0] == 200


def test_the_page_is_served_without_a_token_and_nothing_outside_of_it(address):
    status, page, headers = ask(address, "/", Authorization=None)
    assert (
        status == 200
        and b"<!doctype html>" in page
        and headers["Content-Type"].startswith("text/html")
    )
    assert ask(address, "/style.css", Authorization=None)[0] == 200
    for path in ("/../../README.md", "/%2e%2e/%2e%2e/README.md", "/desk/index.html", "/x"):
        assert ask(address, path)[0] == 404


def test_recordings_become_voices(address, desk):
    status, text, _ = ask(
        address, "/v1/voices/anna%20b", method="POST", body=b"RIFF" + bytes(2_000_000)
    )
    assert status == 200 and json.loads(text)["name"] == "anna b"
    assert desk.voices == [("anna b", b"RIFF" + bytes(2_000_000))]
    status, text, _ = ask(address, "/v1/voices/ben/microphone?seconds=4", method="POST")
    assert json.loads(text)["seconds"] == 4.0
    assert ask(address, "/v1/voices/ben/microphone?seconds=long", method="POST")[0] == 400


def test_events_come_ten_times_a_second(address, desk):
    connection = http.client.HTTPConnection(address.url.removeprefix("http://"), timeout=10)
    connection.request("GET", "/v1/events", headers={"Authorization": f"Bearer {address.token}"})
    response, began = connection.getresponse(), time.monotonic()
    rows = [json.loads(response.readline()) for _ in range(6)]
    assert rows == [desk.status()] * 6 and 0.3 < time.monotonic() - began < 3
    connection.close()


def test_the_address_is_for_its_user_alone(address):
    (path,) = runtime_folder().iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert address_of() == address == address_of(os.getpid())


def test_a_folder_that_others_can_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "rtvc").mkdir(mode=0o755)
    (tmp_path / "rtvc").chmod(0o755)
    with pytest.raises(ServiceError, match="others"):
        runtime_folder()


def test_what_a_killed_process_left_behind_is_swept_away(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    with announced(Address("http://127.0.0.1:1", "x", gone.pid)) as path:
        assert addresses() == [] and not path.exists()
    with pytest.raises(ServiceError, match="rtvc live"):
        address_of()


@pytest.mark.parametrize("content", ["", "[]", "5", '{"pid": "x"}', "[" * 10**5], ids=len)
def test_what_is_no_address_is_passed_over(tmp_path, monkeypatch, content):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    right = Address("http://127.0.0.1:1", "x", os.getpid())
    with announced(right) as path:
        (path.parent / f"{path.stem}0.json").write_text(content)
        assert addresses() == [right]


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"\xff", b"[" * 10**5], ids=len)
def test_an_answer_that_is_none_is_told(body):
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        line = Line(Address(f"http://127.0.0.1:{server.server_port}", "x", os.getpid()))
        with pytest.raises(ServiceError, match="does not answer"):
            line.status()
        line.close()
        thread.join()


def test_the_command_changes_and_tells(address, desk, capsys):
    assert main(["control", "pitch", "-2"]) == 0
    assert capsys.readouterr().out == "anna · pitch -2 · lag 57 ms\n"
    assert main(["control", "mix", "a:0.7", "b:0.3"]) == 0 and main(["control", "mute"]) == 0
    assert [asked for _, asked in desk.told] == [
        {"pitch": -2.0},
        {"voice": {"a": 0.7, "b": 0.3}},
        {"mute": "toggle"},
    ]
    capsys.readouterr()
    assert main(["control", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == desk.status()
    desk.problem = ConfigError("this model has one setting")
    assert main(["control", "lookahead", "50"]) == 2
    assert "this model has one setting" in capsys.readouterr().err


def test_the_command_says_where_nothing_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main(["control", "mute"]) == 2
    assert "expected a running `rtvc live`" in " ".join(capsys.readouterr().err.split())


def test_a_port_that_is_taken_is_told(address, desk):
    port = int(address.url.rpartition(":")[2])
    with pytest.raises(ServiceError, match="--control-port"), opened(desk, pid=1, port=port):
        pass


def test_an_answer_comes_within_20_ms(address):
    """The median of a hundred; a busy machine's worst case is `rtvc bench control`'s to tell."""
    line, times = Line(address), []
    for _ in range(100):
        began = time.perf_counter()
        line.change({"mute": "toggle"})
        times.append(time.perf_counter() - began)
    line.close()
    assert sorted(times)[50] < 0.020


def test_a_change_that_names_nothing_changes_nothing():
    assert Change().asked() == {}
    assert Change.model_validate({"monitor": None}).asked() == {"monitor": None}
    assert Change.model_validate({"pitch": None}).asked() == {}
