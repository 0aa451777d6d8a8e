"""The engine as a child process, and the jobs it does."""
