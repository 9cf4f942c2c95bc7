"""From a task file to a bundle: the rooms that need torch, onnx and onnxscript."""
