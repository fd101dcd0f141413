"""Keeps or rejects a record by the model that the record names, and by whether it was made with plugins."""

from collections.abc import Iterable, Iterator

from pipelines.records.conversation import Conversation
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from services.jobs.steps.select import SelectOptions


def build(options: SelectOptions) -> Step:
    models = {model.casefold() for model in options.models}

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            if reason := _reason(conversation, models, options):
                ledger.reject(conversation, reason, conversation.model if reason == "other_model" else "")
            else:
                yield conversation

    return step


def _reason(conversation: Conversation, models: set[str], options: SelectOptions) -> str:
    if options.plugins == "reject" and conversation.extra.get("plugins"):
        return "plugins"
    if not conversation.model:
        return "unknown_model" if options.unknown_model == "reject" else ""
    return "other_model" if models and conversation.model.casefold() not in models else ""
