"""Who may come in: the guard before the server, and the pages when others can come in."""

import asyncio
import base64
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from itda_core.config import CorpusSpec, ModelSpec, TrainConfig
from itda_core.errors import InputError
from pages.components import exposure
from pages.components.exposure import Guard, check_no_path, check_no_path_in
from tests.support.app import REPOSITORY, open_page

TOKEN = "0123456789abcdef-token"


@pytest.fixture
def exposed(monkeypatch):
    monkeypatch.setattr(exposure, "is_exposed", lambda: True)
    monkeypatch.setattr("pages.components.frame.is_exposed", lambda: True)
    monkeypatch.setattr("pages.components.train.folder.is_exposed", lambda: True)
    monkeypatch.setattr(exposure, "token", lambda: TOKEN)


def answer(path="/", query="", server=("127.0.0.1", 8501), kind="http", **headers):
    """What comes of a request: the status and headers, or "in" where it reaches the app."""
    sent = []
    headers = {"host": "127.0.0.1:8501", **headers}
    scope = {
        "type": kind, "path": path, "query_string": query.encode(), "server": server,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"inside", b"1")]})

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(app)(scope, None, send))
    if sent[0]["type"] == "websocket.close":
        return 403, {}
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return "in" if "inside" in told else sent[0]["status"], told


def test_on_this_machine_alone_nothing_is_asked_and_every_answer_forbids_foreign_frames():
    status, told = answer()
    assert status == "in"
    assert "frame-ancestors 'self'" in told["content-security-policy"]
    assert told["x-frame-options"] == "SAMEORIGIN"
    assert (
        "connect-src 'self' ws://127.0.0.1:8501 wss://127.0.0.1:8501 data:"
        in (told["content-security-policy"])
    )
    assert answer(host="localhost:8501")[0] == answer(host="[::1]:8501")[0] == "in"


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_name_that_is_made_to_lead_here_and_another_page_stay_out(kind):
    assert answer(kind=kind, host="evil.example:8501")[0] == 403
    assert answer(kind=kind, host="")[0] == 403
    assert answer(kind=kind, origin="http://evil.example")[0] == 403
    for odd in ("null", "http://[::1", "http://[x]:8501", ""):
        assert answer(kind=kind, origin=odd)[0] == 403
    assert answer(kind=kind, origin="http://127.0.0.1:8501")[0] == "in"


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "name",
    ["x-forwarded-for", "forwarded", "x-real-ip", "via", "x-forwarded-proto", "x-forwarded-prefix",
     "cf-connecting-ip", "true-client-ip", "x-original-forwarded-for"],
)  # fmt: skip
def test_what_a_proxy_passes_on_needs_a_token_though_it_comes_from_this_machine(
    kind, name, monkeypatch
):
    assert answer(kind=kind, **{name: "203.0.113.5"})[0] == 403
    monkeypatch.setenv("ITDA_TOKEN", TOKEN)
    monkeypatch.setattr(exposure, "token", lambda: TOKEN)
    cookie = f"itda_token_8501={TOKEN}"
    assert answer(kind=kind, **{name: "203.0.113.5", "cookie": cookie})[0] == "in"
    assert answer(kind=kind, **{name: "203.0.113.5"})[0] == 403


def test_a_host_can_add_nothing_to_what_pages_may_connect_to(exposed):
    for host in ("a.b ws://evil.example", "a;b", "[::1] *", "*", ""):
        policy = answer(host=host, cookie=f"itda_token_8501={TOKEN}")[1]["content-security-policy"]
        assert "connect-src 'self' data: blob:;" in policy


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_where_others_can_come_in_the_token_is_asked_of_everyone(exposed, kind):
    name = "itda_token_8501"
    assert answer(kind=kind)[0] == 403
    assert answer(kind=kind, host="192.168.0.7:8501")[0] == 403
    for wrong in ("", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "ü"):
        assert answer(kind=kind, query=f"token={wrong}")[0] == 403
    assert answer(kind=kind, cookie=f"{name}=x; itda_token_8502={TOKEN}")[0] == 403
    assert answer(kind=kind, cookie=f"a[]=b; odd; {name}={TOKEN}", host="any.name:8501")[0] == "in"
    assert answer(kind=kind, cookie=f"{name}={TOKEN}", origin="http://evil.example")[0] == 403


def test_a_token_in_the_address_becomes_a_cookie_that_scripts_cannot_read(exposed):
    status, told = answer("/latents", f"run=a%20b&token={TOKEN}")
    assert (status, told["location"]) == (303, "/latents?run=a+b")
    assert told["set-cookie"].startswith(f"itda_token_8501={TOKEN}; ")
    assert {"HttpOnly", "SameSite=Lax"} <= set(told["set-cookie"].split("; "))
    # A path of two slashes would lead to another host.
    assert answer("//evil.example", f"token={TOKEN}")[1]["location"] == "/evil.example"


def test_a_server_that_listens_elsewhere_than_streamlit_was_told_asks_too(monkeypatch):
    monkeypatch.setattr(exposure, "token", lambda: TOKEN)
    assert answer(server=("192.168.0.7", 8501), host="192.168.0.7:8501")[0] == 403
    assert answer(server=("192.168.0.7", 8501), query=f"token={TOKEN}")[0] == 303


@pytest.mark.parametrize(
    ("address", "others"),
    [
        ("127.0.0.1", False), ("localhost", False), ("::1", False), ("127.1.2.3", False),
        ("0.0.0.0", True), ("::", True), ("192.168.0.7", True), ("", True), ("my.host", True),
    ],
)  # fmt: skip
def test_every_address_but_the_machines_own_is_exposed(monkeypatch, address, others):
    monkeypatch.setattr(exposure.config, "get_option", {"server.address": address}.get)
    assert exposure.is_exposed() == others
    monkeypatch.setenv("ITDA_TOKEN", TOKEN)
    assert exposure.is_exposed()


def test_a_token_that_can_be_guessed_is_refused(monkeypatch):
    monkeypatch.setenv("ITDA_TOKEN", "secret")
    with pytest.raises(InputError, match="at least 16"):
        exposure.token.__wrapped__()


@pytest.mark.parametrize(
    "name", ["/etc", "~/x", "./model", "../x", "a/b/c", "C:\\x", "texts.csv", "pages", ".", " /etc"]
)
def test_no_path_can_be_named_where_others_can_come_in(exposed, name):
    with pytest.raises(InputError, match="Upload texts"):
        check_no_path(name)
    with pytest.raises(InputError, match="Upload texts"):
        check_no_path_in(TrainConfig(ModelSpec(name), CorpusSpec("sotu"), (0,)))
    check_no_path("EleutherAI/pythia-70m")
    check_no_path("smollm2-135m")


def test_the_pages_say_that_others_can_come_in_and_read_no_path(exposed, own_data):
    app = open_page("train", model="/etc")
    assert any("Open to other machines" in one.value for one in app.caption)
    app.segmented_control(key="source").set_value("folder").run()
    app.text_input(key="activations").set_value("/etc").run()
    assert any("can't be named here" in one.value for one in app.warning)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`streamlit run app.py --server.address 0.0.0.0`: its port, and the token that it printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = tmp_path_factory.mktemp("exposed")
    environment = {**os.environ, "ITDA_DATA": str(data), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
    command += ["--server.address", "0.0.0.0", "--server.port", str(port)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        printed = process.stdout.readline()
        for _ in range(240):
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield port, re.search(r"token: (\S+)", printed)[1]
        process.terminate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_told_to_end_ends_without_a_failure(tmp_path, number):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "ITDA_DATA": str(tmp_path), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true"]
    with subprocess.Popen(
        [*command, "--server.port", str(port)], cwd=REPOSITORY, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        for _ in range(240):
            with contextlib.suppress(OSError):
                ask(port, "/_stcore/health")
                break
            time.sleep(0.5)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert "Aborted" not in printed


def ask(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers=headers)
    with connection.getresponse() as response:
        return response.status, dict(response.getheaders()), response.read()


def test_a_server_that_others_reach_gives_nothing_without_its_token(server):
    port, token = server
    for path in ("/", "/train", "/_stcore/host-config", "/media/x", "/static/js/x.js", "/app.py"):
        status, _, content = ask(port, path)
        assert status == 403, path
        assert b"asks for its token" in content
    stream = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode(),
    }  # fmt: skip
    assert ask(port, "/_stcore/stream", **stream)[0] == 403
    status, told, _ = ask(port, f"/?token={token}")
    assert status == 303
    cookie = told["set-cookie"].partition(";")[0]
    status, told, content = ask(port, "/", Cookie=cookie)
    assert (status, b"<title>" in content) == (200, True)
    assert "frame-ancestors" in told["content-security-policy"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/_stcore/stream", headers={**stream, "Cookie": cookie})
    assert connection.getresponse().status == 101
    connection.close()
    assert json.dumps(token) not in content.decode()
