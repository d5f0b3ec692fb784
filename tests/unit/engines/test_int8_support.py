"""Whether products of 8-bit integers are correct, for CPUs that are described by a file."""

import pytest

from fairseq_seqkd.engines import int8_support
from fairseq_seqkd.errors import Refusal

AMD, INTEL = "vendor_id : AuthenticAMD\n", "vendor_id : GenuineIntel\n"


@pytest.mark.parametrize(
    "cpu,environment,saturates",
    [
        (AMD + "flags : fpu avx2 fma", {}, True),
        (AMD + "flags : fpu avx2 fma", {"CT2_USE_MKL": "1"}, False),
        (AMD + "flags : fpu avx2 avx512_vnni", {}, False),
        (INTEL + "flags : fpu avx2 fma", {}, False),
        (INTEL + "flags : fpu avx2 fma", {"CT2_USE_MKL": "0"}, True),
        ("CPU implementer : 0x41\nFeatures : fp asimd", {}, False),
        (None, {}, False),
    ],
)
def test_where_int8_saturates(cpu, environment, saturates, tmp_path):
    if cpu is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{cpu}\n\nprocessor : 1\n{cpu}\n")
    assert int8_support.saturates(tmp_path / "cpuinfo", environment) == saturates


def test_float32_takes_the_place_of_int8_that_saturates(monkeypatch):
    monkeypatch.setattr(int8_support, "saturates", lambda: True)
    assert [int8_support.computed_as(t) for t in ("int8", "int8_float32", "bfloat16")] == [
        "float32",
        "float32",
        "bfloat16",
    ]
    int8_support.check("float32")
    with pytest.raises(Refusal, match="int8 translates incorrectly here: .* CT2_USE_MKL=1"):
        int8_support.check("int8")
    monkeypatch.setattr(int8_support, "saturates", lambda: False)
    assert int8_support.computed_as("int8") == "int8"
    int8_support.check("int8")
