"""Which files of a folder are recordings: those that can be opened, and those that only look
so."""

from pathlib import Path

from rtvc.audio.containers import AAC, container_of

OPENED = frozenset(
    (
        *(".wav", ".wave", ".bwf", ".w64", ".rf64", ".aif", ".aiff", ".aifc", ".au", ".snd"),
        *(".caf", ".flac", ".ogg", ".oga", ".opus", ".mp1", ".mp2", ".mp3", ".sph", ".nist"),
        *(".voc", ".sf", ".ircam", ".paf", ".svx", ".8svx", ".iff", ".avr", ".htk", ".pvf"),
        *(".xi", ".sds", ".sd2", ".wve", ".mat4", ".mat5"),
    )
)
"""Suffixes of the formats that libsndfile opens."""
CONTAINED = frozenset(
    (
        *(".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".3g2", ".alac", ".aac", ".adts"),
        *(".webm", ".weba", ".mka", ".mkv", ".wma", ".asf"),
    )
)
"""Suffixes of the formats that PyAV opens."""
FOREIGN = frozenset(
    (
        *(".amr", ".awb", ".ape", ".wv", ".tta", ".mpc"),
        *(".ac3", ".eac3", ".dts", ".dsf", ".dff", ".spx", ".ra", ".rm", ".gsm", ".qcp", ".shn"),
        *(".aa", ".aax", ".silk", ".slk", ".raw", ".pcm", ".avi"),
    )
)
"""Suffixes of other files that hold sound."""
MAGIC = (
    b"fLaC",
    b"OggS",
    b"caff",
    b".snd",
    b"NIST_1A",
    b"Creative Voice File",
    b"ID3",
    b"riff.\x91",
)
"""How recordings begin, whatever their names are."""
FORMS: dict[bytes, tuple[bytes, ...]] = {
    b"RIFF": (b"WAVE",),
    b"RIFX": (b"WAVE",),
    b"RF64": (b"WAVE",),
}
FORMS[b"FORM"] = (b"AIFF", b"AIFC", b"8SVX", b"16SV")
"""Containers that hold other things as well, and what they say when they hold sound."""


def is_recording(path: Path) -> bool:
    """Whether a path of a folder should hold a recording, by its suffix or by its first bytes.

    Pipes and the like are recordings by their suffixes only: nothing is read of them.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        return False
    known = suffix in OPENED | CONTAINED | FOREIGN
    return known or (path.is_file() and begins_like_one(path))


def begins_like_one(path: Path) -> bool:
    """Whether a file begins as recordings do."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return False
    if head.startswith(MAGIC) or head[8:12] in FORMS.get(head[:4], ()):
        return True
    return container_of(head) not in (None, AAC)  # two bytes, which anything may begin with
