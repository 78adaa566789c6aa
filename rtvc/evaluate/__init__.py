"""Evaluation of voice conversion by measures that anyone can repeat: intelligibility, similarity,
naturalness, melody, speed."""

from rtvc.evaluate.audio import read
from rtvc.evaluate.judges.pitch import f0_pcc
from rtvc.evaluate.judges.quality import dnsmos
from rtvc.evaluate.judges.recogniser import Recogniser
from rtvc.evaluate.judges.speaker import SpeakerEncoder, similarity
from rtvc.evaluate.pairs import Pair, read_pairs
from rtvc.evaluate.run import ConvertFn, evaluate_pairs
from rtvc.evaluate.text import wer

__all__ = [
    "ConvertFn",
    "Pair",
    "Recogniser",
    "SpeakerEncoder",
    "dnsmos",
    "evaluate_pairs",
    "f0_pcc",
    "read",
    "read_pairs",
    "similarity",
    "wer",
]
