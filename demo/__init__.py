"""The demo, and what the tests share with it: setting up, the stand-in base, a real ComfyUI server."""
