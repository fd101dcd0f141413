import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from services.errors import ConfigurationError, TemplateError
from services.models.catalogue import ModelSource
from services.tokens.family_templates import FAMILY_TEMPLATES
from services.tokens.templates import TEMPLATES
from services.tokens.tokenization import ChatTokenizer, load_tokenizer
from services.wire.messages import Message
from tests.services.tokens.chat_tokenizers import MISTRAL, chat, fast, sentencepiece, smollm2
from tests.workers.text_decoders import byte_fallback, packaged_tokenizer
from workers.detokenizer import TextDecoder

SMOLLM2 = packaged_tokenizer()
SPECIAL = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<repo_name>"]


def user(text: str) -> list[Message]:
    return [Message("user", text)]


def special_count(chat: ChatTokenizer, token_ids: list[int]) -> int:
    return sum(token_id in TextDecoder(chat.decoder()).skipped for token_id in token_ids)


def decoded(chat: ChatTokenizer, token_ids: list[int]) -> str:
    return chat.decoder().decode(token_ids, skip_special_tokens=False)


def like_llama(**options: Any) -> ChatTokenizer:
    backend = byte_fallback().tokenizer
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return ChatTokenizer(fast, **options)


def test_the_packaged_model_uses_its_own_template_and_ends_at_im_end() -> None:
    assert SMOLLM2.template_reason == "Chat template: the tokenizer's own."
    assert SMOLLM2.stop_strings == ()
    assert [SMOLLM2.decoder().id_to_token(n) for n in SMOLLM2.stop_token_ids] == SPECIAL[2::-2]
    text = decoded(SMOLLM2, SMOLLM2.render(user("Hi")))
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_digits_are_split_as_the_model_was_trained() -> None:
    """transformers ignores `tokenizer.ggml.pre` and would merge digits."""
    tokens = SMOLLM2.decoder().encode("in 2024").tokens
    assert tokens == ["in", "Ġ", "2", "0", "2", "4"]


@given(st.lists(st.sampled_from([*SPECIAL, "<|im_", "end|>", "<", "|", ">", " ", "\n", "system", "hi"]), min_size=1))
def test_no_content_can_add_a_special_token(parts: list[str]) -> None:
    content = "".join(parts)
    plain = special_count(SMOLLM2, SMOLLM2.render(user("x")))
    token_ids = SMOLLM2.render(user(content))
    assert special_count(SMOLLM2, token_ids) == plain
    assert decoded(SMOLLM2, token_ids) == decoded(SMOLLM2, SMOLLM2.render(user("x"))).replace("x<", content + "<")


@given(st.text(max_size=60))
def test_ordinary_text_is_encoded_as_the_tokenizer_would(text: str) -> None:
    rendered = decoded(SMOLLM2, SMOLLM2.render(user("@@"))).replace("@@", text)
    if not any(special in text for special in SPECIAL):
        backend = SMOLLM2.decoder()
        assert SMOLLM2.render(user(text)) == backend.encode(rendered, add_special_tokens=False).ids


def test_a_private_use_character_in_a_message_is_kept() -> None:
    text = decoded(SMOLLM2, SMOLLM2.render(user("\ue000<|im_end|>\ue001")))
    assert "\ue000<|im_end|>\ue001" in text


def test_no_space_is_slipped_into_a_special_token_that_was_typed() -> None:
    """A sentencepiece tokenizer puts a space before every text, so also before the second piece."""
    chat = like_llama(template="plain")
    token_ids = chat.render(user("a </s> b"))
    assert "a </s> b" in decoded(chat, token_ids)
    assert special_count(chat, token_ids) == 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_named_templates_begin_with_exactly_one_bos(name: str) -> None:
    chat = like_llama(template=name)
    token_ids = chat.render(user("the"))
    bos = chat.decoder().token_to_id("<s>")
    assert token_ids[0] == bos
    assert token_ids.count(bos) == 1
    assert chat.stop_strings == TEMPLATES[name].stop


def test_an_explicit_template_wins_over_the_tokenizers_own() -> None:
    chat = ChatTokenizer(SMOLLM2._tokenizer, template="vicuna-v1.1")
    assert decoded(chat, chat.render(user("Hi"))).endswith(" USER: Hi ASSISTANT:")


def test_what_a_template_refuses_is_a_named_error() -> None:
    chat = ChatTokenizer(fast(smollm2(), own=MISTRAL))
    with pytest.raises(TemplateError, match="roles must alternate user/assistant"):
        chat.render([Message("user", "a"), Message("user", "c")])


def test_end_tokens_of_the_generation_config_are_included() -> None:
    assert set(like_llama(eos_token_ids=[7, 9]).stop_token_ids) == {2, 7, 9}


def test_a_checkpoint_folder_brings_its_tokenizer_and_eos_list(tmp_path: Path) -> None:
    PreTrainedTokenizerFast(
        tokenizer_object=SMOLLM2.decoder(), chat_template=SMOLLM2._tokenizer.chat_template, eos_token="<|im_end|>"
    ).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 11]}')
    chat = load_tokenizer(ModelSource("copy", "folder", tmp_path))
    assert {2, 11} <= set(chat.stop_token_ids)
    assert chat.render(user("Hi 12")) == SMOLLM2.render(user("Hi 12"))


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        load_tokenizer(ModelSource("empty", "folder", tmp_path))


def test_a_whole_conversation_ends_with_its_last_answer() -> None:
    whole = [*user("Hi"), Message("assistant", "Hello <|im_end|>")]
    text = decoded(SMOLLM2, SMOLLM2.render_whole(whole))
    assert text.endswith("<|im_start|>assistant\nHello <|im_end|><|im_end|>\n")
    assert special_count(SMOLLM2, SMOLLM2.render_whole(whole)) == 6
    assert SMOLLM2.render([*whole, *user("x")])[: len(SMOLLM2.render_whole(whole))] == SMOLLM2.render_whole(whole)


@pytest.mark.parametrize("name", TEMPLATES)
def test_named_templates_render_whole_conversations(name: str) -> None:
    """Their `{% generation %}` marks say what is learnt; they add no text."""
    chat = ChatTokenizer(SMOLLM2._tokenizer, template=name)
    text = decoded(chat, chat.render_whole([*user("Hi"), Message("assistant", "Hello")]))
    assert text.rstrip("\n").endswith("Hello<|im_end|>")
    assert "generation" not in text


def test_a_tokenizer_that_is_set_to_truncate_cuts_nothing_here() -> None:
    """A tokenizer.json may bring a maximal length; every count would stop there."""
    backend = byte_fallback().tokenizer
    backend.enable_truncation(4)
    backend.enable_padding(length=50)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    chat = ChatTokenizer(fast, template="plain")
    assert chat.render(user("the and the")) == like_llama(template="plain").render(user("the and the"))


def test_special_tokens_are_told_as_text() -> None:
    assert like_llama().special_tokens() == {"<unk>", "<s>", "</s>"}
    assert set(SPECIAL) <= SMOLLM2.special_tokens()


def test_a_hub_id_that_cannot_be_fetched_says_that_it_needs_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigurationError, match=r"'nobody/nothing'; the first download .* needs the network"):
        load_tokenizer(ModelSource("nothing", "hub", hub_id="nobody/nothing"))


WITHOUT_TORCH = """
import importlib.util, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(name)
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] == "torch" else find_spec(name, *rest)
sys.meta_path.insert(0, Absent())
from services.models.catalogue import resolve
from services.wire.messages import Message
from workers.detokenizer import TextDecoder
from services.tokens.tokenization import load_tokenizer
print(load_tokenizer(resolve("smollm2-135m")).render([Message("user", "Hi")]))
assert "torch" not in sys.modules
"""


def test_a_gguf_tokenizer_needs_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(SMOLLM2.render(user("Hi")))


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("text", ["Hello the cat", " a cat\n", ""])
def test_a_bare_prompt_has_the_ids_that_transformers_gives_it(legacy: bool, text: str) -> None:
    backend = sentencepiece(legacy=legacy)
    backend.post_processor = TemplateProcessing(single=["<s>", "$A"], special_tokens=[("<s>", 1)])
    made = chat(backend, template="plain")
    assert made.encode_bare(text).ids == fast(backend)(text)["input_ids"]


def test_a_bare_prompt_has_no_end_that_the_tokenizer_adds() -> None:
    backend = sentencepiece(legacy=False)
    backend.post_processor = TemplateProcessing(single=["<s>", "$A", "</s>"], special_tokens=[("<s>", 1), ("</s>", 2)])
    assert chat(backend, template="plain").encode_bare("Hello").ids == fast(backend)("Hello")["input_ids"][:-1]


def test_a_bare_prompt_that_a_program_has_rendered_is_read_as_turns() -> None:
    """So completion front ends and programs that fill in the middle work as with other servers."""
    made = chat(smollm2(), own=FAMILY_TEMPLATES["chatml"], bos_token=None, eos_token="<|im_end|>", unk_token=None)
    rendered = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert made.encode_bare(rendered).ids == made.render([Message("user", "Hi")])


def test_a_bare_prompt_has_one_bos_whoever_writes_it() -> None:
    backend = sentencepiece(legacy=False)
    backend.post_processor = TemplateProcessing(single=["<s>", "$A"], special_tokens=[("<s>", 1)])
    made = chat(backend, template="plain")
    assert made.encode_bare("<s>Hello").ids.count(1) == made.encode_bare("Hello").ids.count(1) == 1
