"""Which page speaks which language, and the translations into it.

A page names its language; whoever names none, an API client for example, reads English. ComfyUI caches what a node shows and
sends it to others later, so that it goes out in every language (`in_all_languages`) and the page chooses.
"""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web
from server import PromptServer

from ...trainer.run.files import DISK_FULL
from ...trainer.run.messages import Catalog, Message, MessageError
from ..comfy.progress import running_client
from .checked_graph import checking_client

ENGLISH = "en"
LOCALES = Path(__file__).parents[2] / "locales"

_pages: dict[str, tuple[object, str]] = {}
"""Socket and language by the id of the client. A page that is loaded again keeps its id and has another socket."""


@functools.cache
def languages() -> frozenset[str]:
    """Return the codes of the languages that messages are translated into, English among them."""
    return frozenset({ENGLISH, *(path.parent.name for path in LOCALES.glob("*/messages.json"))})


@functools.cache
def catalog(language: str) -> Catalog:
    """Return the translations {English template: translated template} into one of `languages()`."""
    return {} if language == ENGLISH else json.loads((LOCALES / language / "messages.json").read_text(encoding="utf-8"))


def joined(lines: Sequence[Message | str], language: str = ENGLISH) -> str:
    """Return the messages in the language, a line each; lines that are text, such as a file name, are left as they are."""
    return "\n".join(line.text(catalog(language)) if isinstance(line, Message) else line for line in lines)


def in_all_languages(lines: Sequence[Message | str]) -> dict[str, str]:
    """Return the lines joined in every language, by its code."""
    return {language: joined(lines, language) for language in languages()}


def language_of(request: web.Request) -> str:
    """Return the request's language from Accept-Language, or English."""
    wanted = request.headers.get("Accept-Language", "")[:2]
    return wanted if wanted in languages() else ENGLISH


def page_languages() -> dict[str, str]:
    """Return the languages of the open pages that have named theirs, by the ids of their clients."""
    sockets = PromptServer.instance.sockets
    return {client: language for client, (socket, language) in list(_pages.items()) if sockets.get(client) is socket}


def language_of_client(client: str | None) -> str | None:
    """Return the language of a client that is an open page; None for any other, and for one without an id."""
    return None if client is None else page_languages().get(client)


def remember_language(client: str, language: str) -> None:
    """Remember the language of an open page, and forget those of pages that were closed."""
    sockets = PromptServer.instance.sockets
    for closed in _pages.keys() - page_languages().keys():
        del _pages[closed]
    if client in sockets:
        _pages[client] = sockets[client], language


def text_for_checked_page(message: Message) -> str:
    """Return the message in the language of the page whose graph is being checked."""
    language = language_of_client(checking_client()) or ENGLISH
    return message.text(catalog(language))


def text_for_running_page(*lines: Message) -> str:
    """Return the messages, a line each, in the language of the page whose graph is running."""
    return joined(lines, language_of_client(running_client()) or ENGLISH)


def translated_errors(execute: Callable) -> Callable:
    """Decorate a node's `execute` so that its errors are in the language of the page whose graph is running.

    A MessageError is raised on as ValueError or RuntimeError, whichever it is. All others keep their type, by which ComfyUI knows
    for example that the memory ran out.
    """

    @functools.wraps(execute)
    def execute_translated(*args, **inputs):
        try:
            return execute(*args, **inputs)
        except MessageError as error:
            kind = ValueError if isinstance(error, ValueError) else RuntimeError
            raise kind(text_for_running_page(error.message)) from error
        except OSError as error:
            if error.strerror == str(DISK_FULL):
                error.strerror = text_for_running_page(DISK_FULL)
            raise

    return execute_translated
