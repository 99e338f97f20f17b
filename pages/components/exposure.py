"""Who may come in: on an address that other machines reach a token is demanded, and the files of
this machine can't be named."""

import functools
import hmac
import ipaddress
import os
import re
import secrets
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from streamlit import config

from itda_core.config import TrainConfig
from itda_core.errors import InputError

_FEWEST_CHARACTERS = 16
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FILE = re.compile(r"\.(txt|csv|tsv|jsonl?|parquet|gz|zst)$", re.IGNORECASE)
_HOST = re.compile(r"[\w.-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?", re.ASCII)
_PATH_NEEDS_NO_TOKEN = "/_stcore/health"
_HEADERS = {
    # Pages take scripts, pictures and answers from this server alone, and no other page frames
    # them. Streamlit's own front end needs inline scripts and blobs.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self'{sockets} data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
_ASK = """<!doctype html><meta charset="utf-8"><title>ITDA explorer</title>
<body style="font-family: sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem">
<h1>ITDA explorer</h1><p>{sentence}</p>
<form><input name="token" type="password" aria-label="Token" autocomplete="off">
<button>Open</button></form></body>"""
_ASKING = (
    "This explorer can be reached from other machines, so it asks for its token, which the "
    "terminal that runs it has printed."
)
_WRONG = "That is not the token of this explorer, which the terminal that runs it has printed."
_NOT_HERE = (
    "This explorer answers this machine alone, at 127.0.0.1 or localhost. To open it to others, "
    "start it with itda app --address, which asks them for a token."
)
_PASSED_ON = (
    "A proxy has passed this on, so that others may have sent it. Start the explorer with "
    "ITDA_TOKEN, and it asks them for that."
)
_PROXIES_SAY = ("forwarded", "via", "x-forwarded-", "x-real-", "x-client-", "x-original-",
                "x-envoy-", "cf-", "true-client-ip", "fastly-client-ip")  # fmt: skip
"""How headers begin that a proxy adds, and no browser; many add only one of them"""
_FOREIGN = "Another page has asked for this. Open the explorer by its own address."
PATHS_ARE_OFF = (
    "This explorer can be reached from other machines: files and folders of its own machine can't "
    "be named here. Upload texts, or start the explorer on 127.0.0.1."
)


def is_exposed() -> bool:
    """Whether the server listens for other machines, or ITDA_TOKEN says that others use it."""
    address = config.get_option("server.address")
    return bool(os.environ.get("ITDA_TOKEN")) or not _is_loopback(address or "")


def check_no_path(name: str | None) -> None:
    """Raises InputError where a model, corpus or folder is named by a path of this machine and
    others can come in. Whether there is anything at the path is not told."""
    if name and is_exposed() and _may_be_path(name):
        raise InputError(PATHS_ARE_OFF)


def check_no_path_in(config: TrainConfig) -> None:
    """The same of all that a training's settings name."""
    for name in (config.model.name, config.corpus.name, config.activations):
        check_no_path(name)


def _may_be_path(name: str) -> bool:
    """Whether it can be anything but a built-in name or an id of the hub."""
    is_hub_id = _HUB_ID.fullmatch(name.strip()) and name.strip()[0] not in ".~"
    return not is_hub_id or bool(_FILE.search(name.strip())) or Path(name.strip()).exists()


@functools.cache
def token() -> str:
    """Of this process: ITDA_TOKEN, or a new one. Raises InputError where that is too short."""
    said = os.environ.get("ITDA_TOKEN", "")
    if said and len(said) < _FEWEST_CHARACTERS:
        raise InputError(f"ITDA_TOKEN must have at least {_FEWEST_CHARACTERS} characters.")
    return said or secrets.token_urlsafe(32)


def say_token() -> None:
    """Where others can come in, print the address with the token."""
    if is_exposed():
        address = config.get_option("server.address") or ""
        host = "127.0.0.1" if address in ("", "0.0.0.0", "::") else address
        port = config.get_option("server.port")
        print(
            f"The explorer can be reached from other machines. It asks for this token: {token()}\n"
            f"It opens at http://{host}:{port}/?{urlencode({'token': token()})}",
            flush=True,
        )


class Guard:
    """The way in, before anything of Streamlit: an ASGI middleware for requests and sockets."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        given = _given_token(scope)
        if why := _refusal(scope, headers, given):
            await _refuse(scope, send, why)
        elif given is not None and scope["type"] == "http" and _needs_token(scope):
            await _answer(send, 303, b"", _with_cookie(scope))
        else:
            await self._app(scope, receive, _with_headers(send, headers.get("host", "")))


def _refusal(scope, headers: dict[str, str], given: str | None) -> str:
    """Why not, "" where it may come in. given: the token in the address."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if origin is not None and _place_of(origin) != host.lower():
        return _FOREIGN
    if _needs_token(scope):
        if scope["path"] == _PATH_NEEDS_NO_TOKEN:
            return ""
        kept = _cookie(headers.get("cookie", ""), _cookie_name(scope))
        if not any(_is_token(one) for one in (given or "", kept)):
            return _WRONG if given is not None else _ASKING
    # Another name than the machine's own: of a page that has its name lead here, or of a proxy.
    elif not _is_loopback(_name_of(host)):
        return _NOT_HERE
    elif any(name.startswith(_PROXIES_SAY) for name in headers):
        return _PASSED_ON
    return ""


def _needs_token(scope) -> bool:
    """The address that was asked counts as well: another server may ignore Streamlit's settings."""
    server = scope.get("server")
    return is_exposed() or bool(server and server[1] and not _is_loopback(server[0]))


def _is_token(given: str) -> bool:
    return hmac.compare_digest(given.encode(), token().encode())


def _given_token(scope) -> str | None:
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return next((value for name, value in query if name == "token"), None)


def _with_cookie(scope) -> dict[str, str]:
    """Headers that send on to the same address without the token, which a cookie keeps."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    left = urlencode([(name, value) for name, value in query if name != "token"])
    where = "/" + quote(scope["path"].lstrip("/\\")) + (f"?{left}" if left else "")
    secure = "; Secure" if scope.get("scheme") == "https" else ""
    cookie = f"{_cookie_name(scope)}={quote(token())}; Path=/; HttpOnly; SameSite=Lax{secure}"
    return {"Location": where, "Set-Cookie": cookie, "Cache-Control": "no-store"}


def _cookie_name(scope) -> str:
    """Cookies are shared between the ports of a machine."""
    return f"itda_token_{(scope.get('server') or ('', 0))[1]}"


def _cookie(header: str, wanted: str) -> str:
    """One of a Cookie header, "" where it is not there; those of other programs may be anything."""
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return next((unquote(value) for name, _, value in pairs if name == wanted), "")


def _place_of(origin: str) -> str:
    """Name and port of an Origin header, as a Host header has them; "" of one that names none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name_of(host: str) -> str:
    """Of a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


async def _refuse(scope, send, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    kind = {"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store"}
    asks = why in (_ASKING, _WRONG)
    body = _ASK.format(sentence=why) if asks else why
    await _answer(send, 403, body.encode(), kind)


async def _answer(send, status: int, body: bytes, headers: dict[str, str]) -> None:
    send = _with_headers(send)
    every = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": every})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send, host: str = ""):
    """Adds the headers of every answer, in the place of Streamlit's own of the same name. host: as
    the browser calls this server, since for some 'self' has no sockets in it."""
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""

    async def sending(message) -> None:
        if message["type"] == "http.response.start":
            told = {name: value.replace("{sockets}", sockets) for name, value in _HEADERS.items()}
            own = {name.lower().encode(): value.encode() for name, value in told.items()}
            others = [pair for pair in message.get("headers", []) if pair[0].lower() not in own]
            message = {**message, "headers": [*others, *own.items()]}
        await send(message)

    return sending
