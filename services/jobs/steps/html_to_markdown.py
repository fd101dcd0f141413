"""Options and reasons of `html_to_markdown`; the step is `pipelines/steps/html_to_markdown.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import StepOptions

Converter = Literal["html-to-markdown", "markdownify"]


class HtmlToMarkdownOptions(StepOptions):
    """Assistant turns that are HTML become markdown. What people typed is text and stays as it is."""

    reasons = ("not_convertible",)

    converter: Converter = "html-to-markdown"
    when: Literal["auto", "always"] = Field("auto", description="auto: turns that are HTML as a whole; or all turns.")
