//! `model.safetensors`: the EMA parameters under the names of a PyTorch `nn.Sequential`, and the metadata.
