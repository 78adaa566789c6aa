"""Values that somebody might write who means no good: of JSON, of TOML, tensors, and bytes."""

import json
import math
from typing import Any

import torch

from rtvc.tensorfile import FLOATS

NUMBERS = [
    0,
    -1,
    1,
    2,
    7,
    300,
    10**4,
    10**6,
    10**7,
    2**31,
    2**63,
    10**30,
    10**400,
    -(10**6),
    0.5,
    -0.0,
    1e38,
    1e308,
    math.nan,
    math.inf,
]
TEXTS = [
    *(
        "",
        "x",
        "0",
        "²",
        "٣",
        "3000000",
        "999999999999999999999",
        "weight",
        "bias",
        "../../etc/passwd",
        "/dev/zero",
        "x" * 5000,
    ),
    *(
        "\x1b[2J\x1b]0;owned\x07",
        "a\nerror: b\r\x08",
        "\u202eevil",
        "\x00",
        "\u2028",
        "e\u0301",
        "[bold]x[/]",
        "%s{0}",
        "module.",
        "net",
    ),
]
LONE = "\ud800"
DTYPES = [
    torch.int8,
    torch.uint8,
    torch.int64,
    torch.bool,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.complex64,
    torch.float8_e4m3fn,
]


class HostileValues:
    """Makes one hostile value at a time.

    Args:
        chance: where draws come from, see `hostile_messages.Hostile`.
    """

    def __init__(self, chance: Any) -> None:
        self.chance = chance

    def pick(self, options: Any) -> Any:
        return options[self.chance.randrange(len(options))]

    def often(self, share: float) -> bool:
        return self.chance.random() < share

    # ------------------------------------------------------------ values

    def text(self) -> str:
        return "".join(self.pick([*TEXTS, LONE]) for _ in range(self.chance.randrange(3)))

    def plain(self, depth: int = 3) -> Any:
        """Any value of JSON, and NaN."""
        kind = self.chance.randrange(8 if depth else 5)
        if kind < 5:
            return self.pick(
                [
                    None,
                    True,
                    False,
                    self.pick(NUMBERS),
                    self.pick(NUMBERS),
                    self.text(),
                    self.text(),
                ]
            )
        if kind == 5:
            return [self.plain(depth - 1) for _ in range(self.chance.randrange(4))]
        if kind == 6:
            return {self.text(): self.plain(depth - 1) for _ in range(self.chance.randrange(4))}
        nested: Any = self.text()
        for _ in range(self.pick([3, 40, 200])):
            nested = [nested] if self.often(0.5) else {"mix": nested}
        return nested

    def changed(self, tree: Any) -> Any:
        """The same tree with something in it that should not be there."""
        if isinstance(tree, dict) and tree and self.often(0.9):
            key = self.pick(sorted(tree, key=repr))
            way = self.chance.randrange(8)
            rest = {name: value for name, value in tree.items() if way or name != key}
            if way == 1:
                return rest | {self.text(): self.plain()}
            return rest | {key: self.changed(tree[key])} if way else rest
        if isinstance(tree, list) and tree and self.often(0.9):
            at = self.chance.randrange(len(tree))
            return [*tree[:at], self.changed(tree[at]), *tree[at + 1 :]]
        return self.plain()

    def tensor(self) -> torch.Tensor:
        """Shapes that cost nothing to write, and may cost everything to believe."""
        shape = [self.pick([0, 1, 2, 3, 4, 7, 16, 20]) for _ in range(self.chance.randrange(5))]
        if self.often(0.3):
            return torch.zeros(
                self.pick(
                    [
                        (0,),
                        (0, 20_000_000, 7),
                        (0, 1, 20),
                        (0, 2**40),
                        (20_000, 0, 20_000),
                        (0, 5, 2**31),
                    ]
                )
            )
        made = torch.full(shape, self.pick([0.0, 1.0, math.nan, math.inf, 1e38, -3e4]))
        if self.often(0.2):
            return torch.zeros(1).expand(self.pick([3, 10**6, 10**9]))
        return made.to(self.pick(DTYPES)) if self.often(0.3) and made.isfinite().all() else made

    def tensors(self, state: dict[str, torch.Tensor]) -> dict[Any, Any]:
        """A state dict with a few things changed."""
        made: dict[Any, Any] = dict(state)
        for _ in range(self.pick([0, 0, 1, 1, 2, 4])):
            key = self.pick(sorted(made, key=repr)) if made else "x"
            way, old = self.chance.randrange(8), made.get(key)
            parts = str(key).split(".")
            if way == 0:
                made.pop(key, None)
            elif (
                way == 1
                and isinstance(old, torch.Tensor)
                and old.is_contiguous()
                and not old.is_complex()
            ):
                made[key] = old.to(self.pick(DTYPES[:7]))
            elif (
                way == 2
                and isinstance(old, torch.Tensor)
                and old.is_contiguous()
                and old.dtype in FLOATS
                and old.numel()
            ):
                made[key] = old.clone()
                made[key].view(-1)[self.chance.randrange(old.numel())] = self.pick(
                    [math.nan, math.inf, -math.inf]
                )
            elif way == 3:
                made[".".join(self.text() if self.often(0.3) else part for part in parts)] = (
                    self.tensor()
                )
            elif way == 4:
                made[
                    ".".join(
                        self.pick(["3000000", "²", "64", "7", "-1"]) if part.isdigit() else part
                        for part in parts
                    )
                ] = self.tensor()
            else:
                made[key] = self.tensor()
        return made

    def bytes(self, data: bytes) -> bytes:
        """Bytes as they are, or cut short, or with a few of them changed."""
        if not data or self.often(0.6):
            return data
        changed = bytearray(data)
        if self.often(0.3):
            del changed[self.chance.randrange(len(changed)) :]
        for _ in range(self.chance.randrange(4) if changed else 0):
            at = self.chance.randrange(min(len(changed), self.pick([64, 4096, len(changed)])))
            changed[at] = self.pick([0, 1, 0x7F, 0x80, 0xFF, self.chance.randrange(256)])
        return bytes(changed)

    def key(self) -> str:
        tables = [
            "",
            "model.",
            "data.",
            "optimizer.",
            "weights.",
            "checkpoint.",
            "discriminator.",
            "augment.",
            "optimizers.x.",
        ]
        names = [
            "seed",
            "steps",
            "batch",
            "content_hidden",
            "content_dilations",
            "hidden_dim",
            "seconds",
            "lr",
            "betas",
            "width",
            "right",
        ]
        names += [
            "device",
            "init",
            "frames",
            "labelled",
            "manifest",
            "resolutions",
            "x",
            '"\\u001b[2J"',
            '""',
            "upsample_rates",
            "noise_snr",
        ]
        return self.pick(tables) + self.pick(names)

    def toml_value(self, depth: int = 2) -> str:
        kind = self.chance.randrange(9 if depth else 6)
        if kind < 3:
            return str(
                self.pick(
                    [
                        0,
                        -1,
                        1,
                        3,
                        384,
                        10**6,
                        10**9,
                        2**62,
                        10**30,
                        0.5,
                        "nan",
                        "inf",
                        "-inf",
                        "true",
                        1e308,
                    ]
                )
            )
        if kind < 6:
            return json.dumps(self.pick([text for text in TEXTS if text != "x" * 5000]))
        if kind == 6:
            return "[" * (deep := self.pick([1, 20, 3000])) + self.toml_value(0) + "]" * deep
        return f"[{', '.join(self.toml_value(depth - 1) for _ in range(self.chance.randrange(4)))}]"
