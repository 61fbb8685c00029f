"""The graph that ComfyUI checks before it queues it, as the page or a client has sent it."""

from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from ...trainer.run.messages import Message, message

WIRED = "(pictures wired to images)"
"""What a graph has for a folder when it wires pictures."""
LEFT_OUT = {
    "DatasetLoader": ("folder", WIRED, "images"),
    "LoadFinetuned": ("run", "", "path"),
    "EvaluateSubject": ("prompt", "", ""),
}
"""Inputs that a client may leave out, by node: the value of the page for it, and the input in whose presence it means nothing.

ComfyUI refuses a node without the first two before it is asked, and tells what is wrong with a node beside the last one alone.
"""
SWITCHED_OFF = {2: message("muted"), 4: message("bypassed")}
"""What the page calls a node of these modes. It leaves such a node out of what it queues, and links that led through it too."""

_checked: ContextVar[dict] = ContextVar("checked", default={})  # noqa: B039 - never changed
"""What was sent to be queued: the graph that is being checked, and which page sent it."""


def on_prompt(queued: dict) -> dict:
    """Note which page queued which graph, and fill in what a client may leave out.

    ComfyUI calls this before it checks the graph, and goes on with what it returns.
    """
    prompt = queued.get("prompt")
    for node in prompt.values() if isinstance(prompt, dict) else ():
        with suppress(AttributeError, KeyError, TypeError):  # it may be anything
            name, value, needless = LEFT_OUT[node["class_type"]]
            if name not in node["inputs"] and (not needless or needless in node["inputs"]):
                node["inputs"][name] = value
    _checked.set(queued)
    return queued


def checking_client() -> str | None:
    """Return the id of the client whose graph is being checked; None for one that gave none."""
    client = _checked.get().get("client_id")
    return client if isinstance(client, str) else None


def checked_inputs_of(node_id: str) -> dict:
    """Return the inputs of a node of the graph that is being checked, by name: values, and links as lists."""
    return _node(node_id).get("inputs", {})


def other_nodes(node_id: str, kinds: tuple[str, ...]) -> list[str]:
    """Return the ids of the other nodes of these classes in the graph that is being checked."""
    graph = _checked.get().get("prompt", {})
    return [other for other, node in graph.items() if other != node_id and node.get("class_type") in kinds]


def source_inputs(inputs: dict, name: str, kind: str, through: tuple[str, ...] = ()) -> dict | None:
    """Return the inputs of the node of class `kind` that an input's link comes from, or None where it comes from another.

    `through`: the classes of nodes that pass on what they get by an input of the same name.
    """
    passed = set()
    while isinstance(link := inputs.get(name), list) and link and str(link[0]) not in passed:
        passed.add(str(link[0]))
        node = _node(str(link[0]))
        inputs = node.get("inputs", {})
        if node.get("class_type") == kind:
            return inputs
        if node.get("class_type") not in through:
            return None
    return None


def switched_off(node_id: str, name: str) -> tuple[str, Message] | None:
    """Return the title of the muted or bypassed node that an input is wired to, and which it is; None where none is known.

    The page sends its own workflow along, in which that node still is; another client may send anything there, or nothing.
    """
    try:
        graph, own = _page_graph(node_id)
        nodes, sources = {str(node["id"]): node for node in graph["nodes"]}, dict(_links(graph))
        (wired,) = (known["link"] for known in nodes[own]["inputs"] if known["name"] == name)
        origin, passed = nodes[sources[wired]], 0
        while origin["type"] == "Reroute" and passed < len(nodes):  # a node that only the page has
            origin, passed = nodes[sources[origin["inputs"][0]["link"]]], passed + 1
        return str(origin.get("title") or origin["type"]), SWITCHED_OFF[origin["mode"]]
    except (KeyError, ValueError, TypeError, AttributeError, IndexError):
        return None


def _node(node_id: str) -> dict:
    return _checked.get().get("prompt", {}).get(node_id, {})


def _page_graph(node_id: str) -> tuple[dict, str]:
    """Return the page's graph that has a node, the subgraph where it lies in one, and the node's id there."""
    graph = _checked.get()["extra_data"]["extra_pnginfo"]["workflow"]
    *outer, own = node_id.split(":")
    subgraphs = {found["id"]: found for found in graph.get("definitions", {}).get("subgraphs", ())} if outer else {}
    for instance in outer:
        (kind,) = (node["type"] for node in graph["nodes"] if str(node["id"]) == instance)
        graph = subgraphs[kind]
    return graph, own


def _links(graph: dict) -> Iterator[tuple[Any, str]]:
    """Yield the id of each link and of the node that it comes from: lists in the workflow, objects in a subgraph."""
    for link in graph["links"]:
        yield (link["id"], str(link["origin_id"])) if isinstance(link, dict) else (link[0], str(link[1]))
