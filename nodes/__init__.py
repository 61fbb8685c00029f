"""The host's side: ComfyUI's nodes, and what serves its page. Of `trainer` it imports only `run` and `dataset`."""
