"""The turbofan task as a Flower app: ONNX Runtime trains, FedAvg averages."""
