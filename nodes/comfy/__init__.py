"""The bridge to ComfyUI: its folders, models, device, embeddings and progress bars."""
