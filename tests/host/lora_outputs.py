"""What ComfyUI computes with LoRA files, by its own loader, in a process of ComfyUI's: what test_lora_files.py compares.

    python tests/host/lora_outputs.py COMFYUI CHECKPOINT INPUTS OUTPUTS FILE...

INPUTS is a safetensors file with `noisy`, `timesteps` and `states`, what the U-Net is given. OUTPUTS will hold, for each FILE,
by its stem, `<stem>/<strength>/unet`, what the U-Net predicts, and `/text`, the states of PROMPT. Prints what the loader passed
over.
"""

import json
import logging
import sys
from pathlib import Path

PROMPT = "a photo of mysks plush toy in the snow"


def main(comfyui: str, checkpoint: str, inputs: str, outputs: str, *files: str) -> None:
    sys.path.insert(0, comfyui)
    import comfy.cli_args  # its parser must not see our arguments

    comfy.cli_args.args.cpu = True
    import comfy.sd
    import comfy.utils
    import torch
    from safetensors.torch import load_file, save_file

    said: list[str] = []
    noting = logging.Handler(logging.WARNING)
    noting.emit = lambda record: said.append(record.getMessage())
    logging.getLogger().addHandler(noting)
    model, clip, *_ = comfy.sd.load_checkpoint_guess_config(checkpoint)
    given, found = load_file(inputs), {}
    for file in files:
        lora = comfy.utils.load_torch_file(file, safe_load=True)
        for strength in (0.0, 1.0):
            patched, patched_clip = comfy.sd.load_lora_for_models(model, clip, lora, strength, strength)
            patched.patch_model()
            unet, name = patched.model.diffusion_model, f"{Path(file).stem}/{strength:g}"
            with torch.inference_mode():
                found[f"{name}/unet"] = unet(given["noisy"], given["timesteps"], context=given["states"]).float().clone()
                found[f"{name}/text"] = patched_clip.encode_from_tokens(patched_clip.tokenize(PROMPT)).float().clone()
            patched.unpatch_model()
    save_file(found, outputs)
    print(json.dumps([text for text in said if "lora" in text.lower() or "ERROR" in text]))


if __name__ == "__main__":
    arguments, sys.argv[1:] = sys.argv[1:], []
    main(*arguments)
