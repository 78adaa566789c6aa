"""What is read from Linux's description of the processor."""

from pathlib import Path

import pytest

from rtvc import processor


@pytest.mark.parametrize(
    ("vendor", "flags", "faster"),
    [
        ("GenuineIntel", "avx2 avx512_bf16 amx_bf16 amx_tile", True),
        ("GenuineIntel", "avx2 avx512f avx512_bf16", False),
        ("AuthenticAMD", "avx2 avx512f avx512_bf16", True),
        ("AuthenticAMD", "avx2 fma", False),
    ],
)
def test_bfloat16_is_taken_where_it_is_multiplied_at_full_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, flags: str, faster: bool
) -> None:
    place = tmp_path / "cpuinfo"
    core = f"vendor_id\t: {vendor}\nmodel name\t: Some 9\nflags\t\t: fpu {flags}\n\n"
    place.write_text(core * 2)
    monkeypatch.setattr(processor, "PLACE", place)
    assert processor.bfloat16_is_faster() is faster
    assert processor.features() == {"fpu", *flags.split()} and processor.name() == "Some 9"


def test_a_machine_that_says_nothing_computes_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "PLACE", tmp_path / "none")
    assert processor.features() is None and processor.name()
    assert not processor.bfloat16_is_faster()
