"""Tokenizers, checked before any weight is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING

from rltoolkit.data.columns import first_line
from rltoolkit.errors import ModelError
from rltoolkit.recipe.paths import is_embedded, looks_local

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# One of these holds the vocabulary. Without any, transformers may build an empty tokenizer from the model's
# type.
VOCABULARY_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)


def load_tokenizer(name_or_path: str | Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a model folder, a hub name or an embedded model.

    A tokenizer without a padding token gets its end-of-sequence token for it, as TRL does. Raises
    ModelError if the folder is missing or has no tokenizer, if the hub cannot be reached, or if there is no
    end-of-sequence token.
    """
    name = str(name_or_path)
    tokenizer = _embedded(name) if is_embedded(name) else _from_pretrained(name)
    if tokenizer.eos_token_id is None:
        remedy = "set eos_token in its tokenizer_config.json"
        raise ModelError(f"the tokenizer of {name} has no end-of-sequence token, so no answer could end; {remedy}")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def require_chat_template(tokenizer: "PreTrainedTokenizerBase", key: str) -> None:
    """Raise ModelError if the tokenizer cannot render chats; `key` is the recipe's key that asks for them."""
    if tokenizer.chat_template is None:
        name = tokenizer.name_or_path or "of this model"
        raise ModelError(
            f"{key} is chat, but the tokenizer {name} has no chat template; set {key}: text, or use an instruct model"
        )


def _embedded(name: str) -> "PreTrainedTokenizerBase":
    from rltoolkit.embedded.models import countdown_tokenizer

    if name != "embedded:countdown":
        raise ModelError(f"model {name} is not known; the embedded model is embedded:countdown")
    return countdown_tokenizer()


def _from_pretrained(name: str) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any((folder / file).is_file() for file in VOCABULARY_FILES):
            raise ModelError(
                f"model folder {folder} has no tokenizer (none of {', '.join(VOCABULARY_FILES)}); "
                "copy the tokenizer's files of its base model into it"
            )
        name = str(folder)
    elif looks_local(name):
        raise ModelError(f"model folder {folder} does not exist; give a folder that does, or a hub name")
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        remedy = "check the name, the network and, for a gated model, your access"
        raise ModelError(f"the tokenizer of {name} cannot be loaded: {first_line(error)}; {remedy}") from error
