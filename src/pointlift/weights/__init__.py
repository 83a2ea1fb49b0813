"""Which checkpoints exist, where, whose licence; reading them safely; saying what was loaded.

No network code lives here: entries name architectures as strings.
"""
