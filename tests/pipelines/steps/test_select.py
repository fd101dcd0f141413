"""Records chosen by what they say of themselves."""

from pipelines.steps.select import build
from services.jobs.steps.select import SelectOptions
from tests.pipelines.steps.local import Ran, talk


def test_a_record_made_with_plugins_is_rejected() -> None:
    """FastChat: plugins present and not null."""
    made = talk("u:a", "a:b", extra={"plugins": [{"id": "p"}]})
    assert Ran(build(SelectOptions()), made).reason == ("plugins", "")
    assert Ran(build(SelectOptions(plugins="keep")), made).kept
    assert Ran(build(SelectOptions()), talk("u:a", "a:b", extra={"plugins": None})).kept


def test_models_are_chosen_whatever_their_case_and_unknown_ones_as_told() -> None:
    """FastChat's extract_gpt4_only keeps records that do not name their model."""
    gpt4, other, unknown = talk(model="GPT4"), talk(model="gpt-3.5"), talk()
    result = Ran(build(SelectOptions(models=("gpt4",))), gpt4, other, unknown)
    assert result.kept == [gpt4, unknown]
    assert result.reason == ("other_model", "gpt-3.5")
    assert Ran(build(SelectOptions(unknown_model="reject")), unknown).reason == ("unknown_model", "")
