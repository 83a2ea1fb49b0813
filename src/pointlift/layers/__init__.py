"""Blocks shared by families: one transformer block, one insertion point for everything that adapts."""
