"""Ours against its peers: `python -m bench.peers --keep DIR`. Prints a table of figures and ratios.

Each server is installed into a folder of its own (`--keep` saves that for the next run), loaded with the packaged
weights, warmed, and asked the same prompts in turns, A B A B. A peer that cannot be installed or started stands under
the table with the reason. A round in which others used more than a tenth of the machine is repeated, twice at most, and
then marked. Everything is on the loopback and ends with the program.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench.peers.environments import PeerError
from bench.peers.figures import Round, least_disturbed, table
from bench.peers.prompts import Prompts
from bench.peers.scenarios import LONG_TOKENS, STREAMS_BESIDE, Count, Scenario, Target, beside, chat, conversation, long
from bench.peers.servers import CONTEXT_TOKENS, OURS, SERVERS, Place, running
from bench.system import unwind_on_sigterm
from services.models.catalogue import resolve
from services.tokens.tokenization import load_tokenizer

LONG_CLIENTS = (1, 8)
TURNS = 10
KINDS = ("chat", "long", "conversation", "beside")
DEFAULT_PEERS = [name for name in SERVERS if name != OURS]

Make = Callable[[], Scenario]


def main() -> int:
    """Exit code 1 when a server left a question without an answer."""
    options = _options()
    unwind_on_sigterm()
    with ExitStack() as ending:
        folder = options.keep or Path(ending.enter_context(tempfile.TemporaryDirectory(prefix="bench-peers-")))
        folder.mkdir(parents=True, exist_ok=True)
        source = resolve("smollm2-135m")
        assert source.path is not None
        slots = max(*options.clients, STREAMS_BESIDE + 2)
        place = Place(folder.resolve(), source.path, slots, options.jobs)
        tokenizer = load_tokenizer(source).decoder()
        prompts = Prompts(options.seed)

        def count(text: str) -> int:
            return len(tokenizer.encode(text, add_special_tokens=False).ids)

        targets, absent = _start(ending, place, [OURS, *options.peers])
        for target in targets:
            for scenario in _warm_up(options, prompts, count):
                scenario.turn(target, count)
        rounds = list(_rounds(list(_scenarios(options, prompts, count)), targets, options.rounds, count))
    _show(rounds, absent)
    if options.out:
        options.out.write_text(json.dumps({"absent": absent, "rounds": list(map(dataclasses.asdict, rounds))}) + "\n")
    return 1 if any(turn.errors for each in rounds for turn in each.turns) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--peers", type=_names(DEFAULT_PEERS), default=DEFAULT_PEERS, help=f"of {','.join(DEFAULT_PEERS)}")
    add("--scenarios", type=_names(KINDS), default=list(KINDS), help=f"of {','.join(KINDS)}")
    add("--clients", type=lambda text: [int(each) for each in text.split(",")], default=[1, 4, 16, 64])
    add("--rounds", type=int, default=3)
    add("--requests", type=int, default=2, help="questions of each client in a round of chat")
    add("--tokens", type=int, default=128, help="most new tokens of an answer")
    add("--seed", type=int, default=1, help="of the prompts")
    add("--jobs", type=int, default=1, help="files that the compiler works on at once")
    add("--keep", type=Path, metavar="DIR", help="where environments and logs stay; else they go with the run")
    add("--out", type=Path, help="file for every figure, as JSON")
    add("--quick", action="store_true", help="does everything start and answer? one round of a few tokens, one client")
    options = parser.parse_args()
    if options.quick:
        options.clients, options.rounds, options.requests, options.tokens = [1], 1, 1, 16
        options.scenarios = ["chat"]
    return options


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return parse


def _start(ending: ExitStack, place: Place, names: Sequence[str]) -> tuple[list[Target], dict[str, str]]:
    """The servers that answer, and why the others do not. Ours must."""
    targets: list[Target] = []
    absent: dict[str, str] = {}
    for name in names:
        print(f"{name}: installing, loading", flush=True)
        try:
            target = ending.enter_context(running(SERVERS[name], SERVERS[name].prepare(place), place.folder))
        except PeerError as error:
            if name == OURS:
                raise SystemExit(f"{name}: {error}") from None
            absent[name] = str(error)
            print(f"{name}: {error}", flush=True)
        else:
            targets.append(target)
    return targets, absent


def _warm_up(options: argparse.Namespace, prompts: Prompts, count: Count) -> Iterator[Scenario]:
    """A prompt of each length that comes, so that what is made once is made."""
    yield chat(2, 1, options.tokens, prompts)
    if options.scenarios != ["chat"]:
        yield long(1, options.tokens, prompts, count)


def _scenarios(options: argparse.Namespace, prompts: Prompts, count: Count) -> Iterator[Make]:
    tokens = options.tokens
    if "chat" in options.scenarios:
        yield from (partial(chat, clients, options.requests, tokens, prompts) for clients in options.clients)
    if "long" in options.scenarios:
        yield from (partial(long, clients, tokens, prompts, count) for clients in LONG_CLIENTS)
    if "conversation" in options.scenarios:
        yield partial(conversation, TURNS, tokens, prompts)
    if "beside" in options.scenarios:
        yield partial(beside, tokens, prompts, count)


def _rounds(makes: Sequence[Make], targets: Sequence[Target], num_rounds: int, count: Count) -> Iterator[Round]:
    """Every scenario in every round, so that slow weather meets all scenarios alike."""
    for number in range(num_rounds):
        for make in makes:
            found = least_disturbed(partial(_fresh_round, make, targets, count))
            told = ", ".join(f"{turn.server} {turn.tokens_per_s:.1f}" for turn in found.turns)
            mark = " (disturbed)" if found.disturbed else ""
            print(
                f"round {number + 1}, {found.scenario}, tokens/s: {told}; others {found.others:.0%}{mark}", flush=True
            )
            yield found


def _fresh_round(make: Make, targets: Sequence[Target], count: Count) -> Round:
    """With prompts that no server has seen."""
    return one_round(make(), targets, count)


def one_round(scenario: Scenario, targets: Sequence[Target], count: Count) -> Round:
    """The same prompts for each server, one server after the other."""
    return Round(scenario.name, [scenario.turn(target, count) for target in targets])


def _show(rounds: Sequence[Round], absent: dict[str, str]) -> None:
    print("\nBehind a figure: ours divided by it, median over the rounds (lowest-highest).")
    print("\n".join(table(rounds, OURS)))
    here = dict.fromkeys(turn.server for each in rounds for turn in each.turns)
    print("\nWeights: " + ", ".join(f"{name} {SERVERS[name].precision()}" for name in here))
    print(f"Context {CONTEXT_TOKENS} tokens; long prompts have {LONG_TOKENS}.")
    for name, reason in absent.items():
        print(f"Absent: {name}: {reason}")
    for error in dict.fromkeys(
        f"{turn.server}: {error}" for each in rounds for turn in each.turns for error in turn.errors
    ):
        print(f"Error: {error}")


if __name__ == "__main__":
    sys.exit(main())
