"""Pickles of strangers, looked at opcode by opcode before torch's restricted reader follows them.

That reader runs no code, but it believes sizes: it makes a `bytearray` of as many gigabytes as a
file asks for, and hashes a tuple that holds another twice, which holds another twice, for hours.
Here no opcode is followed. Names that weights have no use for are refused, and what would grow is
counted.
"""

import io
import pickletools
import zipfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from rtvc.errors import CheckpointError
from rtvc.printable import printable

STORAGES = ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
TENSORS = frozenset(
    {
        "collections.OrderedDict",
        "torch.Size",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        *(f"torch.{name}Storage" for name in STORAGES),
    }
)
"""What plain tensors are pickled with. None of these makes more than the file holds."""
LARGEST_PICKLE = 1 << 26
"""Bytes of the objects beside the numbers of their tensors, 64 MiB: names and sizes of 3,000
tensors take half of one."""
MOST_STEPS = 4_000_000
"""Opcodes: a checkpoint of StyleTTS 2 with its optimisers has some 400,000."""
DEEPEST = 64
"""Objects within objects; a checkpoint of the authors' nests some ten."""
MOST_RECORDS = 1 << 16
"""Files in the archive: one for every tensor's numbers, with an optimiser three."""
LEGACY_PICKLES = 5
"""At the beginning of a file that torch wrote before 1.6: a magic number, a version, the machine,
the objects, their storages."""
LEAF = (0, 1)
"""How deep objects lie in one that holds none, and how many a walk through it meets."""
MARK = None
OPCODES = frozenset(
    {"PROTO", "STOP", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID", "MARK"}
    | {"BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
    | {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS"}
    | {"EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "NONE", "NEWTRUE", "NEWFALSE"}
    | {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
)
"""What torch's restricted reader follows, all of the second protocol."""

Extent = tuple[int, int] | None
"""What is kept of an object: how deep objects lie in it, and how many a walk through it meets; or a
mark."""


def check_pickles(file: Path, allowed: Collection[str]) -> None:
    """Looks through every pickle in a file that torch wrote.

    Args:
        file: zip archive, or of the older kind.
        allowed: names, module and all, that it may use.

    Raises:
        CheckpointError: it names anything else, or would grow beyond what any checkpoint is.
        Exception: whatever the parsers say of a file that is damaged.
    """
    with file.open("rb") as opened:
        zipped = opened.read(4) == b"PK\x03\x04"
        opened.seek(0)
        if not zipped:
            for _ in range(LEGACY_PICKLES):
                check_pickle(opened, allowed, file)
            return
    for content in archived(file):
        check_pickle(io.BytesIO(content), allowed, file)


def archived(file: Path) -> Iterator[bytes]:
    """The pickles of a zip archive, whose records are what the archive holds: none is packed, none
    larger than the file.

    Raises:
        CheckpointError: records that torch would not have written.
    """
    size = file.stat().st_size
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        if len(records) > MOST_RECORDS:
            raise CheckpointError(
                f"expected at most {MOST_RECORDS} records, {file} holds {len(records)}: it is no"
                " checkpoint"
            )
        for record in records:
            if record.compress_type != zipfile.ZIP_STORED or record.file_size > size:
                raise CheckpointError(
                    f"{file} holds {printable(record.filename)} packed, as torch never writes it:"
                    " it was not read"
                )
        if sum(record.file_size for record in records) > size:
            raise CheckpointError(f"{file} holds records that overlap: it was not read")
        for record in records:
            if record.filename.endswith(".pkl"):
                if record.file_size > LARGEST_PICKLE:
                    raise CheckpointError(
                        f"expected a pickle of at most {LARGEST_PICKLE} bytes, {file} holds one of"
                        f" {record.file_size}"
                    )
                yield archive.read(record)


def check_pickle(source: BinaryIO, allowed: Collection[str], where: Path) -> None:
    """Looks through one pickle, which begins where `source` stands, and leaves it at its end.

    Raises:
        CheckpointError: see `check_pickles`.
        ValueError: it is no pickle.
    """
    stack: list[Extent] = []
    memo: dict[int, Extent] = {}
    for step, (opcode, argument, _) in enumerate(pickletools.genops(source)):
        name = opcode.name
        if step > MOST_STEPS:
            raise CheckpointError(
                f"{where} takes over {MOST_STEPS} steps to read, no checkpoint does: it was not"
                " read"
            )
        if name == "GLOBAL":
            _check_name(str(argument), allowed, where)
        elif name not in OPCODES:
            raise CheckpointError(
                f"{where} is truncated or no checkpoint (it uses {name}, torch's pickles do not):"
                " get the file again"
            )
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = stack[-1] if stack else LEAF
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo.get(int(argument or 0), LEAF))
        else:
            _follow(opcode, stack)
        if (
            stack
            and stack[-1] is not MARK
            and (stack[-1][0] > DEEPEST or stack[-1][1] > MOST_STEPS)
        ):
            raise CheckpointError(
                f"{where} nests objects deeper or oftener than any checkpoint does: it was not read"
            )


def _check_name(argument: str, allowed: Collection[str], where: Path) -> None:
    name = argument.replace(" ", ".", 1).replace(
        "__builtin__", "builtins", 1
    )  # as Python 2 called it
    if name not in allowed:
        why = "no weights are made of" if name.startswith("torch.") else "could run code"
        raise CheckpointError(
            f"{where} names {printable(name)}, which {why}, and was not read: get the weights as"
            " safetensors"
        )


def _follow(opcode: pickletools.OpcodeInfo, stack: list[Extent]) -> None:
    """Does to a stack of extents what an opcode does to one of objects."""
    # `stack_before` names what the opcode takes, from the bottom up. Where a mark is among it, all
    # that lies above the topmost mark is taken as parts of a container, and what is named before
    # the mark lies below it.
    needed = list(opcode.stack_before)
    parts: list[Extent] = []
    if pickletools.markobject in needed:
        while stack and (top := stack.pop()) is not MARK:
            parts.append(top)
        needed = needed[: needed.index(pickletools.markobject)]
    elif opcode.name in ("APPEND", "SETITEM"):
        parts += [stack.pop() if stack else LEAF for _ in needed[1:]]
        needed = needed[:1]
    held: list[Extent] = [stack.pop() if stack else LEAF for _ in needed]
    if opcode.name == "MARK":
        stack.append(MARK)
    elif opcode.name == "BUILD":  # the object, whose state is not looked into
        stack.append(held[-1])
    # What a call gives is one object, however large its arguments were
    elif opcode.name in ("REDUCE", "NEWOBJ", "BINPERSID") or not opcode.stack_after:
        stack.extend(LEAF for _ in opcode.stack_after)
    elif opcode.name.startswith("TUPLE"):
        stack.append(_holding(LEAF, parts or held))
    else:
        stack.append(_holding(held[0] if held else LEAF, parts))


def _holding(container: Extent, parts: Sequence[Extent]) -> Extent:
    """The extent of a container that takes up some objects."""
    depth, visits = container or LEAF
    inner = [part or LEAF for part in parts]
    return max([depth, *(part[0] + 1 for part in inner)]), visits + sum(part[1] for part in inner)
