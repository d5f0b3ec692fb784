"""Whether CTranslate2 multiplies 8-bit integers correctly on this CPU, and what to use if not.

On CPUs that are not Intel's, CTranslate2 multiplies with oneDNN. Without VNNI instructions, oneDNN
adds pairs of products in 16 bits, where large ones saturate (its developer guide, "Nuances of int8
computations"). Small models then translate differently, without a warning. MKL, the other library
of CTranslate2, is correct everywhere but slow on these CPUs. float32 with the same 8-bit weights is
correct and hardly slower.
"""

import os
from pathlib import Path
from typing import Dict, Mapping

from fairseq_seqkd.errors import Refusal

CPUINFO = Path("/proc/cpuinfo")
USE_MKL = "CT2_USE_MKL"  # CTranslate2's variable; by default, Intel's CPUs use MKL
WITHOUT_VNNI = (
    "the products of 8-bit integers saturate in oneDNN on this CPU, which has no VNNI instructions"
)


def saturates(cpuinfo: Path = CPUINFO, environment: Mapping[str, str] = os.environ) -> bool:
    """Returns whether products of int8 are wrong; False if the CPU is unknown or not x86."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    first_cpu: Dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        first_cpu.setdefault(key.strip(), value.strip())
    flags = first_cpu.get("flags", "").split()
    if not flags or "avx512_vnni" in flags:
        return False
    is_intel = first_cpu.get("vendor_id") == "GenuineIntel"
    uses_mkl = environment.get(USE_MKL, "1" if is_intel else "0")
    return uses_mkl.lower() not in ("1", "true")


def computed_as(compute_type: str) -> str:
    """Returns the type to compute in: float32 in place of an int8 type that would saturate."""
    return "float32" if compute_type.startswith("int8") and saturates() else compute_type


def check(compute_type: str) -> None:
    """Raises Refusal for an int8 type that would saturate."""
    if computed_as(compute_type) != compute_type:
        raise Refusal(
            f"{compute_type} translates incorrectly here: {WITHOUT_VNNI}; use float32, which is "
            f"hardly slower, or set {USE_MKL}=1, which is correct but slow"
        )
