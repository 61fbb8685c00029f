"""A real ComfyUI server in a subprocess, with this pack as its only custom node, and a small client for its API."""

import contextlib
import io
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import websocket
from PIL import Image

from .setup import ROOT, comfyui_path

HOST = "127.0.0.1"
START_SECONDS = 180
TEXT_EVENT = 3  # ComfyUI's BinaryEventTypes.TEXT


class ServerError(Exception):
    """The server did not come up, or went away."""


class Refused(Exception):
    """The server refused a graph before running it; `errors` is its answer, {node id: {"errors": [...]}}."""

    def __init__(self, answer: dict):
        self.errors = answer["node_errors"]
        details = [e["details"] for node in self.errors.values() for e in node["errors"]]
        super().__init__("; ".join(details) or answer["error"]["message"])  # no details: the graph itself is wrong


class Failed(Exception):
    """A node failed; the text is what the user sees."""


@dataclass(frozen=True)
class Result:
    outputs: dict
    """Node id -> what the node shows."""
    seconds: dict[str, float]
    """Node id -> seconds that the node took; cached nodes are missing."""


def free_port() -> int:
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def port_in_use(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex((HOST, port)) == 0


class Server:
    """Context manager: start on enter, stop on exit.

    `folders` adds model or dataset folders, {kind: folder}. `pack` is the folder of the pack that the server loads. `options` are
    more of ComfyUI's own.
    """

    def __init__(
        self,
        base: Path,
        *,
        port: int,
        cpu: bool,
        folders: dict[str, Path] | None = None,
        pack: Path = ROOT,
        options: Sequence[str] = (),
    ):
        base = base.resolve()  # ComfyUI runs in its own folder
        self.base, self.port, self.log = base, port, base / "server.log"
        for folder in ("user", "custom_nodes", "input", "models/checkpoints", "models/embeddings"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        paths = base / "extra_model_paths.yaml"  # JSON is YAML
        paths.write_text(
            json.dumps({"extra": {"custom_nodes": str(pack.parent), **{k: str(v) for k, v in (folders or {}).items()}}})
        )
        self._command = [
            *(sys.executable, str(comfyui_path() / "main.py")),
            *("--listen", HOST, "--port", str(port), "--base-directory", str(base), "--extra-model-paths-config", str(paths)),
            *("--temp-directory", str(base / f"temp-{port}")),  # ComfyUI empties it: not that of another on the same folders
            *("--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}"),
            *("--disable-all-custom-nodes", "--whitelist-custom-nodes", pack.name, "--disable-api-nodes"),
            *(["--cpu"] if cpu else []),
            *options,
        ]
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Server":
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=comfyui_path())
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError):
                self.get("/system_stats")
                return self
            time.sleep(0.2)
        self.__exit__()
        raise ServerError(f"ComfyUI did not start; its words are in {self.log}.")

    def __exit__(self, *_) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self, path: str, data: dict | None = None) -> bytes:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(f"http://{HOST}:{self.port}{path}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def get(self, path: str):
        return json.loads(self.open(path))

    def options(self, node_type: str, widget: str) -> list[str]:
        """What the combo box of a node of this pack offers now."""
        return self.get(f"/object_info/{node_type}")[node_type]["input"]["required"][widget][1]["options"]

    def post(self, path: str, data: dict):
        return json.loads(self.open(path, data) or b"null")

    def set_setting(self, name: str, value) -> None:
        """One of ComfyUI's settings, for pages that are opened from now on."""
        self.open(f"/settings/{name}", value)

    def image(self, shown: dict) -> Image.Image:
        """A picture that a node shows: {"filename", "subfolder", "type"}."""
        return Image.open(io.BytesIO(self.open("/view?" + urllib.parse.urlencode(shown))))

    def run(self, graph: dict, on_text: Callable[[str, str], None] = lambda node, text: None) -> Result:
        """Queue an API-format graph and wait for its end. `on_text` gets (node id, progress text) while it runs.

        Raises Refused, Failed and ServerError.
        """
        try:
            return self._run(graph, on_text)
        except (websocket.WebSocketException, OSError) as error:
            raise ServerError(f"ComfyUI went away ({error}); its words are in {self.log}.") from error

    def _run(self, graph: dict, on_text: Callable[[str, str], None]) -> Result:
        client = uuid.uuid4().hex
        channel = websocket.create_connection(f"ws://{HOST}:{self.port}/ws?clientId={client}", timeout=600)
        try:
            try:
                answer = self.post("/prompt", {"prompt": graph, "client_id": client})
            except urllib.error.HTTPError as error:
                raise Refused(json.loads(error.read())) from None
            prompt_id = answer["prompt_id"]
            if answer["node_errors"]:  # ComfyUI queued the branches that have no error; half a graph is no result
                self.post("/queue", {"delete": [prompt_id]})
                self.post("/interrupt", {"prompt_id": prompt_id})
                raise Refused(answer)
            began: dict[str, float] = {}
            seconds: dict[str, float] = {}
            running = None
            while True:
                message = channel.recv()
                if isinstance(message, bytes):
                    if struct.unpack(">I", message[:4])[0] == TEXT_EVENT:
                        length = struct.unpack(">I", message[4:8])[0]
                        on_text(message[8 : 8 + length].decode(), message[8 + length :].decode())
                    continue
                event = json.loads(message)
                data = event["data"]
                if data.get("prompt_id") != prompt_id:
                    continue
                if event["type"] in ("executing", "execution_error", "execution_interrupted") and running:
                    seconds[running] = time.monotonic() - began[running]
                if event["type"] == "execution_error":
                    raise Failed(data["exception_message"].strip())
                if event["type"] == "execution_interrupted":
                    raise Failed("interrupted")
                if event["type"] == "executing":
                    running = data["node"]
                    if running is None:
                        return Result(self.get(f"/history/{prompt_id}")[prompt_id]["outputs"], seconds)
                    began[running] = time.monotonic()
        finally:
            channel.close()


def wants_cpu() -> bool:
    """Whether torch finds no accelerator here, so that ComfyUI must be told."""
    import torch

    return os.environ.get("CI") == "true" or not torch.accelerator.is_available()
