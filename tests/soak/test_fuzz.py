"""Coverage-guided fuzzing of every decoder (issue 3 §6): ``make soak``.

Each decoder runs in a process of its own, under atheris, for AGENTMESH_FUZZ_S seconds (120). The corpus to start from is
made by ``support.decoders``. A finding prints the bytes in hex; it joins ``FOUND`` in property/test_decoders_fuzz.py.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.decoders import targets

ROOT = Path(__file__).resolve().parents[2]
RUN_S = float(os.environ.get("AGENTMESH_FUZZ_S", "120"))

#: What the process runs: instrument our code, then let libFuzzer choose bytes. Exit 77 is a finding.
_FUZZ = """
import sys, atheris
with atheris.instrument_imports(include=["agentmesh"]):
    from tests.support.decoders import attempt, targets
name = sys.argv.pop(1)
target = next(t for t in targets() if t.name == name)
def once(raw):
    try:
        attempt(target, raw)
    except BaseException as error:
        print("finding", type(error).__name__, str(error)[:200], raw.hex(), flush=True)
        raise
atheris.Setup(sys.argv, once)
atheris.Fuzz()
"""


@pytest.mark.soak
@pytest.mark.timeout(RUN_S + 300)
@pytest.mark.parametrize("name", [target.name for target in targets()])
def test_no_bytes_that_coverage_leads_to_break_a_decoder(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this machine and Python: pip install -r requirements/soak.txt")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    target = next(t for t in targets() if t.name == name)
    for number, raw in enumerate(target.examples):
        (corpus / str(number)).write_bytes(raw)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _FUZZ,
            name,
            f"-max_total_time={int(RUN_S)}",
            "-max_len=4096",
            "-rss_limit_mb=1024",
            "-timeout=10",
            "-print_final_stats=1",
            "-error_exitcode=77",
            f"-artifact_prefix={tmp_path}/",
            str(corpus),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4_000:]
    assert "finding" not in done.stdout
    ran = re.search(r"number_of_executed_units: *(\d+)", said)
    assert ran is not None, said[-2_000:]
    assert int(ran[1]) > 1_000
    print(f"{name}: {ran[1]} inputs in {RUN_S:.0f} s")
