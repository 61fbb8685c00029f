"""This pack's training beside the diffusers example script's: speed and memory, on the same machine, in one call."""
