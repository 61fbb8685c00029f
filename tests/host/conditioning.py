"""What ComfyUI's own text encoder makes of prompts, in a process of ComfyUI's: the figures that test_conditioning.py asserts.

    python tests/host/conditioning.py COMFYUI CHECKPOINT EMBEDDINGS_FOLDER EMBEDDING_FILE TOKEN OTHER_FILE OTHER_TOKEN

Prints JSON: for each pair of prompts whether the conditioning is equal, bit for bit; the vectors that ComfyUI reads; and what
is said of files with names that no prompt can hold.
"""

import importlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(comfyui: str, checkpoint: str, folder: str, file: str, token: str, other_file: str, other: str) -> None:
    sys.path.insert(0, comfyui)
    import comfy.cli_args  # its parser must not see our arguments

    comfy.cli_args.args.cpu = True
    import comfy.sd
    import comfy.sd1_clip
    import torch

    spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules["pack"] = importlib.util.module_from_spec(spec)
    token_clip = importlib.import_module("pack.nodes.comfy.token_clip")
    plain = comfy.sd.load_checkpoint_guess_config(checkpoint, embedding_directory=folder)[1]
    taught = token_clip.clip_with_token(plain, token, Path(file))
    both = token_clip.clip_with_token(taught, other, Path(other_file))
    name, other_name = (f"embedding:{Path(f).stem}" for f in (file, other_file))

    def same(one, two) -> bool:
        (left, first), (right, second) = one, two
        a, b = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for clip, text in ((left, first), (right, second)))
        (states, rest), (other_states, other_rest) = a[0], b[0]
        return torch.equal(states, other_states) and torch.equal(rest["pooled_output"], other_rest["pooled_output"])

    pairs = {
        "bare": ((taught, f"a photo of {token} by a lake"), (plain, f"a photo of {name} by a lake")),
        "weighted": ((taught, f"a photo of ({token}:1.2) by a lake"), (plain, f"a photo of ({name}:1.2) by a lake")),
        "weighted within": ((taught, f"a (photo of {token}:0.7) by a lake"), (plain, f"a (photo of {name} :0.7) by a lake")),
        "brackets": ((taught, f"a photo of (({token}))"), (plain, f"a photo of (({name}))")),
        "before a comma": ((taught, f"{token}, by a lake"), (plain, f"{name} , by a lake")),
        "in capitals": ((taught, f"a photo of {token.upper()}"), (plain, f"a photo of {name}")),
        "twice": ((taught, f"{token} and {token}"), (plain, f"{name} and {name}")),
        "named on purpose": ((taught, f"a photo of {name}"), (plain, f"a photo of {name}")),
        "without the token": ((taught, "a photo of a (toy:1.3) by a lake"), (plain, "a photo of a (toy:1.3) by a lake")),
        "part of another word": ((taught, f"a photo of {token}ish things"), (plain, f"a photo of {token}ish things")),
        "empty": ((taught, ""), (plain, "")),
        "another's name": ((taught, f"a photo of {other_name}"), (plain, f"a photo of {other_name}")),
        "two words": ((both, f"a {token} and a {other}"), (plain, f"a {name} and a {other_name}")),
        # These must differ, or the equalities above say nothing.
        "differs: plain CLIP with the bare token": ((taught, f"a photo of {token}"), (plain, f"a photo of {token}")),
        "differs: another weight": ((taught, f"a photo of ({token}:1.2)"), (taught, f"a photo of {token}")),
        "differs: another word": ((taught, f"a photo of {token}"), (taught, "a photo of toy")),
    }
    refused = {}
    shutil.copy(other_file, Path(folder) / "mysks.safetensors")  # what ComfyUI reads by the first and the last of these
    for name in ("mysks (1)", "my toy", "mysks[1]"):
        renamed = shutil.copy(file, Path(folder) / f"{name}.safetensors")
        try:
            token_clip.clip_with_token(plain, token, renamed)
        except ValueError as error:
            refused[name] = str(error)
    vectors = comfy.sd1_clip.load_embed(Path(file).stem, [folder], 768, "clip_l")
    compared = {label: same(*pair) for label, pair in pairs.items()}
    print(json.dumps({"same": compared, "vectors": vectors.tolist(), "refused": refused}))


if __name__ == "__main__":
    arguments, sys.argv[1:] = sys.argv[1:], []
    main(*arguments)
