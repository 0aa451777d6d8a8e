"""`prosma completion`: a script that lets a shell complete commands, options and their choices."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files import write_text
from .common import add_command

SHELLS = ("bash", "zsh", "fish")

BASH = """_prosma() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    case "${{COMP_WORDS[1]}} $before" in
{choices}
        *) [ "$COMP_CWORD" -eq 1 ] && words="{commands}" || case "${{COMP_WORDS[1]}}" in
{options}
        esac ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _prosma prosma"""


def add_parser(commands) -> None:
    examples = ["source <(prosma completion bash)", "prosma completion fish -o ~/.config/fish/completions/prosma.fish"]
    summary = "print a script that lets the shell complete this command"
    completion = add_command(
        commands, "completion", run, summary, examples, "Add the first example to ~/.bashrc or, with zsh, to ~/.zshrc."
    )
    completion.add_argument("shell", choices=SHELLS, help="the shell that is to read it")
    completion.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it here, else it is printed")


def run(options: argparse.Namespace) -> int:
    from .app import make_parser

    text = script(options.shell, parsers_of(make_parser()))
    if options.output:
        write_text(options.output, f"{text}\n")
    else:
        print(text)
    return 0


def parsers_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(commands.choices)


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in parser._actions for name in action.option_strings]


def script(shell: str, parsers: dict[str, argparse.ArgumentParser]) -> str:
    """The whole script for a shell. zsh reads that of bash."""
    if shell == "fish":
        return fish_script(parsers)
    choices = [
        f'        "{command} {name}") words="{" ".join(map(str, action.choices))}" ;;'
        for command, parser in parsers.items()
        for action in parser._actions
        if action.choices
        for name in action.option_strings or [command]
    ]
    options = [
        f'            {command}) words="{" ".join(options_of(parser))}" ;;' for command, parser in parsers.items()
    ]
    text = BASH.format(commands=" ".join(parsers), choices="\n".join(choices), options="\n".join(options))
    return f"autoload -U +X bashcompinit && bashcompinit\n{text}" if shell == "zsh" else text


def fish_script(parsers: dict[str, argparse.ArgumentParser]) -> str:
    lines = [f"complete -c prosma -n __fish_use_subcommand -a '{' '.join(parsers)}'"]
    for command, parser in parsers.items():
        for action in parser._actions:
            names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in action.option_strings]
            choices = f" -x -a '{' '.join(map(str, action.choices))}'" if action.choices else ""
            if names or choices:
                lines.append(
                    f"complete -c prosma -n '__fish_seen_subcommand_from {command}' {' '.join(names)}{choices}".rstrip()
                )
    return "\n".join(lines)
