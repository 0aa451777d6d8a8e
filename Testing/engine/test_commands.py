"""The commands of `prosma` as a person meets them: help, wrong names, exit codes, completion."""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from prosma.cli import exit_codes, main
from prosma.cli.app import make_parser
from prosma.cli.completion import parsers_of
from tiny_model import make_tiny_package

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "SimpleITK", "monai", "lightning", "matplotlib", "scipy", "rich", "yaml", "PIL")
COMMANDS = sorted(parsers_of(make_parser()))


RUN_ALL = """
import contextlib, io, json, sys
from prosma.cli import main
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main(command)
        except SystemExit as end:
            code = end.code
    loaded = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    print(json.dumps([code, out.getvalue(), err.getvalue(), loaded]))
"""
WRONG_NAMES = [
    (["segment", "nosuch.nrrd", "-m", "MODEL", "-o", "out.nrrd"], "nosuch.nrrd does not exist"),
    (["segment", "nosuch", "-m", "MODEL", "-o", "out"], "nosuch does not exist"),
    (["segment", "nosuch", "-m", "nosuch", "-o", "out"], "no model 'nosuch'"),
    (["plan", "--data", "nosuch", "-o", "recipe.yaml"], "'nosuch' holds no training data"),
    (["train", "nosuch.yaml", "--data", "DATA", "-o", "run"], "no recipe nosuch.yaml"),
    (["train", "--data", "nosuch", "-o", "run"], "'nosuch' holds no training data"),
    (["evaluate", "MODEL", "--data", "nosuch"], "'nosuch' holds no training data"),
    (["evaluate", "nosuch", "--data", "nosuch"], "no model 'nosuch'"),
    (["export", "nosuch", "-o", "package"], "no run nosuch"),
    (["finetune", "MODEL", "--data", "nosuch", "-o", "package"], "'nosuch' holds no training data"),
    (["compare", "nosuch.yaml", "--data", "nosuch", "-o", "runs"], "no comparison nosuch.yaml"),
    (["results", "nosuch", "-o", "page.md"], "no folder nosuch"),
    (["dicomweb", "nosuch", "-m", "MODEL", "-o", "out"], "'nosuch' is no address"),
    (["dicomweb", "http://127.0.0.1:1/x", "-m", "nosuch", "-o", "out"], "no model 'nosuch'"),
    (["segment", "nosuch", "-m", "MODEL", "-o", "out", "--device", "tpu"], "no device 'tpu'"),
]


def run_all(commands: list[list[str]], home: Path, folder: Path) -> list[list]:
    """Exit code, stdout and stderr of commands in one new process, and which of HEAVY it has loaded until then."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "training"), "PROSMA_HOME": str(home)}
    arguments = [sys.executable, "-c", RUN_ALL, json.dumps(commands), json.dumps(HEAVY)]
    done = subprocess.run(arguments, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_help_and_the_list_of_models_load_nothing_heavy(tmp_path):
    commands = [["--help"], ["models"], ["models", "--json"], *([command, "--help"] for command in COMMANDS)]
    for command, (code, out, _err, loaded) in zip(commands, run_all(commands, tmp_path, tmp_path), strict=True):
        assert (code, loaded) == (0, []), command
        assert out


def test_wrong_names_are_told_before_anything_heavy_loads(tmp_path):
    package = make_tiny_package(tmp_path / "model")
    folder = tmp_path / "empty"
    folder.mkdir()
    commands = [[str(package.folder) if word == "MODEL" else word for word in words] for words, _ in WRONG_NAMES]
    answers = run_all(commands, tmp_path, folder)
    for (command, why), (code, out, err, loaded) in zip(WRONG_NAMES, answers, strict=True):
        assert (code, out, loaded) == (exit_codes.FAILED, "", []), command
        assert err.startswith("prosma: ")
        assert len(err.splitlines()) == 1
        assert why in err
    assert not list(folder.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example_that_it_understands_and_tells_its_defaults(command, capsys):
    parser = parsers_of(make_parser())[command]
    text = parser.format_help()
    examples = [line.strip() for line in text.partition("example")[2].splitlines() if "prosma " in line]
    assert examples
    for example in examples:
        words = shlex.split(example.replace("source <(", "").split(">")[0].rstrip(")"))
        assert words[:2] == ["prosma", command]
        make_parser().parse_args(words[1:])  # ends the test with SystemExit where the example is wrong
    for action in parser._actions:
        told = " ".join((parser.formatter_class("prosma")._get_help_string(action) or "").split())
        if action.default is not None and action.default is not False and action.default not in ([], argparse.SUPPRESS):
            assert "default" in told, action.option_strings
    capsys.readouterr()


def test_the_defaults_that_the_library_has_are_told_as_they_are():
    from prosma.learning.fit.finetuning import BATCH_SIZES, FineTuningOptions

    told = {
        name: (action.help or "").partition("(default: ")[2].rstrip(")")
        for action in parsers_of(make_parser())["finetune"]._actions
        for name in action.option_strings
    }
    for name in ("steps", "learning_rate", "keep", "seed"):
        assert float(told[f"--{name.replace('_', '-')}"]) == getattr(FineTuningOptions(), name)
    assert told["--batch-size"] == f"{BATCH_SIZES[3]}, of pictures {BATCH_SIZES[2]}"


COMPUTING = {"segment", "prompt", "dicomweb", "train", "evaluate", "export", "finetune", "compare"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_o_and_those_that_compute_have_device(command):
    options = {name for action in parsers_of(make_parser())[command]._actions for name in action.option_strings}
    assert "-o" in options
    assert ("--device" in options) == (command in COMPUTING)


def test_models_and_completion_are_written_to_files(tmp_path, capsys):
    assert main(["models", "-o", str(tmp_path / "models.json")]) == 0
    capsys.readouterr()
    assert main(["models", "--json"]) == 0
    assert json.loads((tmp_path / "models.json").read_text()) == json.loads(capsys.readouterr().out)
    assert main(["completion", "fish", "-o", str(tmp_path / "new" / "prosma.fish")]) == 0
    assert capsys.readouterr().out == ""
    assert main(["completion", "fish"]) == 0
    assert (tmp_path / "new" / "prosma.fish").read_text() == capsys.readouterr().out


def test_help_lists_all_exit_codes(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for code, meaning in exit_codes.MEANINGS.items():
        assert f"{code:<4}{meaning}" in text


def test_a_wrong_option_is_misuse(capsys):
    with pytest.raises(SystemExit) as end:
        main(["models", "--colour"])
    assert end.value.code == exit_codes.MISUSED
    assert capsys.readouterr().err.startswith("prosma: Unrecognized arguments: --colour")


def test_cuda_that_cannot_be_used_is_refused_and_auto_is_not(tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a card")
    package = make_tiny_package(tmp_path / "model")
    (tmp_path / "a.nrrd").write_bytes(b"never looked at")
    for device in ("cuda", "cuda:0"):
        command = ["segment", str(tmp_path / "a.nrrd"), "-m", str(package.folder), "-o", str(tmp_path / "out.nrrd")]
        assert main([*command, "--device", device]) == exit_codes.FAILED
        said = capsys.readouterr().err
        assert said.startswith("prosma: CUDA cannot be used: ")
        assert "--device auto" in said
        assert len(said.splitlines()) == 1


def completed(script: str, words: list[str]) -> list[str]:
    """What bash offers where `words` have been typed, the last of them in part."""
    line = " ".join(f"'{word}'" for word in words)
    ask = f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _prosma; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_bash_completes_commands_options_and_choices(capsys):
    main(["completion", "bash"])
    script = capsys.readouterr().out
    assert completed(script, ["prosma", ""]) == list(parsers_of(make_parser()))
    assert completed(script, ["prosma", "se"]) == ["segment"]
    assert completed(script, ["prosma", "segment", "--mo"]) == ["--model"]
    assert {"--model", "--output", "-o", "--device"} <= set(completed(script, ["prosma", "segment", "-"]))
    assert completed(script, ["prosma", "finetune", "--progress", ""]) == ["text", "json"]
    assert completed(script, ["prosma", "completion", "f"]) == ["fish"]
    assert completed(script, ["prosma", "segment", "sca"]) == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_with_every_option(shell, capsys):
    main(["completion", shell])
    script = capsys.readouterr().out
    for command, parser in parsers_of(make_parser()).items():
        (line,) = [line for line in script.splitlines() if f" {command}) words=" in line] or [script]
        for action in parser._actions:
            for name in action.option_strings:
                assert (name if shell == "zsh" else name.lstrip("-")) in line.replace("'", " ").replace(
                    '"', " "
                ).split()


@pytest.mark.skipif(os.name == "nt", reason="a pipe as POSIX has it")
def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "prosma.cli", "models"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "training")}
    ended = subprocess.run(command, check=False, stdout=write, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(write)
    assert (ended.stderr, ended.returncode) == ("", exit_codes.FAILED)
