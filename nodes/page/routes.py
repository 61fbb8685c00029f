"""The routes of the page: the state of runs, photos of a folder and for a new one, a caption to write, the page's language.

Every name that comes in is looked up where the nodes look it up, with the same checks.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web
from server import PromptServer

from ...trainer.dataset.caption_files import ConflictError, write_caption
from ...trainer.dataset.folder_files import photo_names
from ...trainer.dataset.photos import check_framing
from ...trainer.dataset.upload import choose_files
from ...trainer.run.events import FINISH, GO_ON, SAMPLE
from ...trainer.run.messages import Message, MessageError, UserError, message
from ...trainer.run.run_dir import RunDir
from ...trainer.run.summary import stopped
from ..comfy.folders import is_child, make_upload_folder, masks_folder, photo_folder, runs_root, uploads_into
from ..comfy.result_changes import reopen
from . import folder_view, live_runs, run_card
from .language import catalog, language_of, remember_language

Handler = Callable[[web.Request], Awaitable[web.Response]]
ROOT = "/subject_trainer"
POOL = ThreadPoolExecutor(2, "subject-trainer-page")
"""Where files are read and photos decoded, two at a time: in the server's own loop and threads it would hold up ComfyUI."""
WRITERS = ThreadPoolExecutor(1, "subject-trainer-writer")
"""Where captions are written: they must not wait behind a folder of thumbnails."""
BAD_REQUEST = (ValueError, OSError, LookupError, TypeError, AttributeError, RecursionError)
"""What wrong requests and damaged files raise."""


def add_routes() -> None:
    """Add the routes to ComfyUI's server."""
    routes = PromptServer.instance.routes
    routes.get(ROOT + "/live")(get_live_runs)
    routes.get(ROOT + "/runs/{run}")(get_run)
    routes.post(ROOT + "/runs/{run}/reopen")(from_own_pages(reopen_run))
    routes.post(ROOT + "/runs/{run}/{request:finish|undo|sample}")(from_own_pages(ask_run))
    routes.get(ROOT + "/photos")(get_photos)
    routes.get(ROOT + "/photo")(get_thumbnail)
    routes.post(ROOT + "/caption")(from_own_pages(save_caption))
    routes.post(ROOT + "/upload")(from_own_pages(plan_upload))
    routes.post(ROOT + "/language")(from_own_pages(save_language))


def from_own_pages(handler: Handler) -> Handler:
    """Let a route that changes something take JSON alone.

    A browser sends any other type for a page of another site without asking the server first. ComfyUI itself refuses requests to
    this computer whose Origin is another site.
    """

    async def handle(request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return _refuse(request, 415, message("Send the request as application/json."))
        return await handler(request)

    return handle


async def get_live_runs(request: web.Request) -> web.Response:
    """Answer with the progress of the runs that the jobs of the query, ?prompt=<prompt_id> once or more often, are training."""
    return web.json_response({"runs": live_runs.states(_prompts(request), language_of(request))})


async def get_run(request: web.Request) -> web.Response:
    """Answer with the card of a run, and its progress while one of the query's jobs trains it."""
    run, language = request.match_info["run"], language_of(request)
    live = [state for state in live_runs.states(_prompts(request), language) if state["run"] == run]

    def work() -> dict:
        run_dir = _run_dir(run)
        card = run_card.card(run_dir)
        told = None if live_runs.is_live(run) else stopped(run_dir, card["steps"])
        return {**card, "live": live[0] if live else None, "stopped": told.text(catalog(language)) if told else ""}

    return await _answer(request, work)


async def ask_run(request: web.Request) -> web.Response:
    """Ask the worker of a run for the result of the steps done so far, to train on after all, or for sample pictures now.

    The query names the job that trains it, as in `get_live_runs`: a run is nobody else's to end.
    """
    line = {"finish": FINISH, "undo": GO_ON, "sample": SAMPLE}[request.match_info["request"]]
    reason = live_runs.request(request.match_info["run"], _prompts(request), line)
    return _refuse(request, 409, reason) if reason else web.json_response({})


async def reopen_run(request: web.Request) -> web.Response:
    """Let a run that the user has ended early train on to its last step with the next queueing.

    Nothing is lost by the request alone: who queues a graph of the run gives its result up.
    """

    def work() -> dict:
        run_dir = _run_dir(request.match_info["run"])
        if not run_dir.can_go_on():
            raise UserError(
                "{run} cannot be trained on: it was not ended early, or its saved state is gone.", run=run_dir.path.name
            )
        reopen(run_dir)
        return {}

    return await _answer(request, work)


async def get_photos(request: web.Request) -> web.Response:
    """Answer with the photos of a folder, and what is suspicious about each."""

    def work() -> dict:
        folder = photo_folder(request.query.get("folder", ""))
        return folder_view.photo_list(folder, *_framing(request.query), catalog(language_of(request)))

    return await _answer(request, work)


async def get_thumbnail(request: web.Request) -> web.Response:
    """Answer with a small picture of a photo as training sees it."""

    known = request.if_none_match or ()

    def work() -> tuple[str, bytes | None]:
        path = _photo(request.query.get("folder", ""), request.query.get("name", ""))
        mask = folder_view.mask_of(path, masks_folder(request.query.get("masks", "")))
        framing, files = _framing(request.query), [file.stat() for file in sorted({path, mask}) if file.is_file()]
        parts = [*((status.st_mtime_ns, status.st_size) for status in files), *framing, mask.name]
        tag = hashlib.sha256(repr(parts).encode()).hexdigest()  # a header takes few letters
        return tag, None if tag in [one.value for one in known] else folder_view.thumbnail(path, *framing, mask)

    try:
        tag, picture = await _in_pool(work)
        headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}  # the browser keeps it, and asks whether it changed
        return web.Response(status=200 if picture else 304, body=picture, content_type="image/jpeg", headers=headers)
    except BAD_REQUEST as error:
        return _refuse(request, 400, _reason(error))


async def save_caption(request: web.Request) -> web.Response:
    """Write the caption of a photo; refuse with status 409 when it is no longer what the page knows."""
    try:
        given = await request.json()
        folder, name, text, was = (str(given[key]) for key in ("folder", "name", "text", "was"))
    except BAD_REQUEST as error:
        return _refuse(request, 400, message("The request is wrong: {reason}", reason=str(error)))

    def work() -> dict:
        path = _photo(folder, name)
        write_caption(path.parent, name, text, was)
        return {}

    return await _answer(request, work, WRITERS)


async def plan_upload(request: web.Request) -> web.Response:
    """Answer which of the files {"files": [path]} that were dropped ComfyUI's own route is to be sent, and under which names.

    They go into a new folder of ComfyUI's input, or with {"into": name} into one that is there. ComfyUI would rename each file
    by itself where its name is taken, and part photos from their captions.
    """
    try:
        given = await request.json()
        paths, into = [str(path) for path in given["files"]], given.get("into")
    except BAD_REQUEST as error:
        return _refuse(request, 400, message("The request is wrong: {reason}", reason=str(error)))

    def work() -> dict:
        there = uploads_into(str(into)) if into else ""
        upload = choose_files(paths, photo_folder(str(into)) if into else None)
        folder = there or make_upload_folder(upload.wish)
        notes = [note.text(catalog(language_of(request))) for note in upload.notes]
        places = {path: _joined(folder, place) for path, place in upload.places.items()}
        return {"places": places, "folder": _joined(str(into or folder), upload.photos_in), "notes": notes}

    return await _answer(request, work)


def _joined(folder: str, place: str) -> str:
    return f"{folder}/{place}" if place else folder


async def save_language(request: web.Request) -> web.Response:
    """Remember the language of a page."""
    remember_language(request.query.get("client", ""), language_of(request))
    return web.json_response({})


def _prompts(request: web.Request) -> list[str]:
    return request.query.getall("prompt", [])


def _run_dir(run_id: str) -> RunDir:
    """Return the directory of a run. Raises UserError when there is none."""
    run_dir = RunDir(runs_root() / run_id)
    if not is_child(runs_root(), run_dir.path) or not run_dir.run_json.is_file():
        raise UserError("There is no run {run!r}.", run=run_id)
    return run_dir


def _photo(folder: str, name: str) -> Path:
    """Return the path of a photo. Raises UserError when there is none."""
    path = photo_folder(folder)
    if name not in photo_names(path):
        raise UserError("There is no photo {name!r} in {folder!r}.", name=name, folder=folder)
    return path / name


def _framing(query) -> tuple[int, str]:
    """Return the resolution and crop that a query asks for. Raises ValueError where training could not use them."""
    resolution, crop = int(query.get("resolution", 512)), query.get("crop", "center")
    check_framing(resolution, crop)
    return resolution, crop


def _in_pool(work: Callable[[], Any], pool: ThreadPoolExecutor = POOL) -> asyncio.Future:
    return asyncio.get_running_loop().run_in_executor(pool, work)


async def _answer(request: web.Request, work: Callable[[], dict], pool: ThreadPoolExecutor = POOL) -> web.Response:
    """Answer with the result of the work as JSON, or with why it failed."""
    try:
        return web.json_response(await _in_pool(work, pool))
    except ConflictError as conflict:
        return _refuse(request, 409, conflict.message, caption=conflict.caption)
    except BAD_REQUEST as error:
        return _refuse(request, 400, _reason(error))


def _refuse(request: web.Request, status: int, reason: Message | str, **more) -> web.Response:
    """Answer with a reason, a message in the request's language."""
    text = reason.text(catalog(language_of(request))) if isinstance(reason, Message) else reason
    return web.json_response({"error": text, **more}, status=status)


def _reason(error: Exception) -> Message | str:
    return error.message if isinstance(error, MessageError) else str(error)
