"""A real HTTP server on 127.0.0.1 that serves files and misbehaves as it is told."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Misbehaviour = Callable[["Handler", bytes, int], bool]
"""(handler, content, place to begin) -> whether it has answered; called for the first so many requests of a path."""


class Server:
    """What is served, how requests are answered, and what was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.misbehaviours: dict[str, list[Misbehaviour]] = {}
        """By path: what happens to its first requests; after them all is well."""
        self.requests: list[tuple[str, str]] = []
        """Path and Range header."""
        self.url = ""
        self.lock = threading.Lock()

    def asked(self) -> Counter[str]:
        return Counter(path for path, _ in self.requests)

    def ranges(self, path: str) -> list[str]:
        return [byte_range for asked, byte_range in self.requests if asked == path]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    state: Server

    def do_GET(self) -> None:
        path, byte_range = self.path, self.headers.get("Range", "")
        with self.state.lock:
            self.state.requests.append((path, byte_range))
            waiting = self.state.misbehaviours.get(path, [])
            misbehaviour = waiting.pop(0) if waiting else None
        content = self.state.files.get(path)
        if content is None:
            return status(404)(self, b"", 0) and None
        begin = int(byte_range.removeprefix("bytes=").removesuffix("-")) if byte_range else 0
        if misbehaviour is None or not misbehaviour(self, content, begin):
            self.answer(content, begin)

    def answer(
        self, content: bytes, begin: int, *, announced: int | None = None, said_begin: int | None = None
    ) -> None:
        """Send ``content[begin:]`` as a well-behaved server does, or with other numbers in the headers."""
        if begin and begin >= len(content):
            status(416)(self, b"", 0)
            return
        self.send_response(206 if begin else 200)
        if begin:
            said = begin if said_begin is None else said_begin
            self.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin if announced is None else announced))
        self.end_headers()
        self.wfile.write(content[begin:])

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


def drop_after(num_bytes: int) -> Misbehaviour:
    """Close the connection in the middle of the body."""

    def misbehave(handler: Handler, content: bytes, begin: int) -> bool:
        handler.answer(content[: begin + num_bytes], begin, announced=len(content) - begin)
        handler.close_connection = True
        return True

    return misbehave


def status(code: int, **headers: str) -> Misbehaviour:
    def misbehave(handler: Handler, content: bytes, begin: int) -> bool:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return misbehave


def corrupted(handler: Handler, content: bytes, begin: int) -> bool:
    """Flip a bit of the last byte."""
    handler.answer(content[:-1] + bytes([content[-1] ^ 1]), begin)
    return True


def without_ranges(handler: Handler, content: bytes, begin: int) -> bool:
    handler.answer(content, 0)
    return True


def another_range(handler: Handler, content: bytes, begin: int) -> bool:
    handler.answer(content, begin, said_begin=begin + 1)
    return True


def unannounced(extra: bytes = b"", missing: int = 0) -> Misbehaviour:
    """No Content-Length, the connection's end is the body's: too much or too little goes unnoticed by HTTP."""

    def misbehave(handler: Handler, content: bytes, begin: int) -> bool:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(content[: len(content) - missing] + extra)
        handler.close_connection = True
        return True

    return misbehave


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up when they have enough: that is what is tested, no error of the server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def serving() -> Iterator[Server]:
    """A server in a thread, stopped at the end."""
    state = Server()
    handler = type("Bound", (Handler,), {"state": state})
    with _QuietServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
