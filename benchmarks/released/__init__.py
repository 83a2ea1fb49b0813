"""Released pre-training formulations, re-created from the method cards to be timed against ours.

They keep what the released code does to its tensors: 1x1 convolutions over channels-first patches, the pooled feature
repeated for every point, attention written out, loops over clouds in Python. Its compiled extensions (sampling,
neighbours, Chamfer distance) are built for CUDA alone; here plain PyTorch stands in for them.
"""
