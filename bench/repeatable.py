"""What `CHATSERVER_REPEATABLE` costs: `python -m bench.repeatable`. The engine alone, without a queue.

Two engines of the same model, with and without the setting, answer the same greedy prompts in turns in one process;
while one computes, the other one idles. The table gives the median tokens per second over the rounds; below it stands
how many of the answers in company equal what the same engine had answered alone.
"""

import argparse
import queue
import statistics
import time
from collections import defaultdict

from bench.chat import make_prompts
from services.models.catalogue import resolve
from services.tokens.tokenization import load_tokenizer
from services.wire.messages import Message
from workers.engine import Engine, EngineEvent, EngineOptions, Sampling
from workers.select_engine import create_engine

Answers = dict[str, list[int]]


def answer(engine: Engine, prompts: dict[str, list[int]], clients: int, max_tokens: int) -> tuple[Answers, float]:
    """The answers to all prompts, `clients` at a time, and tokens per second."""
    answers: Answers = {name: [] for name in prompts}
    events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
    waiting = list(prompts)[::-1]
    num_running = 0
    started = time.monotonic()
    while waiting or num_running:
        while waiting and num_running < clients:
            name = waiting.pop()
            engine.submit(name, prompts[name], Sampling(max_tokens), events.put)
            num_running += 1
        event = events.get(timeout=120)
        answers[event.request_id] += event.token_ids
        if event.outcome not in (None, "finished"):
            raise RuntimeError(f"{event.request_id} ended as {event.outcome}: {event.message}")
        num_running -= event.outcome == "finished"
    return answers, sum(map(len, answers.values())) / (time.monotonic() - started)


def measure(options: argparse.Namespace) -> None:
    source = resolve(options.model)
    tokenizer = load_tokenizer(source)
    engines = {
        on: create_engine(source, EngineOptions(repeatable=on), engine=options.engine)[0] for on in (False, True)
    }
    rates: dict[tuple[int, bool], list[float]] = defaultdict(list)
    equal: dict[bool, list[bool]] = {False: [], True: []}
    for engine in engines.values():
        engine.start()
        print(engine.description)
    for number in range(options.rounds):
        texts = make_prompts(options.clients, seed=number)
        prompts = {f"{number}-{n}": tokenizer.render([Message("user", text)]) for n, text in enumerate(texts)}
        first = dict(list(prompts.items())[: options.alone])
        for on, engine in engines.items():
            alone, rate = answer(engine, first, 1, options.tokens)
            rates[1, on].append(rate)
            together, rate = answer(engine, prompts, options.clients, options.tokens)
            rates[options.clients, on].append(rate)
            equal[on] += [together[name] == alone[name] for name in first]
    for engine in engines.values():
        engine.stop()
    show(rates, equal)


def show(rates: dict[tuple[int, bool], list[float]], equal: dict[bool, list[bool]]) -> None:
    print("| clients | tokens/s | repeatable | ratio |\n|---|---|---|---|")
    for clients in sorted({clients for clients, _ in rates}):
        without, with_it = (statistics.median(rates[clients, on]) for on in (False, True))
        print(f"| {clients} | {without:.1f} | {with_it:.1f} | {with_it / without:.0%} |")
    for on, same in equal.items():
        print(f"{'repeatable' if on else 'as usual'}: {sum(same)} of {len(same)} answers in company are those alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="smollm2-135m", help="a catalogue name, folder, GGUF or hub id")
    add("--engine", default="auto", help="engine adapter")
    add("--clients", type=int, default=16, help="prompts at once, beside one alone")
    add("--alone", type=int, default=2, help="how many of them are also asked alone in each round")
    add("--tokens", type=int, default=64, help="new tokens of an answer")
    add("--rounds", type=int, default=3, help="how often each is measured")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
