"""English text to IPA by eSpeak NG, and IPA to the tokens of the teacher, which are also the
phoneme labels."""

import json
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from rtvc.errors import CheckpointError, TextError, needs_extra
from rtvc.models.styletts_vc.text_encoder import TOKENS
from rtvc.printable import first_problem

BOUNDARY = 0
"""The token before the first and behind the last phoneme."""

LONGEST = 510
"""Phonemes that the teacher takes at once: the 512 positions of its language model less the two
boundaries."""

_ESPEAK = threading.Lock()
"""eSpeak NG keeps global state: one call at a time."""


@cache
def _backend(language: str) -> Any:
    """phonemizer's eSpeak NG backend with the library that the espeakng-loader package carries."""
    with needs_extra("train", "text needs eSpeak NG to become phonemes", "or give IPA"):
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    return EspeakBackend(language, preserve_punctuation=True, with_stress=True)


def phonemize(texts: Sequence[str], language: str = "en-us") -> list[str]:
    """IPA of each text, stress and punctuation kept, with the `ɹ` that the teacher knows for
    eSpeak's `r`.

    Raises:
        DependencyError: without phonemizer-fork and espeakng-loader.
        TextError: for a text of nothing but spaces.
    """
    for text in texts:
        if not text.strip():
            raise TextError("an empty text came: give at least one word")
    with _ESPEAK:
        spoken: list[str] = _backend(language).phonemize(
            [" ".join(text.split()) for text in texts], strip=True
        )
    return [ipa.replace("r", "ɹ") for ipa in spoken]


class TokenTable(BaseModel):
    """The published JSON."""

    vocab: dict[str, Annotated[int, Field(ge=0, lt=TOKENS)]] = Field(max_length=TOKENS)


class Alphabet:
    """The token table of the teacher.

    Attributes:
        tokens: token of each symbol.
        symbols: symbol of each token.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self.tokens = dict(tokens)
        self.symbols = {token: symbol for symbol, token in self.tokens.items()}

    @classmethod
    def parse(cls, text: str) -> "Alphabet":
        """From the published JSON, {"vocab": {symbol: token}}.

        Raises:
            CheckpointError: for anything else.
        """
        try:
            return cls(TokenTable.model_validate_json(text).vocab)
        except ValidationError as error:
            raise CheckpointError(
                'expected a token table, JSON of the form {"vocab": {symbol: token}}, got another'
                f" ({first_problem(error)})"
            ) from error

    def dump(self) -> str:
        """What `parse` reads."""
        return json.dumps({"vocab": self.tokens}, ensure_ascii=False)

    def encode(self, ipa: str) -> list[int]:
        """Tokens between two boundaries; symbols that the table lacks are dropped.

        Raises:
            TextError: if no symbol is left, or more than 510.
        """
        tokens = [self.tokens[symbol] for symbol in ipa if symbol in self.tokens]
        if not tokens:
            raise TextError(
                f"nothing of {ipa!r} is in the teacher's alphabet: give at least one phoneme"
            )
        if len(tokens) > LONGEST:
            raise TextError(
                f"{len(tokens)} phonemes came, the teacher takes at most {LONGEST} at once: split"
                " the text, at sentences say"
            )
        return [BOUNDARY, *tokens, BOUNDARY]

    def decode(self, tokens: Sequence[int]) -> str:
        """The symbols of the tokens, boundaries left out."""
        return "".join(self.symbols.get(token, "") for token in tokens)
