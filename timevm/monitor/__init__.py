"""QMP and HMP: sans-IO cores, thin asyncio shells (floor L4)."""
