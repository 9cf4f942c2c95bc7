from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fieldfold.task import Bundle

SCRIPT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "onnxscript"}:
            raise ImportError(f"{name} is not on a gateway")

sys.meta_path.insert(0, Blocked())
from pathlib import Path
from fieldfold.task import Bundle, open_runtime
from fieldfold.task.self_check import read_batch

assert "onnxruntime" not in sys.modules, "reading a bundle needs no runtime"
bundle = Bundle.read(Path(sys.argv[1]))
runtime = open_runtime(bundle)
runtime.self_check()
batch = read_batch(bundle)
runtime.begin(bundle.initial_parameters())
for step in range(200):
    runtime.step(batch, learning_rate=0.001, seed=step)
runtime.predict(runtime.parameters(), batch)
assert not {"torch", "onnx", "onnxscript"} & set(sys.modules)
resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
print(int(resident.split()[1]) * 1024)
"""


def test_a_gateway_without_torch_or_onnx_trains_a_bundle_in_90_megabytes(each_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "task.bundle"
    path.write_bytes(each_bundle.data)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 90e6
