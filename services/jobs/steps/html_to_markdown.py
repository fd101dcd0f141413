"""Options and reasons of `html_to_markdown`; the step is `pipelines/steps/html_to_markdown.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import StepOptions

Converter = Literal["html-to-markdown", "markdownify"]


class HtmlToMarkdownOptions(StepOptions):
    """Turn assistant messages from HTML into Markdown. User messages are text and stay as they are."""

    reasons = ("not_convertible",)

    converter: Converter = "html-to-markdown"
    when: Literal["auto", "always"] = Field(
        "auto", description="auto: only messages that are HTML as a whole; always: all messages."
    )
