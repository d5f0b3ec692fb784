"""What is refused before anything is loaded: a missing library, device or type."""

import re
import sys

import pytest

from fairseq_seqkd.engines import ctranslate2_support, int8_support
from fairseq_seqkd.engines.ctranslate2_support import check_installed
from fairseq_seqkd.errors import Refusal

ctranslate2 = pytest.importorskip("ctranslate2")


@pytest.fixture
def types(monkeypatch):
    """The types that CTranslate2 reports, on a CPU that multiplies int8 correctly."""
    reported = {"float32", "int8"}
    monkeypatch.setattr(ctranslate2, "get_supported_compute_types", lambda device: reported)
    monkeypatch.setattr(int8_support, "saturates", lambda: False)


def test_a_missing_library_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(Refusal, match="pip install .*ctranslate2.*, or use --engine fairseq"):
        check_installed("float32", on_gpu=False)


def test_a_missing_type_is_refused(types):
    check_installed("int8", on_gpu=False)
    with pytest.raises(Refusal, match="cannot compute in float16 here; use one of float32, int8"):
        check_installed("float16", on_gpu=False)


def test_int8_that_saturates_is_refused_on_a_cpu(types, monkeypatch):
    monkeypatch.setattr(int8_support, "saturates", lambda: True)
    monkeypatch.setattr(ctranslate2_support, "cublas_name", lambda: None)
    with pytest.raises(Refusal, match="int8 translates incorrectly here: .*no VNNI"):
        check_installed("int8", on_gpu=False)
    check_installed("int8", on_gpu=True)
    check_installed("float32", on_gpu=False)


def test_a_gpu_that_ctranslate2_cannot_use_is_refused(monkeypatch):
    def fail(device):
        raise RuntimeError("CUDA failed with error CUDA driver version is insufficient\nmore")

    monkeypatch.setattr(ctranslate2, "get_supported_compute_types", fail)
    with pytest.raises(Refusal, match="device cuda .CUDA failed .* is insufficient.; use --engine"):
        check_installed("float32", on_gpu=True)


def test_a_gpu_without_the_cublas_of_ctranslate2_is_refused(types, monkeypatch):
    """Otherwise the first product would fail. The name comes from the library itself."""
    assert re.fullmatch(r"libcublas\.so\.\d+", ctranslate2_support.cublas_name())
    monkeypatch.setattr(ctranslate2_support, "cublas_name", lambda: "libcublas.so.0")
    with pytest.raises(
        Refusal,
        match="needs libcublas.so.0 on a GPU, and it is not installed .* --cpu, or use --engine",
    ):
        check_installed("float32", on_gpu=True)
    check_installed("float32", on_gpu=False)
