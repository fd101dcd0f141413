"""What LlamaIndex's model does, against the address in argv[1] and a key in argv[2]."""

import sys

from llama_index.core.llms import ChatMessage, LLMMetadata
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI

URL, KEY = sys.argv[1:3]


class Model(OpenAI):
    """The class knows OpenAI's models by their names; of another it must be told."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            context_window=8192, is_chat_model=True, is_function_calling_model=True, model_name=self.model
        )


model = Model(api_base=f"{URL}/v1", api_key=KEY, model="thinker", max_tokens=100)
messages = [ChatMessage(role="system", content="be short"), ChatMessage(role="user", content="four, five")]

answer = model.chat(messages)
assert (answer.message.content, answer.message.role.value) == ("four, five", "assistant")
assert answer.raw.usage.completion_tokens == 10
parts = list(model.stream_chat(messages))
assert "".join(part.delta or "" for part in parts) == parts[-1].message.content == "four, five"
assert model.complete("abc").text == "abc"


def weather(city: str) -> str:
    """How warm it is in a city."""
    return f"18 degrees in {city}"


CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
caller, known = Model(api_base=f"{URL}/v1", api_key=KEY, model="qwen3"), [FunctionTool.from_defaults(weather)]
*_, last = caller.stream_chat_with_tools(known, user_msg=CALL)
for answer in (caller.chat_with_tools(known, user_msg=CALL), last):
    (call,) = caller.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Paris"})
print("llama-index is right")
