"""Give each input of the six nodes each kind of value, by ComfyUI's own way of calling nodes: JSON on stdout.

python tests/host/input_checks.py COMFYUI

It is {"answers": [[call, answer]], "nothing": {what comes: answer}}. A call is [function, node, input, value]. An answer is ""
when the node has run to its end, else [type of the error, its text].
Nothing is trained: the model is no SD v1.5.
"""

import asyncio
import inspect
import json
import logging
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
ANSWER = sys.stdout
VALUES = {
    "None": None,
    "[]": [],
    "['', 'a toy']": ["", "a toy"],
    "[None]": [None],
    "(None,)": (None,),
    "(1, 2)": (1, 2),
    "0": 0,
    "-1": -1,
    "1.5": 1.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "2**70": 2**70,
    "10**400": 10**400,
    "''": "",
    "'x'": "x",
    "'nan'": "nan",
    "zero byte": "\0",
    "long text": "a" * 100_000,
    "half a letter": "\ud800",
    "bytes": b"x",
    "{}": {},
    "{'a': 1}": {"a": 1},
    "set": {1},
    "True": True,
    "object": object(),
}
HIDDEN = [None, {}, {"workflow": None}, {"workflow": "a text"}, {"workflow": []}, {"workflow": {"id": {}}}, "a text", [1], 5]


def good_values(schema, dataset) -> dict:
    """Return a value for each input that a node takes."""
    model = SimpleNamespace(model=SimpleNamespace(model_config=object()), object_patches={})
    sockets = {
        "MODEL": model,
        "CLIP": SimpleNamespace(cond_stage_model=None, patcher=None),
        "VAE": SimpleNamespace(first_stage_model=None, patcher=None),
        "CLIP_VISION": SimpleNamespace(encode_image=None),
        "IMAGE": torch.zeros(0, 8, 8, 3),
        "SUBJECT_DATASET": dataset,
    }
    named = {"folder": "gone", "token": "mysks", "name": "toy", "run": "gone", "class_word": "toy", "initializer": "toy"}
    values = {}
    for known in schema.inputs:
        if known.id in named or (known.io_type in sockets and not known.optional):
            values[known.id] = named.get(known.id, sockets.get(known.io_type))
        elif getattr(known, "default", None) is not None:
            values[known.id] = known.default
    return values


async def call(function: str, node, values: dict, extra_pnginfo: object = None, as_lists: bool = False) -> object:
    """Return "" or what went wrong, as ComfyUI calls the function of a node; `as_lists`: they are what links bring."""
    import execution
    from comfy_api.latest import io

    graph = {"1": {"inputs": {"path": ["2", 0]}}} if as_lists else {}
    hidden = {io.Hidden.unique_id: "1", io.Hidden.prompt: graph, io.Hidden.extra_pnginfo: extra_pnginfo}
    lists = values if as_lists else {name: [value] for name, value in values.items()}
    try:
        made = await execution._async_map_node_over_list("p", "1", node, lists, function, v3_data={"hidden_inputs": hidden})
        await execution.resolve_map_node_over_list_results(made)
    except Exception as error:
        return [type(error).__name__, str(error)[:300]]
    return ""


async def ask_with_nothing(nodes: dict) -> dict:
    """Return what is said where a link brings nothing, by the input and by what comes."""
    import folder_paths

    told = {}
    with tempfile.TemporaryDirectory() as folder:
        folder_paths.set_input_directory(folder)
        (Path(folder) / "pair").mkdir()
        for name in "ab":
            Image.new("RGB", (64, 64), "red").save(Path(folder) / "pair" / f"{name}.png")
        given = {"folder": ["pair"], "resolution": [64], "crop": ["center"]}
        for name in ("images", "masks", "captions"):
            for nothing in ([], [None]):
                told[f"{name} {nothing}"] = await call("execute", nodes["DatasetLoader"], given | {name: nothing}, as_lists=True)
    for nothing in ([], [None], [""], [" ", ""]):
        told[f"path {nothing}"] = await call("execute", nodes["LoadFinetuned"], {"run": ["gone"], "path": nothing}, as_lists=True)
    told["unwired"] = await call("execute", nodes["LoadFinetuned"], {"run": "gone", "path": ""})
    return told


async def ask(nodes: list, dataset) -> list:
    answers = []
    for node in nodes:
        schema = node.GET_SCHEMA()
        good = good_values(schema, dataset)
        for function in ("execute", "validate_inputs", "fingerprint_inputs"):
            if function not in vars(node):
                continue
            takes = inspect.signature(getattr(node, function)).parameters
            names = [known.id for known in schema.inputs if function != "validate_inputs" or known.id in takes]
            for name in names:
                for value in VALUES:
                    given = {k: v for k, v in good.items() if k in names} | {name: VALUES[value]}
                    answers.append([[function, schema.node_id, name, value], await call(function, node, given)])
        for number, info in enumerate(HIDDEN):
            answers.append([["execute", schema.node_id, "extra_pnginfo", str(number)], await call("execute", node, good, info)])
    return answers


def main(comfyui: str) -> None:
    sys.path.insert(0, str(ROOT))
    from tests.pack import load  # before ComfyUI, which has `tests` of its own, and goes first because of `nodes`

    sys.path.insert(0, comfyui)
    import comfy.cli_args  # its parser must not see our arguments

    comfy.cli_args.args.cpu = True
    import server

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server.PromptServer(loop)
    modules = {
        "dataset_loader": "DatasetLoader",
        "caption_with_token": "CaptionWithToken",
        "dreambooth_train": "DreamBoothTrain",
        "textual_inversion_train": "TextualInversionTrain",
        "load_finetuned": "LoadFinetuned",
        "evaluate_subject": "EvaluateSubject",
    }
    nodes = [getattr(load(f"nodes.{module}"), name) for module, name in modules.items()]
    photos = load("trainer.dataset.photos")
    photo = photos.Photo(path="/a.png", sha256="ab", width=64, height=64, caption="a photo of mysks toy")
    dataset = photos.Dataset(photos=(photo,), resolution=64, token="mysks", class_word="toy", class_prompt="a photo of a toy")
    answers = loop.run_until_complete(ask(nodes, dataset))
    nothing = loop.run_until_complete(ask_with_nothing(dict(zip(modules.values(), nodes, strict=True))))
    print(json.dumps({"answers": answers, "nothing": nothing}), file=ANSWER)


if __name__ == "__main__":
    arguments, sys.argv[1:] = sys.argv[1:], []
    sys.stdout = sys.stderr
    logging.disable(logging.WARNING)
    main(*arguments)
