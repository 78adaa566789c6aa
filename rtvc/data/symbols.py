"""The phoneme alphabet of the authors' checkpoints: 178 symbols, known without any download
(StyleTTS-VC, `meldataset.py`)."""

from collections.abc import Sequence

from rtvc.errors import TrainingError

BOUNDARY = 0
"""Token of the pad symbol; it also opens and closes every utterance, and is the blank of CTC."""

SYMBOLS = (
    "$"
    ';:,.!?¡¿—…"«»“” '
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    "ɑɐɒæɓʙβɔɕçɗɖðʤəɘɚɛɜɝɞɟʄɡɠɢʛɦɧħɥʜɨɪʝɭɬɫɮʟɱɯɰŋɳɲɴøɵɸθœɶʘɹɺɾɻʀʁɽʂʃʈʧʉʊʋⱱʌɣɤʍχʎʏʑʐʒʔʡʕʢǀǁǂǃ"
    "ˈˌːˑʼʴʰʱʲʷˠˤ˞↓↑→↗↘'\u0329'ᵻ"
)
"""Symbol of each token. The apostrophe comes twice, as in the authors' table; the later one
counts."""

TOKENS = {symbol: token for token, symbol in enumerate(SYMBOLS)}


LEFT_OUT = frozenset("$;:,.!?¡¿—…\"«»“” ˈˌːˑʼ'↓↑→↗↘")
"""Symbols that stand for no sound of their own: stress, length, pauses and punctuation."""


def encode(ipa: str) -> list[int]:
    """Tokens of a transcription between two boundaries; symbols that the alphabet lacks are
    dropped.

    Raises:
        TrainingError: no symbol is left.
    """
    tokens = [TOKENS[symbol] for symbol in ipa if symbol in TOKENS and symbol != "$"]
    if not tokens:
        raise TrainingError(
            f"expected IPA, as `rtvc data prepare` makes it from text, got {ipa!r}, of which"
            " nothing is in the phoneme alphabet"
        )
    return [BOUNDARY, *tokens, BOUNDARY]


def decode(tokens: Sequence[int]) -> str:
    """The symbols of tokens, boundaries left out."""
    return "".join(SYMBOLS[token] for token in tokens if token != BOUNDARY)
