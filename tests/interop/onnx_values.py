"""The outputs of model.onnx as onnxruntime computes them, after onnx has checked the file.

    onnx_values.py FOLDER...

Each FOLDER holds model.onnx and points.safetensors, with a tensor for each input. Written into it is
values.safetensors with a tensor for each output.
"""

import sys
from pathlib import Path

try:
    import numpy as np
    import onnx
    import onnxruntime
    from safetensors.numpy import load_file, save_file
except ImportError as error:
    sys.exit(f"{error}: install it ({sys.executable} -m pip install numpy safetensors onnx onnxruntime)")

TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}


def main(folders):
    for folder in map(Path, folders):
        path = str(folder / "model.onnx")
        onnx.checker.check_model(path, full_check=True)
        assert "action_matching" in [entry.key for entry in onnx.load(path).metadata_props], path
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        points = load_file(folder / "points.safetensors")
        inputs = {input.name: points.pop(input.name).astype(TYPES[input.type]) for input in session.get_inputs()}
        assert not points, f"{path} does not take {list(points)}"
        names = [output.name for output in session.get_outputs()]
        values = session.run(names, inputs)
        save_file({name: np.ascontiguousarray(value) for name, value in zip(names, values)}, folder / "values.safetensors")


if __name__ == "__main__":
    main(sys.argv[1:])
