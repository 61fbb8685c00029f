"""What developers run, and what the demo and the tests share: setting up, the stand-in base, a real ComfyUI server, the page."""
