"""The demo: its run, its photos, and the drawn world that they are of."""
