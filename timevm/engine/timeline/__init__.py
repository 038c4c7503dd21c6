"""Positions, stops, seek and reverse as pure algorithms (floor L2)."""
