"""The PyTorch room: plain and private training with Opacus."""
