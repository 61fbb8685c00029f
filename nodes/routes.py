"""What the page asks the server for: the state of runs, the photos of a folder, a caption to write, to be told in its language.

Every name that comes in is looked up where the nodes look it up, with the same checks.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web
from server import PromptServer

from ..trainer import folder_view, photos, run_card
from ..trainer.messages import translated
from ..trainer.rundir import RunDir
from . import host, live
from .language import of_request, remember

ROOT = "/subject_trainer"
POOL = ThreadPoolExecutor(2, "subject-trainer-page")
WRONG = (ValueError, OSError, KeyError, TypeError, AttributeError, RecursionError)


async def _refused(request: web.Request, status: int, text: str, **more) -> web.Response:
    told = await _beside(lambda: translated(text, of_request(request)))
    return web.json_response({"error": told, **more}, status=status)


def _run_dir(run_id: str) -> RunDir:
    """ValueError when there is no such run."""
    run_dir = RunDir(host.runs_root() / run_id)
    if not host.is_child(host.runs_root(), run_dir.path) or not run_dir.run_json.is_file():
        raise ValueError(f"There is no run {run_id!r}.")
    return run_dir


def _photo(folder: str, name: str) -> Path:
    """ValueError when there is no such photo."""
    path = host.photo_folder(folder)
    if name not in photos.photo_names(path):
        raise ValueError(f"There is no photo {name!r} in {folder!r}.")
    return path / name


def _framing(query) -> tuple[int, str]:
    resolution, crop = int(query.get("resolution", 512)), query.get("crop", "center")
    photos.check_framing(resolution, crop)
    return resolution, crop


def _beside(work: Callable[[], object]) -> asyncio.Future:
    """The work, done beside the server's loop, two at a time: decoding photos must not keep ComfyUI's own threads."""
    return asyncio.get_running_loop().run_in_executor(POOL, work)


async def _answer(request: web.Request, work: Callable[[], object]) -> web.Response:
    """The result of the work as JSON."""
    try:
        return web.json_response(await _beside(work))
    except folder_view.ConflictError as conflict:
        return await _refused(request, 409, "The caption was changed elsewhere.", caption=str(conflict))
    except WRONG as error:
        return await _refused(request, 400, str(error))


def _photos(query, language: str) -> dict:
    """The photos of a folder, with what is suspicious about each."""
    found = folder_view.view(host.photo_folder(query.get("folder", "")), *_framing(query))
    photos = [{**photo, "notes": [translated(note, language) for note in photo["notes"]]} for photo in found["photos"]]
    return {**found, "photos": photos}


def add_routes() -> None:
    routes = PromptServer.instance.routes

    @routes.get(f"{ROOT}/live")
    async def live_runs(request: web.Request) -> web.Response:
        return web.json_response({"runs": live.all_live(of_request(request))})

    @routes.get(ROOT + "/runs/{run}")
    async def shown_run(request: web.Request) -> web.Response:
        run, language = request.match_info["run"], of_request(request)
        return await _answer(request, lambda: {**run_card.card(_run_dir(run)), "live": live.of_run(run, language)})

    @routes.post(ROOT + "/runs/{run}/finish")
    async def finish_run(request: web.Request) -> web.Response:
        if not live.finish(request.match_info["run"]):
            return await _refused(request, 409, "This run does not train now.")
        return web.json_response({})

    @routes.get(f"{ROOT}/photos")
    async def photo_list(request: web.Request) -> web.Response:
        return await _answer(request, lambda: _photos(request.query, of_request(request)))

    @routes.get(f"{ROOT}/photo")
    async def photo_thumbnail(request: web.Request) -> web.Response:
        query = request.query

        def draw() -> bytes:
            return folder_view.thumbnail(_photo(query.get("folder", ""), query.get("name", "")), *_framing(query))

        try:
            return web.Response(body=await _beside(draw), content_type="image/jpeg")
        except WRONG as error:
            return await _refused(request, 400, str(error))

    @routes.post(f"{ROOT}/caption")
    async def caption(request: web.Request) -> web.Response:
        try:
            given = await request.json()
            folder, name, text, was = (str(given[key]) for key in ("folder", "name", "text", "was"))
        except WRONG as error:
            return await _refused(request, 400, f"The request is wrong: {error}")

        def write() -> dict:
            path = _photo(folder, name)
            folder_view.write_caption(path.parent, name, text, was)
            return {}

        return await _answer(request, write)

    @routes.post(f"{ROOT}/language")
    async def page_language(request: web.Request) -> web.Response:
        remember(request.query.get("client", ""), of_request(request))
        return web.json_response({})
