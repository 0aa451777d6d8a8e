"""The engine as a child process: requests and events as JSON lines, arrays as mapped files. docs/door.md describes it.

| file | what it holds |
| --- | --- |
| `worker` | the process: one thread reads requests (also cancel), the other does them |
| `requests` | what can be asked, a dataclass each, from which checks and errors come |
| `events` | what is told, a dataclass each |
| `job_files` | a job, and its arrays in a private folder |
| `prompt_files` | the arrays of a request to answer strokes, and the image that stays ready |
"""
