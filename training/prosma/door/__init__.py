"""The engine as a child process: requests and events as JSON lines, arrays as mapped files."""
