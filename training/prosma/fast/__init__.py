"""The same network made fast for inference on a CPU; network.py maps the room."""
