"""The open pages and their languages: who is told what in which. A page names its own; all others hear English, API clients too.

What a node shows is cached by ComfyUI and shown to others later: it goes out in every language (`in_all`), and the page chooses.
"""

import functools
from collections.abc import Callable
from contextvars import ContextVar

from aiohttp import web
from server import PromptServer

from ..trainer.messages import ENGLISH, languages, translated

_pages: dict[str, tuple[object, str]] = {}
"""Socket and language, by the id of the client. A page that is loaded again keeps its id and has another socket."""
_checked: ContextVar[str] = ContextVar("language", default=ENGLISH)
"""That of the graph which is checked before it is queued."""


def of_request(request: web.Request) -> str:
    """By its header Accept-Language."""
    wanted = request.headers.get("Accept-Language", "")[:2]
    return wanted if wanted in languages() else ENGLISH


def pages() -> dict[str, str]:
    """Languages of the open pages that have told theirs, by the ids of their clients."""
    sockets = PromptServer.instance.sockets
    return {client: language for client, (socket, language) in list(_pages.items()) if sockets.get(client) is socket}


def remember(client: str, language: str) -> None:
    """Of an open page: those that are closed are forgotten."""
    sockets = PromptServer.instance.sockets
    for gone in _pages.keys() - pages().keys():
        del _pages[gone]
    if client in sockets:
        _pages[client] = sockets[client], language


def on_prompt(queued: dict) -> dict:
    """Called by ComfyUI with each graph, before it is checked and queued; gives it back as it is."""
    _checked.set(pages().get(str(queued.get("client_id")), ENGLISH))
    return queued


def in_checked(text: str) -> str:
    """In the language of the page whose graph is checked now."""
    return translated(text, _checked.get())


def in_running(text: str) -> str:
    """In the language of the page whose graph runs now."""
    return translated(text, pages().get(str(PromptServer.instance.client_id), ENGLISH))


def in_all(text: str) -> dict[str, str]:
    """In every language but English, by its code."""
    return {language: translated(text, language) for language in languages() - {ENGLISH}}


def errors_told(execute: Callable) -> Callable:
    """An `execute` whose errors are told in the language of the page whose graph runs."""

    @functools.wraps(execute)
    def run(*args, **inputs):
        try:
            return execute(*args, **inputs)
        except (ValueError, RuntimeError, OSError) as error:
            # The kind stays: ComfyUI goes by it, when the memory ran out for example.
            if type(error) in (ValueError, RuntimeError):
                error.args = (in_running(str(error)),)
            elif isinstance(error, OSError) and error.strerror:
                error.strerror = in_running(error.strerror)
            raise

    return run
