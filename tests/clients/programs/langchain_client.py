"""What LangChain's chat model does, against the address in argv[1] and a key in argv[2]."""

import sys

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI

URL, KEY = sys.argv[1:3]
model = ChatOpenAI(base_url=f"{URL}/v1", api_key=KEY, model="thinker", stream_usage=True)

answer = model.invoke([SystemMessage("be short"), HumanMessage("hi"), AIMessage("ho"), HumanMessage("four, five")])
assert answer.content == "four, five" and answer.response_metadata["finish_reason"] == "stop"
assert answer.usage_metadata["output_tokens"] == 10
parts = list(model.stream("four, five"))
assert "".join(part.content for part in parts) == "four, five"
assert sum((part.usage_metadata or {}).get("output_tokens", 0) for part in parts) == 10
assert [each.content for each in model.batch(["one", "two"])] == ["one", "two"]
assert OpenAI(base_url=f"{URL}/v1", api_key=KEY, model="thinker", max_tokens=3).invoke("abcdef") == "abc"


@tool
def weather(city: str) -> str:
    """How warm it is in a city."""
    return f"18 degrees in {city}"


CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
caller = ChatOpenAI(base_url=f"{URL}/v1", api_key=KEY, model="qwen3").bind_tools([weather])
called = caller.invoke(CALL)
assert [(call["name"], call["args"]) for call in called.tool_calls] == [("weather", {"city": "Paris"})]
parts = list(caller.stream(CALL))
streamed = parts[0]
for part in parts[1:]:
    streamed += part
assert [(call["name"], call["args"]) for call in streamed.tool_calls] == [("weather", {"city": "Paris"})]
result = weather.invoke(called.tool_calls[0])
assert caller.invoke([HumanMessage(CALL), called, result]).content == "18 degrees in Paris"
print("langchain is right")
