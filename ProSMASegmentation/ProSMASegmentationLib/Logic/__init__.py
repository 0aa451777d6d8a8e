"""The scripting interface and the parameter node."""
