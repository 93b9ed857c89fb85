"""The training loop, its schedule, its engines, and the folder that survives interruption."""
