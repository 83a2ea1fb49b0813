"""Errors, the one registry class, configuration and seeds: everything else may import this room.

Nothing here imports torch at module level, so `pointlift --help` stays fast.
"""
