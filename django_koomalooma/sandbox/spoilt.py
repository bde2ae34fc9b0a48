"""How each fault of the catalogue spoils an answer, from a clean close to JSON of endless depth.

What each function does is said by its sentence in the catalogue (faults.py), and only there.
A function returns when the connection may serve the next request; it raises HungUp to end it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .wire import HungUp, Reply, Request, Wire, status_line

Options = Mapping[str, Any]
PAGE = b"<!doctype html><title>koomalooma</title><h1>We will be right back</h1><form>Log in</form>"


def _send(wire: Wire, reply: Reply) -> None:
    wire.send(reply.head() + reply.body)


def _halves(reply: Reply) -> tuple[bytes, bytes]:
    """Return the head and the first half of the body; the head promises the whole."""
    return reply.head(), reply.body[: len(reply.body) // 2]


def answer(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    _send(wire, reply)


def close(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    wire.finish()
    raise HungUp


def reset(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    wire.reset()
    raise HungUp


def silence(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    wire.hold(options["seconds"])
    raise HungUp


def late(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    wire.wait(options["seconds"])
    _send(wire, reply)


def garbage(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    wire.send(b"\x16\x03\x00 no status line\r\n\r\n")
    raise HungUp


def short_body(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    wire.send(b"".join(_halves(reply)))
    raise HungUp


def stalled_body(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    wire.send(b"".join(_halves(reply)))
    wire.hold(options["seconds"])
    raise HungUp


def reset_body(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    wire.send(b"".join(_halves(reply)))
    wire.wait(0.05)  # let the client see the status line: a reset may throw away what it has not read
    wire.reset()
    raise HungUp


def bad_gzip(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    headers = (*reply.headers, ("Content-Encoding", "gzip"))
    _send(wire, replace(reply, body=b"\x1f\x8b\x08\x00" + reply.body, headers=headers))


def truncated_json(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    _send(wire, replace(reply, body=_halves(reply)[1]))


def empty_body(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    _send(wire, Reply(201))


def html_body(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    _send(wire, Reply(201, PAGE, "text/html; charset=utf-8"))


def huge_body(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    _send(wire, Reply.of(201, {"padding": "x" * int(options["bytes"]), **json.loads(reply.body)}))


def deep_json(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    depth = int(options["depth"])
    _send(wire, replace(reply, body=reply.body[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}"))


def nul_in_body(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    fields = json.loads(reply.body)
    _send(wire, Reply.of(201, {k: f"{v}\0" if isinstance(v, str) else v for k, v in fields.items()}))


def odd_types(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    odd: dict[str, object] = {}
    for name, value in json.loads(reply.body).items():
        match value:
            case bool():
                odd[name] = "no"
            case int():
                odd[name] = str(value)
            case dict():
                odd[name] = None
            case _:
                odd[name] = [value]
    _send(wire, Reply.of(201, odd))


def drip_status(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    line = status_line(reply.status).encode()
    wire.drip(line, options["every"])
    wire.send(reply.head()[len(line) :] + reply.body)


def drip_headers(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    line = status_line(reply.status).encode() + b"\r\n"
    wire.send(line)
    wire.drip(reply.head()[len(line) :], options["every"])
    wire.send(reply.body)


def drip_body(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    wire.send(reply.head())
    wire.drip(reply.body, options["every"])


def status(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    body = options["body"]
    headers = {str(name): str(value) for name, value in options["headers"].items()}
    if options["retry_after"] is not None:
        headers["Retry-After"] = str(options["retry_after"])
    content_type = headers.pop("Content-Type", reply.content_type)
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    _send(wire, Reply(int(options["status"]), data, content_type, tuple(headers.items())))


def ok_200(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    _send(wire, replace(reply, status=200))


def ok_200_html(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    _send(wire, Reply(200, PAGE, "text/html; charset=utf-8"))


def redirect(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    location = options["location"] or request.path
    _send(wire, Reply(int(options["status"]), headers=(("Location", str(location)),)))


def own_user_id(wire: Wire, request: Request, reply: Reply, options: Options) -> None:
    _send(wire, Reply.of(201, {**json.loads(reply.body), options["field"]: options["user_id"]}))
