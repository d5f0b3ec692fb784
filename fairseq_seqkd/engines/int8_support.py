"""Whether CTranslate2 multiplies integers of 8 bits rightly on this CPU, and what to compute in where it does not.

On CPUs that are not Intel's, CTranslate2 multiplies with oneDNN. Without the VNNI instructions oneDNN adds pairs of products
in 16 bits, where large ones saturate (its developer guide, "Nuances of int8 computations"): small models then translate
another way, and nothing says so. MKL, the other library in CTranslate2, is right everywhere and slow on such CPUs, so that
computing in float32 from the same 8-bit weights is what remains.
"""

import os
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
USE_MKL = "CT2_USE_MKL"  # CTranslate2's variable; without it, MKL is for Intel's CPUs
WITHOUT_VNNI = (
    "the products of 8-bit integers saturate in oneDNN on this CPU, which has no VNNI instructions"
)
REFUSED = f"translates wrongly here: {WITHOUT_VNNI}; take float32, which is hardly slower, or set {USE_MKL}=1, which is right and slow"


def saturates(cpuinfo=CPUINFO, environment=os.environ):
    """True where products of int8 come out wrong. Where nothing is known about the CPU (no Linux, no x86), False."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    first = {}
    for line in lines:
        key, _, value = line.partition(":")
        first.setdefault(key.strip(), value.strip())
    if "flags" not in first or "avx512_vnni" in first["flags"].split():
        return False
    by_mkl = environment.get(USE_MKL, "1" if first.get("vendor_id") == "GenuineIntel" else "0")
    return by_mkl.lower() not in ("1", "true")


def computed_as(compute_type):
    """The type to compute in on this CPU where compute_type is wanted: float32 in place of int8 that would saturate."""
    return "float32" if compute_type.startswith("int8") and saturates() else compute_type
