"""Networks as files that run without segda: ONNX, a program of torch, OpenVINO, a folder for Hugging Face."""
