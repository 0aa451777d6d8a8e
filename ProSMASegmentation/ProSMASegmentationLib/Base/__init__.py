"""What every room uses.

| file | what it holds |
| --- | --- |
| `ProSMAError` | what went wrong, why, and what to do |
| `Places` | where the extension's parts lie |
| `EventLoopTask` | long work in the event loop, piece by piece or in a thread |
| `Job` | work that goes on: its state, its progress, who is told; what can be cancelled is one |
| `ChildProcess` | a program in a process of its own |
| `JsonLines` | lines of JSON from a process |
| `Shared` | what panel, effect and scripts have in common |
| `OwnedFolder` | temporary folders that tell whose they are |
"""
