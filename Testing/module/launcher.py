"""PythonSlicer as it is in Slicer: a launcher that runs Python as its child, and hides how that ended.

It sets the variables of its settings file again, whatever it inherited. When its child crashed or was killed it says so
in words and ends normally, with code 1. See ctkAppLauncher.cpp of commontk/AppLauncher.
"""

import sys
import textwrap
from pathlib import Path

SCRIPT = """\
    #!{python} -I
    import os, subprocess, sys

    environment = dict(os.environ)
    environment["ITK_AUTOLOAD_PATH"] = {plugins!r}
    for name in {without!r}:
        environment.pop(name, None)
    environment["PYTHONPATH"] = os.pathsep.join([*{paths!r}, *filter(None, [environment.get("PYTHONPATH")])])
    done = subprocess.run([{python!r}, *{before!r}, *sys.argv[1:]], env=environment)
    if done.returncode < 0:
        sys.stderr.write("error: [{python}] exit abnormally - Report the problem.\\n")
        sys.exit(1)
    sys.exit(done.returncode)
"""


def write_launcher(folder: Path, paths=(), plugins="/no/such/folder", before=(), without=()) -> Path:
    """Write an executable PythonSlicer into a new folder, which is returned, to be put first on PATH.

    :param paths: folders that it puts first on PYTHONPATH. :param plugins: its ITK_AUTOLOAD_PATH.
    :param before: arguments for Python before those that it is given. :param without: variables that it takes away.
    """
    folder.mkdir(parents=True)
    script = folder / "PythonSlicer"
    facts = {"python": sys.executable, "paths": [str(path) for path in paths], "plugins": str(plugins)}
    script.write_text(textwrap.dedent(SCRIPT).format(**facts, before=list(before), without=list(without)))
    script.chmod(0o755)
    return folder
