"""The command line `rltoolkit`. What takes seconds to import is imported inside the commands that need it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rltoolkit.own_packages import hidden_packages
from rltoolkit.version import __version__

__all__ = ["main"]

EXIT_MISTAKE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 only when it is done, 2 for a mistake of the user, 130 when interrupted."""
    _prepare_environment()
    hidden = hidden_packages()
    if hidden is not None:
        sys.stderr.write(f"rltoolkit: {hidden}\n")
        return EXIT_MISTAKE
    from reward_models.errors import RLToolkitError  # ours, as is known now

    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except RLToolkitError as error:
        sys.stderr.write(f"rltoolkit {options.command}: {error}\n")
        return EXIT_MISTAKE
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  # so that the flush at exit has a place to go
        return 0
    except KeyboardInterrupt:
        sys.stderr.write(f"rltoolkit {options.command}: interrupted\n")
        return 130
    return code


def _prepare_environment() -> None:
    """What must stand before torch is imported: waiting OpenMP threads that spin cost 30x on shared cores."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class _Parser(argparse.ArgumentParser):
    """Mistakes in the arguments name the command's help."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_MISTAKE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rltoolkit",
        description="Post-training of language models from one recipe.",
        epilog="example: rltoolkit train recipes/rlsp/quickstart.yaml",
    )
    parser.add_argument("--version", action="version", version=f"rltoolkit {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_train(commands)
    _add_check(commands)
    _add_verify(commands)
    _add_eval(commands)
    _add_serve(commands)
    return parser


def _command(
    commands: argparse._SubParsersAction[Any],
    name: str,
    text: str,
    example: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=f"example: {example}"
    )
    parser.set_defaults(run=run)
    return parser


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="change a value of the recipe")


def _add_train(commands: argparse._SubParsersAction[Any]) -> None:
    text = "Train from a recipe, through accelerate with its launch section; continues a run that was interrupted."
    example = "rltoolkit train recipes/rlsp/quickstart.yaml train.max_steps=2"
    _add_recipe(_command(commands, "train", text, example, _train))


def _add_check(commands: argparse._SubParsersAction[Any]) -> None:
    text = "Check a recipe without loading a weight: mistakes, batches, memory, data, the verifier on gold answers."
    _add_recipe(_command(commands, "check", text, "rltoolkit check recipes/rlsp/quickstart.yaml", _check))


def _add_verify(commands: argparse._SubParsersAction[Any]) -> None:
    text = "Judge the responses of a JSONL file, and say where the verdicts differ from the labels."
    example = "rltoolkit verify answers.jsonl --verifier math --response completion --reference gold --label label"
    parser = _command(commands, "verify", text, example, _verify)
    parser.add_argument("file", type=Path, metavar="FILE.jsonl", help="one JSON object a line")
    names = "math, countdown, integer, exact, regex, choice, numeric, json_schema, all_of, any_of"
    parser.add_argument("--verifier", default="math", help=f"{names} or package.module:Class (default: math)")
    parser.add_argument("--response", default="response", metavar="COLUMN", help="column with the response")
    parser.add_argument("--reference", default="reference", metavar="COLUMN", help="column with the gold answer")
    parser.add_argument("--label", metavar="COLUMN", help="column with the right verdict, to count agreement")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", help="an option of the verifier, may be repeated"
    )
    parser.add_argument("--workers", type=_positive, default=2, help="worker processes (default: 2)")
    parser.add_argument("--timeout", type=_seconds, default=5.0, metavar="SECONDS", help="per answer (default: 5)")
    parser.add_argument("--show", type=_count, default=5, metavar="ROWS", help="rows of each kind to show (default: 5)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write counts and all such rows to this file")


def _add_eval(commands: argparse._SubParsersAction[Any]) -> None:
    text = "Ask a model the questions of benchmarks and report accuracy with its interval."
    example = "rltoolkit eval --model runs/quickstart/model --task countdown --limit 200"
    parser = _command(commands, "eval", text, example, _eval)
    parser.add_argument(
        "--model",
        required=True,
        metavar="PATH",
        help="model folder or hub name (vLLM: one in the cache or within reach)",
    )
    parser.add_argument("--task", action="append", required=True, metavar="NAME", help="may be given several times")
    parser.add_argument("--n", type=_positive, default=1, help="answers per question (default: 1, greedy)")
    parser.add_argument("--limit", type=_positive, metavar="QUESTIONS", help="use only so many questions")
    parser.add_argument("--temperature", type=float, help="default: 0 for one answer, 1 for more")
    parser.add_argument("--max-new-tokens", type=_positive, help="default: the task's")
    parser.add_argument("--format", choices=("chat", "text"), help="default: the task's")
    parser.add_argument(
        "--backend",
        choices=("transformers", "vllm", "vllm-server"),
        default="transformers",
        help="what samples: transformers (default), vLLM in this process, or vLLM servers (with --url)",
    )
    parser.add_argument(
        "--url",
        action="append",
        default=[],
        metavar="URL",
        help="a server of `rltoolkit serve` for vllm-server, may be repeated; it must see the model's folder",
    )
    parser.add_argument(
        "--wait", type=_seconds, metavar="SECONDS", help="for vllm-server: how long no server may answer (default: 10)"
    )
    parser.add_argument("--dtype", default="auto", help="for transformers and vllm (default: as saved)")
    parser.add_argument("--device", help="for transformers (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write results.json and all samples there")


def _add_serve(commands: argparse._SubParsersAction[Any]) -> None:
    text = (
        "Start vLLM servers for a recipe's rollouts, one per GPU or one on the CPU, and watch them until Ctrl-C. They "
        "bind loopback unless rollout.servers.host says otherwise: their control endpoints (weights, rpc) have no "
        "authentication, so every user of this machine can replace the model and run code as you. Serve on machines "
        "whose users you trust, and let only a private network reach them."
    )
    example = "rltoolkit serve recipes/rlsp/quickstart.yaml rollout.servers.port=8100"
    _add_recipe(_command(commands, "serve", text, example, _serve))


def _positive(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}; give a whole number of at least 1")
    return number


def _count(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"is {text!r}; give seconds > 0")
    return number


def _train(options: argparse.Namespace) -> int:
    from rltoolkit.commands.launch import launch
    from rltoolkit.recipe import load_recipe

    return launch(load_recipe(options.recipe, options.overrides), options.overrides)


def _check(options: argparse.Namespace) -> int:
    from rltoolkit.recipe import load_recipe

    loaded = load_recipe(options.recipe, options.overrides)
    from rltoolkit.check.run import check_recipe  # after the recipe: its own mistakes are told within a second

    return check_recipe(loaded, _say)


def _verify(options: argparse.Namespace) -> int:
    from rltoolkit.commands.verify import VerifyRequest, verify_file
    from rltoolkit.commands.verify_report import require_place_for

    if options.json is not None:
        require_place_for(options.json, options.file)
    request = VerifyRequest(
        options.file, options.verifier, options.response, options.reference, options.label, tuple(options.set)
    )
    report = verify_file(request, workers=options.workers, timeout_s=options.timeout)
    for line in report.lines(options.show):
        _say(line)
    if options.json is not None:
        report.write(options.json)
        _say(f"written to {options.json}")
    return 0


def _eval(options: argparse.Namespace) -> int:
    from eval.choice import SamplerChoice

    sampler = SamplerChoice(options.backend, tuple(options.url), options.dtype, options.device, options.wait)
    from eval.report import markdown_table  # after the choice: its mistakes are told within a second
    from eval.runner import run_tasks

    results = run_tasks(
        options.model,
        options.task,
        n=options.n,
        limit=options.limit,
        output=options.output,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        prompt_format=options.format,
        sampler=sampler,
    )
    _say(markdown_table(results))
    if options.output is not None:
        _say(f"written to {options.output}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from rltoolkit.recipe import load_recipe
    from rltoolkit.recipe.contradictions import SERVING_RULES

    loaded = load_recipe(options.recipe, options.overrides, rules=SERVING_RULES)
    from rltoolkit.commands.serve import serve  # after the recipe: its own mistakes are told within a second

    return serve(loaded, _say)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
