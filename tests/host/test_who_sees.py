"""Two pages and an API client without a client id on one server: who gets news of a run, may look at it, and may end it.

python -m pytest tests/host/test_who_sees.py -m nightly -s
"""

import json
import threading
import time
import urllib.error
import urllib.request

import pytest
import websocket

from demo.run import node
from tools.browser import open_browser, open_workflow, queue
from tools.server import HOST

from .graphs import up_to_training
from .pages import NEEDS_BROWSER, each, fill_in, read, wait
from .test_tabs import RUN, STOP, TEMPLATE, report, said, stop

pytestmark = pytest.mark.nightly


class Client:
    """A page's connection, as the pack's page opens it; what it hears is kept."""

    def __init__(self, server, name: str):
        self.name, self.news, self.prompt = name, [], ""
        self._socket = websocket.create_connection(f"ws://{HOST}:{server.port}/ws?clientId={name}", timeout=600)
        server.post(f"/subject_trainer/language?client={name}", {})
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                message = self._socket.recv()
            except (OSError, websocket.WebSocketException):
                return
            if isinstance(message, str) and message:
                event = json.loads(message)
                if event["type"] == "subject_trainer.live":
                    self.news.append(event["data"])

    def close(self) -> None:
        self._socket.close()


def until(condition, seconds: float = 300):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def may_end(server, run: str, prompt: str) -> bool:
    """Whether the name of a job is enough to end the run."""
    try:
        server.post(f"/subject_trainer/runs/{run}/finish?prompt={prompt}", {})
    except urllib.error.HTTPError as error:
        return error.code != 409
    return True


def training(server, prompt: str) -> dict | None:
    """The run that a job trains, once it can be ended."""
    runs = server.get(f"/subject_trainer/live?prompt={prompt}")["runs"]
    return next((run for run in runs if run["can_finish"]), None)


def test_a_run_is_its_own_client_s(server, quick_graph):
    pages = [Client(server, "page-one"), Client(server, "page-two")]
    jobs = {}
    for seed, client in enumerate(["page-one", "page-two", None], 40_000):  # no other test's runs
        graph = up_to_training(json.loads(json.dumps(quick_graph)))
        graph[node(graph, "DreamBoothTrain")]["inputs"] |= {"name": "whose", "seed": seed, "steps": 100_000, "train": "lora"}
        told = {"client_id": client} if client else {}
        jobs[client or "API client"] = server.post("/prompt", {"prompt": graph, **told})["prompt_id"]
    print()
    for owner, prompt in jobs.items():
        run = until(lambda prompt=prompt: training(server, prompt))["run"]
        others = {name: job for name, job in jobs.items() if name != owner}
        asked = "&".join(f"prompt={job}" for job in others.values())
        assert server.get(f"/subject_trainer/live?{asked}") == server.get("/subject_trainer/live") == {"runs": []}
        assert server.get(f"/subject_trainer/runs/{run}?{asked}")["live"] is None
        can_read = {name for name, job in jobs.items() if server.get(f"/subject_trainer/runs/{run}?prompt={job}")["live"]}
        can_end = {name for name, job in others.items() if may_end(server, run, job)}
        can_end |= {owner} if may_end(server, run, prompt) else set()
        until(lambda run=run: server.get(f"/subject_trainer/runs/{run}")["facts"]["finished"])
        heard = {page.name for page in pages if any(news["run"] == run for news in page.news)}
        print(f"{owner}: news went to {sorted(heard)}, read by {sorted(can_read)}, could be ended by {sorted(can_end)}")
        assert heard == {owner} - {"API client"}
        assert can_read == can_end == {owner}
    for page in pages:
        page.close()


@pytest.fixture
def two_browsers():
    browsers = {}
    try:
        for name in ("first browser", "second browser"):
            browsers[name] = open_browser()
        yield browsers
    finally:
        for browser in browsers.values():
            browser.quit()


@NEEDS_BROWSER
def test_a_browser_shows_and_stops_its_own_run_alone(server, quick_graph, two_browsers):
    """One template in two browsers, and the same graph from an API client; the queue trains them one after another."""
    for seed, page in enumerate(two_browsers.values(), 50_000):
        open_workflow(page, server.port, read(TEMPLATE))
        fill_in(page, steps=100_000, seed=seed, name="seen", train="lora")
        queue(page)
        wait(page, lambda seed=seed: len(pending(server)) == seed - 50_000 + 1)
    graph = up_to_training(quick_graph)
    graph[node(graph, "DreamBoothTrain")]["inputs"] |= {"name": "seen", "seed": 50_002, "steps": 100_000, "train": "lora"}
    server.post("/prompt", {"prompt": graph})
    print()
    for owner, prompt in zip([*two_browsers, "API client"], pending(server), strict=True):
        run = until(lambda prompt=prompt: training(server, prompt))["run"]
        if owner in two_browsers:
            wait(two_browsers[owner], lambda owner=owner: "Training: step" in said(two_browsers[owner]))
        sees = [name for name, page in two_browsers.items() if "Training: step" in said(page)]
        can_stop = [name for name, page in two_browsers.items() if STOP in each(page, RUN, "button")]
        print(f"{owner} trains {run}: seen in {sees}, to be stopped in {can_stop}")
        assert sees == can_stop == [owner] * (owner in two_browsers)
        if owner in two_browsers:
            page = two_browsers[owner]
            stop(page)
            wait(page, lambda page=page: "Finished by you after " in report(page))
        else:
            assert may_end(server, run, prompt)
    for page in two_browsers.values():
        assert "Finished by you after " in report(page)


def pending(server) -> list[str]:
    """The jobs that run or wait, in their order."""
    found = server.get("/queue")
    return [job[1] for job in found["queue_running"] + sorted(found["queue_pending"])]
