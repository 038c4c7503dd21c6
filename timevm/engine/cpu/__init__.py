"""The only room that imports Unicorn, holds C, or knows a private offset (floor L1)."""
